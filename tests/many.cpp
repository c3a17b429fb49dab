// Many sequences in one step: what each gets is, to the last bit, what it would get alone.

#include "scripted_model.h"
#include "support.h"

#include <thread>

namespace tests {
namespace {

using llm::Completion, llm::End, llm::GenerateOptions, llm::Request, llm::Stats;

std::vector<Session*> pointers(std::vector<Session>& sessions) {
    std::vector<Session*> all;
    for (Session& s : sessions) all.push_back(&s);
    return all;
}

bool same_logits(Session& session, const float* expected) {
    return std::equal(expected, expected + session.model().config().vocab_size, session.logits());
}

TEST_CASE("sessions in one step have the logits that each has alone, at any depth, in any company") {
    for (const detail::Kernels* kernels : thinned(detail::available_kernels())) {
        const bool is_best = kernels == detail::available_kernels().back();
        const Environment forced("LLM_SIMD", kernels->name);
        for (const std::string& name : kTinyModels)
            for (const DType dtype : kDTypes)
                for (const int threads : {1, 2}) {
                    if (!is_best && threads == 1) continue;
                    CAPTURE(std::string(kernels->name) + " " + name + " " + name_of(dtype));
                    const Model model = load(tiny(name), dtype);
                    Random random{7};
                    std::vector<Session> sessions;
                    sessions.emplace_back(model, 200, threads);
                    for (int i = 1; i < 15; ++i)  // some share threads, others bring their own
                        sessions.push_back(i % 4 ? sessions[usize(random.below(i))].fork() : Session(model, 200, 1));
                    Session alone(model, 200, 2);
                    std::vector<std::vector<int>> texts(sessions.size());
                    for (int step = 0; step < (is_best && !LLM_TSAN ? 8 : 2); ++step) {
                        std::vector<Session*> together;
                        std::vector<std::vector<int>> tokens;
                        for (std::size_t i = 0; i < sessions.size(); ++i) {
                            if (random.below(4) == 0) continue;
                            const int room = 199 - sessions[i].position(), most = step % 4 ? 1 : is_best ? 130 : 30;
                            if (room < 1) {
                                texts[i].resize(40);
                                sessions[i].rewind(40);
                            }
                            tokens.push_back(random.tokens(1 + random.below(std::min(std::max(room, 1), most)),
                                                           model.config().vocab_size));
                            texts[i].insert(texts[i].end(), tokens.back().begin(), tokens.back().end());
                            together.push_back(&sessions[i]);
                        }
                        if (together.empty()) continue;
                        llm::forward_together(together, tokens);
                        for (std::size_t i = 0; i < sessions.size(); ++i) {
                            REQUIRE(sessions[i].tokens() == texts[i]);
                            if (texts[i].empty() || random.below(3) > 0) continue;
                            alone.rewind(0);
                            REQUIRE(same_logits(sessions[i], alone.forward(texts[i])));
                        }
                    }
                }
    }
}

TEST_CASE("attention over texts of different depths divides the deep one, and finds the same bits") {
    llm::Config c = shape("gemma3", 32, 4, 2, 16, 32);
    c.context_length = 2000;
    c.is_local = {false, false};
    const detail::Kernels& kernels = *detail::available_kernels().back();
    Random random{3};
    std::vector<detail::KvCache> caches;
    const std::vector<int> depths = {1900, 3, 40, 300, 1, 700};
    for (const int depth : depths) {
        detail::KvCache& cache = caches.emplace_back(c, false, 2000, detail::CacheFormat::f16);
        cache.memory = detail::Buffer(cache.bytes());
        for (int p = 0; p < depth; ++p)
            for (int h = 0; h < 2; ++h)
                cache.store<std::uint16_t>(kernels, h, p, random.values(16).data(), random.values(16).data());
    }
    const std::vector<float> q = random.values(6 * 64, -2, 2);
    std::vector<float> expected(6 * 64), out(6 * 64);
    const auto input = [&](std::size_t i, std::vector<float>& to) {
        return detail::AttentionInput{&caches[i], &q[i * 64], 64, 1, depths[i] - 1, 0, &to[i * 64]};
    };
    detail::ThreadPool one(1), three(3);
    detail::Attention alone{one, kernels, c}, together{three, kernels, c};
    std::vector<detail::AttentionInput> all;
    for (std::size_t i = 0; i < depths.size(); ++i) all.push_back(input(i, out)), alone.run({input(i, expected)});
    together.run(all);
    CHECK(out == expected);
    CHECK(together.divided.size() == 2);  // the heads of the deepest, whose 8 parts are a quarter of all
    CHECK(together.items.size() == 2 * (8 + 1 + 1 + 1 + 1 + 1));
    CHECK(alone.divided.empty());
}

// What generate writes alone after what the session holds.
Completion alone(const Session& session, const Request& request) {
    Session fork = session.fork();
    Completion one;
    one.stats = llm::generate(fork, request.prompt, request.options,
                              [&](std::string_view text) { return one.text += text, true; });
    one.tokens.assign(fork.tokens().end() - one.stats.generated, fork.tokens().end());
    return one;
}
void check_same(const Completion& one, const Completion& expected) {
    CHECK(one.text == expected.text);
    CHECK(one.tokens == expected.tokens);
    CHECK(one.stats.end == expected.stats.end);
    CHECK(one.stats.generated == expected.stats.generated);
    CHECK(one.stats.prompt_tokens == expected.stats.prompt_tokens);
}

TEST_CASE("generate_many writes what generate writes, whatever shares the steps") {
    const std::string words = "The king is dead, and all his men are gone to bury him by night. ";
    for (const std::string& name : kTinyModels)
        for (const DType dtype : kDTypes) {
            const Model model = load(tiny(name), dtype);
            Session session(model, 250, 2);
            Random random{1};
            for (const std::string& held : {std::string(), std::string("Enter the ghost.\n")})
                for (const std::string& beginning : {std::string(), words}) {
                    if (!held.empty()) session.forward(model.tokenizer().encode(held));
                    std::vector<Request> requests;
                    for (int i = 0; i < (kThinned > 1 ? 8 : 16); ++i) {
                        Request& r = requests.emplace_back();
                        r.prompt = beginning + words.substr(usize(random.below(60)));
                        if (i % 5 == 0) r.prompt = beginning + words + words + words.substr(usize(random.below(60)));
                        if (i % 7 == 3) r.prompt = beginning + "A";
                        if (i == 4 && beginning.empty()) r.prompt.clear();
                        r.options.max_tokens = i == 7 ? -1 : random.below(20);
                        r.options.sampling.seed = random.below(100u);
                        r.options.sampling.temperature = i % 3 ? 0.9f : 0;
                        r.options.sampling.repeat_penalty = i % 4 ? 1 : 1.3f;
                        r.options.ignore_end = i % 2 == 0;
                        if (i % 5 == 2) r.options.stop = {"e", "\n"};
                    }
                    std::vector<Completion> expected;
                    for (const Request& r : requests) expected.push_back(alone(session, r));
                    const std::vector<int> before = session.tokens();
                    for (const int at_once : {5, 0}) {
                        CAPTURE(name);
                        CAPTURE(at_once);
                        std::vector<std::string> texts(requests.size());
                        std::vector<int> ended;
                        const auto written = generate_many(
                            session, requests,
                            [&](int i, std::string_view text) { return texts[usize(i)] += text, true; }, at_once,
                            [&](int i, const Completion& c) {
                                CHECK(c.text == texts[usize(i)]);
                                return ended.push_back(i), true;
                            });
                        REQUIRE(written.size() == requests.size());
                        for (std::size_t i = 0; i < written.size(); ++i) check_same(written[i], expected[i]);
                        std::sort(ended.begin(), ended.end());
                        for (int i = 0; i < int(ended.size()); ++i) CHECK(ended[usize(i)] == i);
                        CHECK(ended.size() == requests.size());
                        CHECK(session.tokens() == before);
                    }
                    session.rewind(0);
                }
        }
}

TEST_CASE("generate_many: of prompts alone text i has the seed + i, from a model or a session") {
    const Model model = load(tiny("gemma3-tiny"));
    Session session(model);
    GenerateOptions options;
    options.max_tokens = 20;
    options.sampling.seed = 11;
    const auto written = llm::generate_many(model, {"ROMEO:", "ROMEO:", "KING:"}, options);
    const auto again = llm::generate_many(session, {"ROMEO:", "ROMEO:", "KING:"}, options, {}, 2);
    REQUIRE(written.size() == 3);
    for (int i = 0; i < 3; ++i) {
        CHECK(written[usize(i)].text == generated(session, i < 2 ? "ROMEO:" : "KING:", options));
        CHECK(again[usize(i)].text == written[usize(i)].text);
        session.rewind(0);
        ++options.sampling.seed;
    }
    CHECK(written[0].text != written[1].text);
    CHECK(llm::generate_many(session, std::vector<std::string>{}).empty());
}

TEST_CASE("generate_many: a common beginning goes through the layers once, and a text takes the place of another") {
    const Model model = load(tiny("gemma3-tiny"));
    Session session(model, 0, 2);
    const std::string beginning = "To be, or not to be, that is the question: whether it is nobler in the mind ";
    std::vector<std::string> prompts;
    for (int i = 0; i < 20; ++i) prompts.push_back(beginning + char('a' + i));
    int tokens = 0, steps = 0, most = 0;
    session.on_timing([&](const llm::Timing& t) {
        if (t.operation == std::string_view("embedding")) tokens += t.tokens, ++steps, most = std::max(most, t.tokens);
    });
    GenerateOptions options = greedy(6);
    options.ignore_end = true;
    llm::generate_many(session, prompts, options, {}, 4);
    const int shared = static_cast<int>(model.tokenizer().encode(beginning).size());
    CHECK(tokens < 2 * shared + 20 * (6 + 4));
    CHECK(steps == 1 + 20 / 4 * 6);  // the beginning; then all slots are always busy
    CHECK(most >= shared - 1);

    // So does what the session has to read again, as its local layers have forgotten what was before.
    session.forward(std::vector<int>(500, 7));
    session.rewind(200);
    tokens = 0;
    const auto texts = llm::generate_many(session, std::vector<std::string>(8, "a"), options, {}, 8);
    CHECK(tokens < 200 + 8 * (6 + 4));
    CHECK(texts[0].stats.prompt_tokens >= 200);
}

TEST_CASE("generate_many: long prompts are read in pieces, beside texts that go on") {
    const Model model = load(tiny("gpt2-tiny"));
    Session session(model, 0, 2);
    const int context = session.context();
    std::vector<Request> requests(4);
    for (Request& r : requests) r.options = greedy(12), r.options.ignore_end = true;
    requests[0].prompt = "A";
    for (int i = 1; i < 4; ++i) requests[usize(i)].prompt = std::string(usize(context) * 2 / 3, char('a' + i));
    int longest = 0;
    session.on_timing([&](const llm::Timing& t) {
        if (t.operation == std::string_view("embedding")) longest = std::max(longest, t.tokens);
    });
    std::vector<int> order;
    std::vector<std::pair<int, int>> pieces;
    for (int i = 0; i < 4; ++i)
        requests[usize(i)].options.on_prompt = [&, i](int done, int total) {
            CHECK(done <= total);
            return pieces.emplace_back(i, done), true;
        };
    generate_many(session, requests, [&](int i, std::string_view) { return order.push_back(i), true; });
    CHECK(longest <= 256);
    CHECK(pieces.size() > 6);
    CHECK(std::count(order.begin(), std::find(order.begin(), order.end(), 3), 0) > 1);  // while the last is read
}

TEST_CASE("generate_many: false ends a text, on_end's the beginning of others, an exception all") {
    const Model model = load(tiny("gemma3-tiny"));
    Session session(model, 100, 2);
    session.forward(model.tokenizer().encode("ACT I\n"));
    const std::vector<float> before = last_logits(session, {7});
    const std::vector<int> held = session.tokens();
    GenerateOptions options = greedy(12);
    options.ignore_end = true;
    const std::vector<std::string> prompts(9, "KING");
    const auto all = llm::generate_many(session, prompts, options, {}, 3);
    const auto all_but_4 = [](int i, std::string_view) { return i != 4; };
    const auto some = llm::generate_many(session, prompts, options, all_but_4, 3);
    for (std::size_t i = 0; i < 9; ++i) {
        CHECK(some[i].stats.end == (i == 4 ? End::callback : End::max_tokens));
        if (i != 4) CHECK(some[i].text == all[i].text);
        else CHECK(some[i].text == all[i].text.substr(0, some[i].text.size()));
    }
    const auto few =
        llm::generate_many(session, prompts, options, {}, 3, [](int i, const Completion&) { return i < 1; });
    for (std::size_t i = 0; i < 9; ++i) CHECK(few[i].stats.end == (i < 3 ? End::max_tokens : End::interrupted));
    CHECK(few[8].tokens.empty());
    for (int when = 0; when < 3; ++when) {
        GenerateOptions throwing = options;
        if (when == 1) throwing.on_prompt = [](int, int) -> bool { throw 5; };
        if (when == 2) throwing.on_logits = [](float*, int) { throw 5; };
        const auto call = [&] {
            llm::generate_many(session, prompts, throwing,
                               [&](int i, std::string_view) -> bool { return i < 2 ? true : throw 5; });
        };
        CHECK_THROWS_AS(call(), int);
        CHECK(session.tokens() == held);
        CHECK(same_logits(session, before.data()));
    }
    GenerateOptions refusing = options;
    refusing.on_prompt = [](int, int) { return false; };
    for (const Completion& c : llm::generate_many(session, prompts, refusing)) {
        CHECK(c.stats.end == End::interrupted);
        CHECK(c.text.empty());
    }
}

TEST_CASE("generate_many: a session's on_layer sees and steers each text, as generate's") {
    const Model model = load(tiny("gemma3-tiny"));
    Session session(model, 0, 2);
    int calls = 0;
    session.on_layer([&](int, int, int n, float* x) {
        ++calls;
        for (int i = 0; i < n * model.config().hidden_size; ++i) x[i] *= i % 2 ? 1.5f : 0.5f;
    });
    const std::vector<std::string> prompts = {"ROMEO:", "JULIET:"};
    std::vector<std::string> expected;
    for (const std::string& prompt : prompts) {
        session.rewind(0);
        expected.push_back(generated(session, prompt, greedy(15)));
    }
    session.rewind(0);
    calls = 0;
    const auto texts = llm::generate_many(session, prompts, greedy(15));
    CHECK(calls > 2 * 15);
    for (std::size_t i = 0; i < texts.size(); ++i) CHECK(texts[i].text == expected[i]);
}

TEST_CASE("generate_many: callbacks of a request see its own text") {
    const Model model = load(tiny("gpt2-tiny"));
    Session session(model, 60, 3);
    std::vector<Request> requests(7);
    std::vector<std::vector<int>> tokens(7);
    for (int i = 0; i < 7; ++i) {
        Request& r = requests[usize(i)];
        r.prompt = "A";
        r.options = greedy(5);
        r.options.likeliest = i;
        const int wanted = 65 + i;
        r.options.on_logits = [wanted](float* logits, int) { logits[wanted] = INFINITY; };
        r.options.on_token = [&tokens, i](const llm::TokenInfo& t) {
            CHECK(int(t.likeliest.size()) == i);
            return tokens[usize(i)].push_back(t.id), true;
        };
    }
    const auto written = generate_many(session, requests, {}, 3);
    for (int i = 0; i < 7; ++i) {
        CHECK(written[usize(i)].tokens == std::vector<int>(5, 65 + i));
        CHECK(tokens[usize(i)] == written[usize(i)].tokens);
    }
}

TEST_CASE("what cannot be is refused before anything is written") {
    const Model model = load(tiny("gpt2-tiny")), other_model = load(tiny("gemma3-tiny"));
    Session a(model, 20, 1), b(model, 20, 1), other(other_model, 20, 1);
    const auto never = [](int, std::string_view) -> bool { throw 5; };
    std::vector<Request> requests(3);
    for (Request& r : requests) r.prompt = "A";
    requests[2].prompt = std::string(100, 'x');
    CHECK_ERROR(generate_many(a, requests, never), "prompt 2", "context");
    requests[2].prompt = "A";
    requests[1].options.max_tokens = -2;
    CHECK_ERROR(generate_many(a, requests, never), "prompt 1", "max_tokens");
    requests[1].options = {};
    requests[1].options.sampling.top_p = 7;
    CHECK_ERROR(generate_many(a, requests, never), "prompt 1", "top_p");
    llm::Sampler sampler;
    requests[1].options = {};
    requests[1].options.sampler = &sampler;
    CHECK_ERROR(generate_many(a, requests, never), "prompt 1", "sampler");
    for (const int at_once : {-1, 257}) CHECK_ERROR(llm::generate_many(a, {"A"}, {}, {}, at_once), "at_once");

    CHECK_ERROR(llm::forward_together({}, {}), "at least one");
    CHECK_ERROR(llm::forward_together({&a, &b}, {{1}}), "2 and 1");
    CHECK_ERROR(llm::forward_together({&a, &a}, {{1}, {2}}), "in use", "twice");
    CHECK_ERROR(llm::forward_together({&a, nullptr}, {{1}, {2}}), "null");
    CHECK_ERROR(llm::forward_together({&a, &other}, {{1}, {2}}), "several models");
    CHECK_ERROR(llm::forward_together({&a, &b}, {{1}, {}}), "no tokens");
    CHECK_ERROR(llm::forward_together({&a, &b}, {{1}, std::vector<int>(21, 1)}), "context");
    CHECK_ERROR(llm::forward_together({&a, &b}, {{1}, {-1}}), "token id");
    CHECK(a.position() == 0);

    // More than any machine has
    llm::Config wide = shape("gemma3", 256, 4, 4, 64, 64);
    wide.context_length = 1 << 22;
    wide.num_layers = 1;
    wide.is_local = {false};
    wide.vocab_size = 768;
    const Model random = Model::random(wide);
    CHECK(random.session_bytes(1 << 22, 258) >
          257 * (random.session_bytes(1 << 22, 2) - random.session_bytes(1 << 22)));
    Session large(random, 1 << 22, 1);
    CHECK_ERROR(llm::generate_many(large, {"A"}, {}, {}, 256), "memory", "256 texts");
    CHECK_ERROR(random.session_bytes(0, 0), "sessions");
    CHECK_ERROR(random.session_bytes(0, INT_MAX), "sessions");
}

TEST_CASE("an exception between layers leaves all sessions where they were") {
    const Model model = load(tiny("gemma3-tiny"));
    std::vector<Session> sessions;
    for (int i = 0; i < 3; ++i) sessions.push_back(i ? sessions[0].fork() : Session(model, 60, 2));
    llm::forward_together(pointers(sessions), {{1, 2}, {3}, {4, 5, 6}});
    int calls = 0;
    std::vector<std::pair<int, int>> seen;  // positions and counts
    sessions[1].on_layer([&](int, int position, int n, float*) {
        seen.emplace_back(position, n);
        CHECK_ERROR(sessions[2].forward({1}), "in use");
        CHECK_ERROR(sessions[1].rewind(0), "in use");
        if (++calls == 2) throw 5;
    });
    CHECK_THROWS_AS(llm::forward_together(pointers(sessions), {{7}, {8, 9}, {10}}), int);
    CHECK(seen == std::vector<std::pair<int, int>>{{1, 2}, {1, 2}});
    for (std::size_t i = 0; i < 3; ++i) CHECK(sessions[i].position() == (i == 1 ? 1 : i == 0 ? 2 : 3));
    sessions[1].on_layer(nullptr);
    llm::forward_together(pointers(sessions), {{7}, {8, 9}, {10}});
    Session plain(model, 60, 1);
    CHECK(same_logits(sessions[1], plain.forward({3, 8, 9})));
}

TEST_CASE("sessions that share steps and threads are destroyed, moved, saved and rewound between them") {
    const Model model = load(tiny("gemma3-tiny"));
    auto first = std::make_unique<Session>(model, 120, 2);
    first->forward(model.tokenizer().encode("KING HENRY:\nWe few, we happy few"));
    const std::vector<int> held = first->tokens();
    Session second = first->fork(), third = second.fork();
    CHECK(second.threads() == 2);
    const float* kept = second.logits();
    const std::vector<float> before(kept, kept + model.config().vocab_size);
    third.forward({9, 10});
    CHECK(std::equal(before.begin(), before.end(), kept));  // a fork's step leaves another's logits alone
    first.reset();                                          // the threads live on with those that share them
    Session moved = std::move(second);
    moved.rewind(5);
    third.load_bytes(moved.save_bytes());
    std::vector<int> text(held.begin(), held.begin() + 5);
    llm::forward_together({&third, &moved}, {{11}, {12, 13}});
    Session plain(model, 120, 1);
    text.push_back(11);
    CHECK(same_logits(third, plain.forward(text)));
    plain.rewind(5);
    CHECK(same_logits(moved, plain.forward({12, 13})));
}

TEST_CASE("forks are used by several threads, which take turns" * doctest::skip(false)) {
    const Model model = load(tiny("gpt2-tiny"));
    Session session(model, 100, 2);
    session.forward(model.tokenizer().encode("ROMEO:"));
    GenerateOptions options = greedy(25);
    const auto expected = alone(session, {"", options}).text;
    std::vector<Session> forks;
    for (int i = 0; i < 4; ++i) forks.push_back(session.fork());
    std::array<std::string, 4> texts;
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < 4; ++i)
        threads.emplace_back([&, i] {
            texts[i] =
                i < 3 ? generated(forks[i], "", options) : llm::generate_many(forks[i], {"", ""}, options)[1].text;
        });
    for (std::thread& t : threads) t.join();
    for (const std::string& text : texts) CHECK(text == expected);
}

}  // namespace
}  // namespace tests
