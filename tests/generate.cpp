// GENERATION: from a prompt to a text.

#include "scripted_model.h"
#include "support.h"

namespace tests {
namespace {

// What a session holds, to be compared: its tokens, and the logits after one more.
std::pair<std::vector<int>, std::vector<float>> state_of(Session& session) {
    const std::vector<int> ids = session.tokens();
    const int at = session.position();
    if (at == session.context()) session.rewind(at - 1);
    std::vector<float> logits = last_logits(session, {7});
    session.rewind(std::min(at, session.position() - 1));
    return {ids, logits};
}

TEST_CASE("greedy text is the reference's") {
    for (const std::string& name : kTinyModels) {
        const JsonDocument golden = golden_numbers(name);
        const Model model = load(tiny(name), DType::f32);
        for (const Json& one : golden.root().find("cases")->array()) {
            const std::vector<float> margins = floats(*one.find("greedy_margin"));
            if (*std::min_element(margins.begin(), margins.end()) < 1e-3f) continue;
            CAPTURE(name);
            Session session(model);
            CHECK(generated(session, text(one, "prompt"), greedy(static_cast<int>(margins.size()))) ==
                  text(one, "text"));
        }
    }
}

TEST_CASE("generation ends before a stop text, wherever its tokens begin and end") {
    const struct {
        std::string written;
        std::vector<std::string> stop;
        std::string expected;
    } cases[] = {
        {"one STOP two", {"STOP"}, "one "},
        {"one STOP two", {"TOP", "ST"}, "one "},
        {"one STOP two", {"two", "one"}, ""},
        {"one STO two", {"STOP", ""}, "one STO two"},
        {"aaab", {"aab"}, "a"},
        {"abababc", {"ababc"}, "ab"},
        {"x\u00e9y", {"\u00e9"}, "x"},
        {"x\u00e9y", {"\xA9y"}, "x"},  // from the middle of a character, which is not shown in part
        {"end", {"ending"}, "end"},
    };
    for (const auto& one : cases) {
        CAPTURE(one.written);
        const Model model = writer_of(one.written);
        Session session(model);
        CHECK(generated(session, "A", greedy(static_cast<int>(one.written.size()), one.stop)) == one.expected);
    }
    // Tokens of many letters: every stop text of a real continuation
    const Model model = load(tiny("gemma3-tiny"));
    Session session(model);
    const std::string whole = generated(session, "ROMEO:", greedy(60));
    for (std::size_t at = 0; at + 3 < whole.size(); at += 5) {
        session.rewind(0);
        const std::string stop = whole.substr(at, 3);
        CAPTURE(stop);
        CHECK(generated(session, "ROMEO:", greedy(60, {stop})) == whole.substr(0, whole.find(stop)));
    }
}

TEST_CASE("who has said false is not called again, whatever was held back") {
    const Model model = load(tiny("gemma3-tiny"));
    int held_back = 0;
    for (int seed = 0; seed < 20; ++seed) {
        Session session(model, 0, 1);
        llm::GenerateOptions options;
        options.max_tokens = 40;
        options.sampling.seed = static_cast<std::uint64_t>(seed);
        options.stop = {"\n\nQQ", " the QQ", "e QQ", "t QQ", "s QQ"};
        int calls = 0;
        std::string shown;
        llm::generate(session, "ROMEO:", options, [&](std::string_view text) { return shown += text, ++calls < 3; });
        CHECK(calls == 3);
        held_back += model.tokenizer().decode(session.tokens()).size() > 5 + 6 + shown.size();
    }
    CHECK(held_back > 0);
}

TEST_CASE("text comes in whole characters, and without one that never ends") {
    const struct {
        std::string written, expected;
        std::vector<std::string> pieces;
    } cases[] = {
        {"a\u00e9\u65e5\U0001F44D!", "a\u00e9\u65e5\U0001F44D!", {"a", "\u00e9", "\u65e5", "\U0001F44D", "!"}},
        {"a\xC3", "a", {"a"}},
        {"a\xE6\x97", "a", {"a"}},
        {"\xC3"
         "A",
         "\xC3"
         "A",
         {"\xC3"
          "A"}},
        {"\xFF\x80"
         "b",
         "\xFF\x80"
         "b",
         {"\xFF", "\x80", "b"}},
        {"\xE6\x97\xF0\x9F\x91\x8D", "\xE6\x97\U0001F44D", {"\xE6\x97", "\U0001F44D"}},
    };
    for (const auto& one : cases) {
        CAPTURE(one.written);
        const Model model = writer_of(one.written);
        Session session(model);
        std::vector<std::string> pieces;
        llm::generate(session, "A", greedy(static_cast<int>(one.written.size())), [&](std::string_view piece) {
            pieces.emplace_back(piece);
            return true;
        });
        std::string all;
        for (const std::string& piece : pieces) all += piece;
        CHECK(all == one.expected);
        if (all.size() == one.expected.size()) CHECK(pieces == one.pieces);
    }
}

TEST_CASE("max_tokens, the context, an end token and the callback end generation") {
    const Model model = writer_of(std::string(kScript, 'x'));
    Session session(model);
    const auto count = [&](int max_tokens) {
        session.rewind(0);
        return llm::generate(session, "A", greedy(max_tokens), nullptr).generated;
    };
    CHECK(count(0) == 0);
    CHECK(count(1) == 1);
    CHECK(count(7) == 7);
    CHECK(count(-1) == kScript - 1);
    CHECK(session.position() == kScript);
    CHECK(count(1000) == kScript - 1);
    CHECK(error_of([&] { count(-2); }).find("max_tokens") != std::string::npos);

    session.rewind(0);
    int calls = 0;
    const llm::Stats stats = llm::generate(session, "A", greedy(50), [&](std::string_view) { return ++calls < 3; });
    CHECK(calls == 3);
    CHECK(stats.generated == 3);
    CHECK(stats.prompt_tokens == 1);
    CHECK(stats.prompt_s > 0);
    CHECK(stats.generate_s > 0);

    const TemporaryDirectory directory;
    write_file(directory.path / "ends.gguf", scripted({64, 65, 767, 66, 67}).bytes());
    const Model ends = load(directory.path / "ends.gguf");
    Session short_one(ends);
    llm::GenerateOptions options = greedy(5);
    CHECK(generated(short_one, "A", options).size() == 2);
    short_one.rewind(0);
    options.ignore_end = true;
    CHECK(generated(short_one, "A", options).find("<|endoftext|>") == 2);
}

TEST_CASE("an empty prompt begins with the model's first token") {
    for (const std::string& name : kTinyModels) {
        Session session(load(tiny(name)));
        CHECK(llm::generate(session, "", greedy(3), nullptr).prompt_tokens == 1);
    }
}

TEST_CASE("a session goes on where it was") {
    for (const std::string& name : kTinyModels) {
        CAPTURE(name);
        const Model model = load(tiny(name), DType::f32);
        Session whole(model), parts(model);
        const std::string expected = generated(whole, "To be, or", greedy(30));
        std::string got = generated(parts, "To be, or", greedy(10));
        for (const int n : {0, 1, 4, 0, 15}) got += generated(parts, "", greedy(n));
        CHECK(got == expected);
        // A prompt that only is read
        Session read(model);
        generated(read, "To be, or", greedy(0));
        CHECK(generated(read, "", greedy(30)) == expected);
        CHECK(read.position() == whole.position());
        // A further prompt follows the text so far and no second <bos>
        const int before = whole.position();
        const int n = static_cast<int>(model.tokenizer().encode("\nROMEO:", llm::Special::as_text, false).size());
        CHECK(llm::generate(whole, "\nROMEO:", greedy(0), nullptr).prompt_tokens == n + 1);  // and the last one written
        CHECK(whole.position() == before + n);
    }
}

TEST_CASE("a prompt that does not fit is refused and changes nothing") {
    const Model model = load(tiny("gpt2-tiny"));
    Session session(model, 16), fresh(model, 16);
    const std::string text = generated(fresh, "Once", greedy(5));
    const std::string message = error_of([&] { generated(session, std::string(400, 'x'), greedy(5)); });
    CHECK(message.find("context") != std::string::npos);
    CHECK(message.find("16") != std::string::npos);
    CHECK(session.position() == 0);
    CHECK(generated(session, "Once", greedy(5)) == text);
}

// The loop that generate is, by the public API alone: the sampler is told of the prompt as well.
TEST_CASE("generate samples as a program would that calls forward, sample and accept") {
    for (const std::string& name : kTinyModels)
        for (const float penalty : {1.0f, 1.6f}) {
            CAPTURE(name);
            CAPTURE(penalty);
            const Model model = load(tiny(name));
            const Tokenizer& tokenizer = model.tokenizer();
            const std::string prompt = "I am the king, I am the king, I am the";
            llm::GenerateOptions options;
            options.max_tokens = 30;
            options.ignore_end = true;
            options.sampling.seed = 3;
            options.sampling.temperature = penalty == 1 ? 0.8f : 0;
            options.sampling.repeat_penalty = penalty;
            const auto by_hand = [&](bool tell_prompt) {
                Session session(model, 0, 2);
                llm::Sampler sampler(options.sampling);
                std::vector<int> ids = tokenizer.encode(prompt);
                std::string text;
                for (const int id : ids)
                    if (tell_prompt) sampler.accept(id);
                for (int n = 0; n < options.max_tokens; ++n) {
                    const std::vector<float> logits = last_logits(session, ids);
                    ids = {sampler.sample(logits.data(), tokenizer.vocab_size())};
                    sampler.accept(ids[0]);
                    text += tokenizer.piece(ids[0]);
                }
                return text;
            };
            Session session(model, 0, 2);
            CHECK(generated(session, prompt, options) == by_hand(true));
            CHECK((by_hand(false) == by_hand(true)) == (penalty == 1));
            // What the session holds already counts as well.
            Session parts(model, 0, 2);
            generated(parts, "I am the king, I am the king, I am", greedy(0));
            CHECK(generated(parts, " the", options) == by_hand(true));
        }
}

// An embedding may have more rows than the tokenizer has tokens. Nobody could show those ids.
TEST_CASE("ids beyond the tokenizer's are never written") {
    Gguf file = scripted({64, 65, 66});
    std::vector<float> loudest(kScript);
    loudest[0] = loudest[1] = loudest[2] = 9;  // at the positions of the script
    for (const char* name : {"token_embd.weight", "output.weight"}) {
        Gguf::Tensor& t = file.tensor(name);
        t.shape[0] += 20;
        for (int i = 0; i < 20; ++i) t.bytes += encoded(loudest, TensorType::f32);
    }
    const TemporaryDirectory directory;
    write_file(directory.path / "wide.gguf", file.bytes());
    const Model model = load(directory.path / "wide.gguf");
    CHECK(model.config().vocab_size == model.tokenizer().vocab_size() + 20);
    Session session(model), other(model);
    const std::vector<float> logits = last_logits(other, {64});
    CHECK(argmax(logits) >= model.tokenizer().vocab_size());
    for (const int lookup : {0, 5}) {
        llm::GenerateOptions options = greedy(3);
        options.lookup = lookup;
        session.rewind(0);
        CHECK(generated(session, "A", options) == model.tokenizer().decode({64, 65, 66}));
    }
}

TEST_CASE("the same seed writes the same text") {
    const Model model = load(tiny("gemma3-tiny"));
    const auto write = [&](std::uint64_t seed) {
        Session session(model);
        llm::GenerateOptions options;
        options.max_tokens = 40;
        options.sampling.seed = seed;
        return generated(session, "KING:", options);
    };
    CHECK(write(5) == write(5));
    CHECK(write(5) != write(6));
}

TEST_CASE("tokens tried out together have the logits of tokens one by one, to the last bit") {
    for (const detail::Kernels* kernels : thinned(detail::available_kernels())) {
        const Environment forced("LLM_SIMD", kernels->name);
        for (const std::string& name : kTinyModels)
            for (const DType dtype : kDTypes) {
                CAPTURE(std::string(kernels->name) + " " + name + " " + name_of(dtype));
                const Model model = load(tiny(name), dtype);
                const int vocab = model.config().vocab_size;
                Session session(model, 0, 2);
                Random random{5};
                const bool is_best = kernels == detail::available_kernels().back() && !LLM_TSAN;
                const std::vector<int> ids = random.tokens(is_best ? session.context() - 100 : 60, vocab);
                const Logits expected = logits_of(session, ids, 1);
                detail::SessionData tried(model, 0, 2);
                std::size_t at = 0;
                for (int guesses = 0; at + 12 < ids.size(); guesses = (guesses + 5) % 12) {
                    const int right = random.below(guesses + 1);
                    tried.sequence.tokens.push_back(ids[at]);
                    std::vector<int> batch(ids.begin() + static_cast<std::ptrdiff_t>(at) + 1,
                                           ids.begin() + static_cast<std::ptrdiff_t>(at) + 1 + guesses);
                    for (int i = right; i < guesses; ++i) batch[usize(i)] = random.below(vocab);
                    const float* logits = tried.try_out(batch, {});
                    REQUIRE(tried.sequence.position() == static_cast<int>(at) + 1);
                    for (int i = 0; i <= right; ++i, ++at, logits += vocab) {
                        if (i > 0) tried.sequence.tokens.push_back(ids[at]), ++tried.sequence.processed;
                        if (!std::equal(logits, logits + vocab, expected[at].data())) FAIL("token " << at);
                    }
                }
            }
    }
}

TEST_CASE("lookup writes the same text, and leaves the same session") {
    int guessed = 0, right = 0;
    for (const std::string& name : kTinyModels) {
        const Model model = load(tiny(name));
        const auto write = [&](llm::GenerateOptions options, int lookup, int most_calls) {
            Session session(model, 0, 1);
            options.lookup = lookup;
            std::string all;
            int calls = 0;
            std::vector<int> positions;  // of the session when each piece was shown
            const llm::Stats stats = llm::generate(session, "ROMEO:\nI will not be.\n\nJULIET:\nI will", options,
                                                   [&](std::string_view piece) {
                                                       all += piece;
                                                       positions.push_back(session.position());
                                                       return ++calls != most_calls;
                                                   });
            guessed += stats.guessed, right += stats.guessed_right;
            CHECK(stats.guessed_right <= stats.guessed);
            CHECK(stats.guessed_right <= stats.generated);
            if (lookup == 0) CHECK(stats.guessed == 0);
            auto state = state_of(session);
            return std::make_tuple(all, stats.generated, stats.end, state.first, state.second, positions);
        };
        std::vector<llm::GenerateOptions> kinds = {greedy(-1), greedy(90), greedy(60, {"\n\n"}), greedy(60, {"the "})};
        for (const int max_tokens : {1, 2, 32, 33}) kinds.push_back(greedy(max_tokens));
        for (const float temperature : {0.3f, 1.0f})
            for (const std::uint64_t seed : {1u, 2u}) {
                kinds.push_back(greedy(200));
                kinds.back().sampling.temperature = temperature;
                kinds.back().sampling.seed = seed;
                kinds.back().sampling.repeat_penalty = seed == 1 ? 1.0f : 1.1f;
                kinds.back().ignore_end = true;
            }
        int number = 0;
        for (const llm::GenerateOptions& kind : thinned(kinds)) {
            CAPTURE(number);
            ++number;
            const auto expected = write(kind, 0, 0);
            for (const int lookup : thinned<int>({11, 1, 4})) CHECK(write(kind, lookup, 0) == expected);
            for (const int calls : thinned<int>({9, 1, 20})) CHECK(write(kind, 11, calls) == write(kind, 0, calls));
        }
    }
    CHECK(right > 20);  // how many are tried depends on the time that they take
    CHECK(guessed > right);
}

TEST_CASE("guesses that cost what is assumed at first are tried and right as often on every machine") {
    const Model model = load(tiny("gemma3-tiny"));
    const int vocab = model.config().vocab_size;
    detail::SessionData session(model, 0, 1);
    const std::vector<int> prompt = model.tokenizer().encode("ROMEO:\nI will not be.\n\nJULIET:\nI will");
    const float* logits = session.forward(prompt.data(), detail::count_of(prompt));
    llm::Stats stats;
    detail::Lookup lookup{session, 11, stats};
    for (int i = 0; i < 400; ++i) {
        if (i > 0) logits = lookup.next({});
        lookup.single = 0;  // forgets the time, so that the cost stays
        session.sequence.tokens.push_back(static_cast<int>(std::max_element(logits, logits + vocab) - logits));
    }
    CHECK(lookup.cost == 0.1);
    CHECK(stats.guessed < 600);
    CHECK(stats.guessed_right > 170);
}

TEST_CASE("lookup follows a text that repeats itself, and gives up where it does not") {
    std::string poem;
    for (int i = 0; i < 12; ++i) poem += "abcd";
    const Model model = writer_of(poem);  // scripted: what it read does not matter
    Session session(model);
    llm::GenerateOptions options = greedy(48);
    options.lookup = 4;
    const llm::Stats stats = llm::generate(session, "A", options, nullptr);
    CHECK(stats.guessed_right >= 24);
    CHECK(stats.guessed <= 2 * stats.guessed_right);
    const Model other = load(tiny("gemma3-tiny"));
    Session wild(other);
    options = greedy(400);
    options.lookup = 11;
    options.sampling.temperature = 20;
    options.sampling.top_k = 0, options.sampling.top_p = 1, options.sampling.min_p = 0;
    options.ignore_end = true;
    CHECK(llm::generate(wild, "A", options, nullptr).guessed < 400);
}

TEST_CASE("a prompt reports its progress, and can be ended") {
    const Model model = load(tiny("gemma3-tiny"));
    Session session(model);
    llm::GenerateOptions options = greedy(3);
    std::vector<std::pair<int, int>> calls;
    options.on_prompt = [&](int done, int total) {
        calls.emplace_back(done, total);
        return true;
    };
    const std::vector<int> ids = Random{4}.tokens(500, 1024);
    CHECK(llm::generate(session, ids, options, nullptr).generated > 0);
    CHECK(calls == std::vector<std::pair<int, int>>{{256, 500}, {500, 500}});
    session.rewind(0);
    options.on_prompt = [&](int done, int) { return done > 256; };
    const llm::Stats stats = llm::generate(session, ids, options, nullptr);
    CHECK(stats.prompt_tokens == 256);
    CHECK(stats.generated == 0);
    CHECK(session.position() == 256);
}

TEST_CASE("options that cannot be are refused") {
    Session session(load(tiny("gemma3-tiny")));
    llm::GenerateOptions options;
    for (const int lookup : {-1, 12, 1000}) {
        options.lookup = lookup;
        CHECK(error_of([&] { llm::generate(session, "a", options, nullptr); }).find("lookup") != std::string::npos);
    }
    const Model gpt2 = load(tiny("gpt2-tiny"));
    Session plain(gpt2);
    CHECK(error_of([&] { llm::Chat(plain, "", llm::Chat::Template::gemma); }).find("turn") != std::string::npos);
}

}  // namespace
}  // namespace tests
