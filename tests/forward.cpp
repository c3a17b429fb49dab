// FORWARD: the same text on different ways through the model.

#include "support.h"

namespace tests {
namespace {

template <class Check>  // check(model, ids, expected logits): both tiny models in both types, as long as their context
void with_long_text(const Check& check) {
    for (const std::string& name : kTinyModels)
        for (const DType dtype : kDTypes) {
            CAPTURE(name);
            CAPTURE(name_of(dtype));
            const Model model = load(tiny(name), dtype);
            std::vector<int> ids =
                model.tokenizer().encode(read_file(repository() / "LICENSE") + read_file(repository() / "README.md"));
            REQUIRE(ids.size() >= usize(model.config().context_length));
            ids.resize(usize(model.config().context_length));
            Session session(model, 0, 2);
            check(model, ids, logits_of(session, ids));
        }
}

TEST_CASE("prompts in pieces of every size give the same logits") {
    std::vector<std::size_t> sizes = {48, 63, 64, 65, 129, 255, 256, 257, 500};
    for (std::size_t n = 1; n <= 40; ++n) sizes.push_back(n);
    with_long_text([&](const Model& model, const std::vector<int>& ids, const Logits& expected) {
        Session session(model, 0, 1);
        for (const std::size_t piece : thinned(sizes)) {
            session.rewind(0);
            CAPTURE(piece);
            const auto n =
                static_cast<std::ptrdiff_t>(std::min(ids.size(), piece > 1 && piece <= 40 ? 120 : ids.size()));
            CHECK(distance(logits_of(session, {ids.begin(), ids.begin() + n}, piece),
                           {expected.begin(), expected.begin() + n}) < rounding(model.dtype()));
        }
    });
}

TEST_CASE("forward gives the last of the logits that forward_each gives") {
    with_long_text([&](const Model& model, const std::vector<int>& ids, const Logits& expected) {
        for (const int n : thinned<int>({1, 2, 11, 12, 13, 24, 25, 63, 64, 65, 200, 255, 256, 257, 500})) {
            if (usize(n) > ids.size()) continue;
            CAPTURE(n);
            Session session(model, 0, 2);
            CHECK(distance(last_logits(session, {ids.begin(), ids.begin() + n}), expected[usize(n - 1)]) <
                  rounding(model.dtype()));
            CHECK(session.position() == n);
        }
    });
}

TEST_CASE("rewinding gives the same logits as starting anew, also to before the sliding window's ring") {
    with_long_text([&](const Model& model, const std::vector<int>& ids, const Logits& expected) {
        Session session(model, 0, 2);
        const int all = static_cast<int>(ids.size());
        std::vector<int> positions = {all, all - 1, 0, 1, all - 31, all - 32, all - 33, all / 2, 63, 64, 65, 33, 200};
        // Gemma's window of 32 lies in a ring of 320 positions: from 289 back on, some that it needs are overwritten.
        for (int back = 286; back < 292; ++back) positions.push_back(all - back);
        for (const int back : thinned(positions)) {
            const int to = std::max(0, back);
            CAPTURE(to);
            logits_of(session, {ids.begin() + session.position(), ids.end()});
            session.rewind(to);
            CHECK(session.position() == to);
            const Logits got = logits_of(session, {ids.begin() + to, ids.end()}, 37);
            CHECK(distance(got, {expected.begin() + to, expected.end()}) < rounding(model.dtype()));
        }
        // Several times in a row, without anything between that would fill the ring again
        for (const int to : {all - 10, all - 100, all / 3, 40, 39}) session.rewind(to);
        CHECK(distance(logits_of(session, {ids.begin() + 39, ids.end()}), {expected.begin() + 39, expected.end()}) <
              rounding(model.dtype()));
    });
}

TEST_CASE("a context can be filled to its last position and not beyond") {
    with_long_text([&](const Model& model, const std::vector<int>& ids, const Logits& expected) {
        for (const int context :
             thinned<int>({1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 255, 256, model.config().context_length})) {
            CAPTURE(context);
            Session session(model, context, 2);
            CHECK(session.context() == context);
            const std::vector<int> some(ids.begin(), ids.begin() + context);
            CHECK(distance(logits_of(session, some, 50), {expected.begin(), expected.begin() + context}) <
                  rounding(model.dtype()));
            CHECK_THROWS_AS(session.forward(ids.data(), 1), llm::Error);
            session.rewind(context - 1);
            CHECK(distance(last_logits(session, {ids[usize(context - 1)]}), expected[usize(context - 1)]) <
                  rounding(model.dtype()));
        }
    });
}

TEST_CASE("every number of threads and every kernel set gives the same logits") {
    with_long_text([&](const Model& model, std::vector<int> ids, Logits expected) {
        ids.resize(150), expected.resize(150);
        for (const int threads : LLM_TSAN ? std::vector{3} : std::vector{1, 2, 3, 7}) {
            CAPTURE(threads);
            Session session(model, 0, threads);
            CHECK(session.threads() == threads);
            CHECK(distance(logits_of(session, ids, 100), expected) < rounding(model.dtype()));
        }
        const bool gpt2 = model.config().architecture == "gpt2";
        for (const detail::Kernels* set : thinned(detail::available_kernels())) {
            CAPTURE(std::string(set->name));
            const Environment forced("LLM_SIMD", set->name);
            Session session(load(tiny(kTinyModels[gpt2 ? 0 : 1]), model.dtype()), 0, 2);
            CHECK(distance(logits_of(session, ids, 100), expected) < rounding(model.dtype()));
        }
    });
}

TEST_CASE("hidden states are what the head turns into logits") {
    for (const std::string& name : kTinyModels) {
        CAPTURE(name);
        const Model model = load(tiny(name), DType::f32);
        const llm::Config& c = model.config();
        Session session(model), other(model);
        const std::vector<int> ids = Random{3}.tokens(c.context_length == 256 ? 250 : 300, c.vocab_size);
        const Logits logits = logits_of(other, ids);
        std::vector<float> row(usize(c.hidden_size));
        int calls = 0;
        session.forward_hidden(ids.data(), static_cast<int>(ids.size()), [&](int i, const float* hidden) {
            CHECK(i == calls++);
            for (const int id : {0, 99, c.vocab_size - 1}) {
                model.data().weights.head.w.row(id, row.data());
                const double logit = std::inner_product(row.begin(), row.end(), hidden, 0.0);
                CHECK(std::fabs(logit - logits[usize(i)][usize(id)]) < 1e-3);
            }
        });
        CHECK(calls == static_cast<int>(ids.size()));
        CHECK(session.tokens() == ids);
        CHECK(error_of([&] { session.forward_hidden(ids.data(), 0, nullptr); }).find("0") != std::string::npos);
    }
}

TEST_CASE("a session may be moved, and outlives its model") {
    for (const std::string& name : kTinyModels) {
        Session fresh(load(tiny(name)), 0, 2);
        const std::string expected = generated(fresh, "ROMEO:", greedy(20));
        auto session = std::make_unique<Session>(load(tiny(name)), 0, 2);  // the Model is gone
        std::string text = generated(*session, "ROMEO:", greedy(7));
        Session moved = std::move(*session);
        CHECK_ERROR(session->position(), "there is no session", "moved-from");
        session.reset();
        text += generated(moved, "", greedy(6));
        Session target(load(tiny(name)), 8, 1);
        target = std::move(moved);
        text += generated(target, "", greedy(7));
        CHECK(text == expected);
    }
}

TEST_CASE("sessions of one model in several threads do not disturb each other") {
    const Model model = load(tiny("gemma3-tiny"));
    const char* const prompts[] = {"ROMEO:", "JULIET: to be", "To be, or not", "The king of the"};
    Logits alone[4], together[4];
    const auto run = [&](int i) {
        Session session(model, 0, 2);
        Logits logits;
        for (int round = 0; round < 10; ++round) {
            session.rewind(0);
            logits = logits_of(session, model.tokenizer().encode(prompts[i]), 3);
        }
        return logits;
    };
    for (int i = 0; i < 4; ++i) alone[i] = run(i);
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) threads.emplace_back([&, i] { together[i] = run(i); });
    for (std::thread& thread : threads) thread.join();
    for (int i = 0; i < 4; ++i) CHECK(together[i] == alone[i]);
}

// ---- the foretold memory

TEST_CASE("the foretold memory of a session grows by what the context adds, the global layer's cache alone") {
    const Model model = load(tiny("gemma3-tiny"));
    const llm::Config& c = model.config();
    const std::size_t position = usize(c.num_kv_heads) * usize(2 * c.head_dim) * 2;  // a key and a value of F16
    CHECK(model.session_bytes(512) - model.session_bytes(448) >= 64 * position);
    CHECK(model.session_bytes(512) - model.session_bytes(448) < 2 * 64 * position);
    CHECK(model.session_bytes(0) == model.session_bytes(512));
    CHECK_THROWS_AS(model.session_bytes(513), llm::Error);
}

#ifdef __linux__
// Each of these is mostly one of the things that a session holds.
TEST_CASE("a session takes the memory that was foretold" * not_sanitized()) {
    const auto address_space = [] {
        std::ifstream statm("/proc/self/statm");
        long long pages = 0;
        statm >> pages;
        return pages * getpagesize();
    };
    struct Case {
        const char* what;
        llm::Config config;
        int tokens;
    } cases[] = {{"logits", shape("gpt2", 32, 1, 1, 32, 16), 1},
                 {"the feed-forward network's input", shape("gemma3", 32, 1, 1, 16, 1 << 16), 256},
                 {"a layer's input and scratch", shape("gemma3", 1 << 14, 1, 1, 16, 16), 256},
                 {"heads", shape("gemma3", 16, 256, 1, 128, 16), 256},
                 {"caches", shape("gemma3", 16, 32, 32, 64, 16), 8}};
    cases[0].config.vocab_size = 3 << 19;
    cases[4].config.context_length = 5000, cases[4].config.sliding_window = 4000;
    for (Case& one : cases)
        for (const DType dtype : {DType::q8_0, DType::f32}) {
            one.config.context_length = std::max(one.config.context_length, 256);
            llm::LoadOptions options;
            options.dtype = dtype;
            const Model model = Model::random(one.config, options);
            const std::vector<int> ids = Random{1}.tokens(one.tokens, 77);
            const long long foretold = static_cast<long long>(model.session_bytes(0)), before = address_space();
            Session session(model, 0, 1);
            session.forward(ids.data(), one.tokens);
            session.rewind(one.tokens - 1);
            session.forward_best(&ids.back(), 1, 1);
            const long long taken = address_space() - before;
            CAPTURE(one.what);
            CAPTURE(name_of(dtype));
            CAPTURE(foretold);
            CAPTURE(taken);
            CHECK(foretold > 6 << 20);
            CHECK(taken >= foretold - (1 << 20));
            // What is large begins at a huge page of 2 MB, and there is a little that is not counted.
            CHECK(taken < foretold + foretold / 10 + (one.tokens > 1 ? 12 << 20 : 3 << 20));
        }
}
#endif

}  // namespace
}  // namespace tests
