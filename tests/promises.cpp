// What the public API promises, whatever is called in whichever order: what is held, what a text's end and its tokens tell,
// what callbacks may do, and whose fault an error is.

#include "gguf_writer.h"
#include "programs.h"
#include "scripted_model.h"
#include "small_models.h"
#include "support.h"

namespace tests {
namespace {

using Kind = llm::Error::Kind;
using llm::End, llm::GenerateOptions, llm::Stats, llm::TokenInfo;

template <class Call> int kind_of(const Call& call) {  // -1: it throws nothing
    try {
        call();
    } catch (const llm::Error& e) {
        return static_cast<int>(e.kind);
    }
    return -1;
}
#define CHECK_KIND(call, expected) CHECK(kind_of([&] { (void)(call); }) == static_cast<int>(Kind::expected))

// A session beside a plain model of it: the tokens that must be held. Their logits are those of a fresh session.
struct Twin {
    const Model& model;
    Session session, fresh;
    std::vector<int> text{};
    Random random;
    std::array<int, 6> ends{};
    TemporaryDirectory directory{};

    Twin(const Model& m, int context, std::uint64_t seed)
        : model(m), session(m, context, 1), fresh(m, context, 1), random{seed} {}
    std::vector<int> some(int most) { return random.tokens(1 + random.below(most), model.sampleable()); }
    int room() const { return session.context() - static_cast<int>(text.size()); }
    void append(const std::vector<int>& ids) { text.insert(text.end(), ids.begin(), ids.end()); }
    void check(const float* logits) {
        fresh.rewind(0);
        const float* expected = fresh.forward(text);
        REQUIRE(std::equal(logits, logits + model.config().vocab_size, expected));
    }
    void generate() {
        GenerateOptions options = greedy(random.below(20) - 1);
        options.sampling.temperature = 0.8f;
        options.sampling.seed = random.below(1000u);
        options.lookup = random.below(3) * 5;
        if (random.below(3) == 0) options.stop = {"e", "\n"};
        if (random.below(4) == 0) options.on_prompt = [&](int, int) { return random.below(2) == 0; };
        const std::vector<int> prompt = random.below(2) && room() > 9 ? some(5) : std::vector<int>();
        if (prompt.empty() && text.empty()) return;
        append(prompt);
        int made = 0, calls = random.below(12);
        const bool throws = random.below(3) == 0;
        options.on_token = [&](const TokenInfo& token) { return text.push_back(token.id), ++made > 0; };
        try {
            const Stats stats = llm::generate(session, prompt, options, [&](std::string_view) {
                if (--calls == 0 && throws) throw 5;
                return calls != 0;
            });
            ++ends[usize(static_cast<int>(stats.end))];
            REQUIRE(stats.generated == made);
            if (stats.end == End::max_tokens) REQUIRE(stats.generated == options.max_tokens);
            if (stats.end == End::context) REQUIRE(room() == 0);
        } catch (int) {
        }
    }
    void call(int which) {
        const bool fits = room() > 10;
        const std::vector<int> ids = some(10);
        Session other(model, session.context(), 1);
        if (which == 0 && fits) append(ids), check(session.forward(ids));
        if (which == 1 && fits) {
            int calls = 0;
            session.forward_each(ids.data(), static_cast<int>(ids.size()), [&](int i, const float* logits) {
                REQUIRE(i == calls++);
                text.push_back(ids[usize(i)]);
                check(logits);
            });
        }
        if (which == 2 && fits) {
            session.forward_hidden(ids.data(), static_cast<int>(ids.size()), [](int, const float*) {});
            append(ids);
        }
        if (which == 3) {
            text.resize(usize(random.below(static_cast<int>(text.size()) + 1)));
            session.rewind(static_cast<int>(text.size()));
        }
        if (which == 4) session.save((directory.path / "s").string()), other.load((directory.path / "s").string());
        if (which == 5) other.load_bytes(session.save_bytes());
        if (which == 6) other = session.fork();
        if (which == 6 && fits && random.below(2)) other.forward(ids);  // which the first does not notice
        else if (which >= 4 && which <= 6) session = std::move(other);
        if (which == 7 && !text.empty()) check(session.logits());
        if (which == 8 && fits) llm::score(session, ids), append(ids);
        if (which >= 9) generate();
        REQUIRE(session.tokens() == text);
        REQUIRE(session.position() == static_cast<int>(text.size()));
    }
};

TEST_CASE("in any order of calls a session holds what it was given and what it said, each token once") {
    std::array<int, 6> ends{};
    for (const std::string& name : kTinyModels)
        for (const DType dtype : kDTypes) {
            const Model model = load(tiny(name), dtype);
            for (std::uint64_t seed = 0; seed < 24 / kThinned; ++seed) {
                CAPTURE(name);
                CAPTURE(seed);
                Twin twin(model, 120, seed);
                for (int i = 0; i < 25; ++i) twin.call(twin.random.below(12));
                for (std::size_t i = 0; i < ends.size(); ++i) ends[i] += twin.ends[i];
            }
        }
    for (const End end : {End::stop_text, End::max_tokens, End::callback, End::interrupted})
        CHECK(ends[usize(static_cast<int>(end))] > 0);
    // Where local layers have forgotten what a rewind asks for
    const Model model = load(tiny("gemma3-tiny"));
    Twin twin(model, 0, 7);
    for (const int call : {7, 9, 6, 5, 1, 8}) {
        const std::vector<int> ids = twin.random.tokens(twin.room() - 40, model.sampleable());
        twin.append(ids);
        twin.session.forward(ids);
        twin.text.resize(100);
        twin.session.rewind(100);
        twin.call(call);
        twin.check(twin.session.logits());
    }
}

TEST_CASE("a text ends for the reason it says") {
    Session session(writer_of("abc. def"));
    const auto end_of = [&](const GenerateOptions& options, const llm::OnText& on_text = {}) {
        session.rewind(0);
        return llm::generate(session, "A", options, on_text).end;
    };
    CHECK(end_of(greedy(3)) == End::max_tokens);
    CHECK(end_of(greedy(0)) == End::max_tokens);
    CHECK(end_of(greedy(20, {". "})) == End::stop_text);
    CHECK(end_of(greedy(-1)) == End::context);
    CHECK(session.position() == session.context());
    CHECK(llm::generate(session, "", greedy(5)).end == End::context);
    CHECK(end_of(greedy(20), [](std::string_view) { return false; }) == End::callback);
    GenerateOptions options = greedy(20);
    options.on_token = [](const TokenInfo& token) { return token.text != "c"; };
    CHECK(end_of(options) == End::callback);
    CHECK(held_text(session) == "Aabc");
    options.on_prompt = [](int, int) { return false; };
    CHECK(end_of(options) == End::interrupted);

    options = greedy(20);
    const int end = session.model().tokenizer().encode("<|endoftext|>", llm::Special::parsed, false)[0];
    options.on_logits = [&](float* logits, int) { logits[end] = session.position() > 3 ? INFINITY : 0; };
    CHECK(end_of(options) == End::end_token);
    CHECK(held_text(session) == "Aabc");  // the end token is not appended
}

TEST_CASE("a character that max_tokens cut is shown whole by the next call") {
    Session session(writer_of("a\xC3\xA9z"));
    CHECK(generated(session, "A", greedy(2)) == "a");
    CHECK(generated(session, "", greedy(2)) == "\xC3\xA9z");
}

TEST_CASE("on_token tells what the model thought of each token") {
    const Model model = load(tiny("gemma3-tiny"));
    Session session(model), plain(model);
    GenerateOptions options = greedy(20);
    options.sampling.temperature = 0.8f;
    options.likeliest = 3;
    std::vector<int> ids = model.tokenizer().encode("ROMEO:");
    std::vector<float> logits = last_logits(plain, ids);
    std::string bytes;
    options.on_token = [&](const TokenInfo& token) {
        const auto log_p = [&](int id) { return logits[usize(id)] - log_sum_exp(logits); };
        CHECK(token.log_probability == doctest::Approx(log_p(token.id)));
        REQUIRE(token.likeliest.size() == 3);
        CHECK(token.likeliest[0].id == argmax(logits));
        for (std::size_t i = 0; i < 3; ++i) {
            CHECK(token.likeliest[i].log_probability == doctest::Approx(log_p(token.likeliest[i].id)));
            CHECK(token.likeliest[i].text == model.tokenizer().piece(token.likeliest[i].id));
            if (i > 0) CHECK(token.likeliest[i].log_probability <= token.likeliest[i - 1].log_probability);
        }
        bytes += token.text;
        logits = last_logits(plain, {token.id});
        return true;
    };
    std::string text;
    llm::generate(session, ids, options, [&](std::string_view piece) { return text += piece, true; });
    CHECK(bytes == text);
    CHECK(session.tokens() == plain.tokens());
}

TEST_CASE("on_logits forbids, forces and favours, and the session's logits stay the model's") {
    const Model model = load(tiny("gpt2-tiny"));
    Session session(model);
    GenerateOptions options = greedy(12);
    const int wanted = model.tokenizer().encode("x", llm::Special::as_text, false)[0];
    options.on_logits = [&](float* logits, int n) {
        CHECK(n == model.sampleable());
        for (int id = 0; id < n; ++id)
            if (id != wanted) logits[id] = -INFINITY;
    };
    for (const float temperature : {0.0f, 1.0f, 1000.0f}) {
        session.rewind(0);
        options.sampling.temperature = temperature;
        options.sampling.min_p = 0, options.sampling.top_p = 1, options.sampling.top_k = temperature > 1 ? 0 : 40;
        CHECK(generated(session, "A", options) == "xxxxxxxxxxxx");
    }
    Session plain(model);
    const std::vector<float> expected = last_logits(plain, session.tokens());
    CHECK(std::equal(expected.begin(), expected.end(), session.logits()));
    options.on_logits = [](float* logits, int n) { std::fill_n(logits, n, -INFINITY); };
    CHECK_ERROR(llm::generate(session, "", options), "on_logits");
    CHECK(session.tokens() == plain.tokens());
}

TEST_CASE("a Sampler that is kept goes on: the second answer is another one, and known when it starts anew") {
    Session session(load(tiny("gemma3-tiny")));
    llm::Sampling sampling;
    sampling.seed = 3;
    const auto both = [&] {
        llm::Sampler sampler(sampling);
        GenerateOptions options;
        options.max_tokens = 30;
        options.sampler = &sampler;
        std::array<std::string, 2> answers;
        for (std::string& answer : answers) {
            session.rewind(0);
            answer = generated(session, "ROMEO:", options);
        }
        return answers;
    };
    const auto first = both();
    CHECK(first[0] != first[1]);
    CHECK(both() == first);
    GenerateOptions alone;
    alone.max_tokens = 30;
    alone.sampling = sampling;
    session.rewind(0);
    CHECK(generated(session, "ROMEO:", alone) == first[0]);
}

TEST_CASE("score is the sum of what forward_each says") {
    for (const std::string& name : kTinyModels) {
        const Model model = load(tiny(name));
        Session session(model), plain(model);
        const std::vector<int> ids = model.tokenizer().encode("To be, or not to be");
        const Logits logits = logits_of(plain, ids);
        double sum = 0;
        std::vector<double> from(ids.size() + 1);  // of the tokens from here on
        for (std::size_t i = ids.size() - 1; i > 0; --i)
            from[i] = sum += logits[i - 1][usize(ids[i])] - log_sum_exp(logits[i - 1]);
        CHECK(llm::score(session, "To be, or not to be") == doctest::Approx(sum));
        for (const int held : {1, 2, 5}) {
            session.rewind(held);
            CHECK(llm::score(session, {ids.begin() + held, ids.end()}) == doctest::Approx(from[usize(held)]));
            CHECK(session.tokens() == ids);
        }
        CHECK_KIND(llm::score(session, std::vector<int>()), argument);
    }
}

TEST_CASE("on_layer sees the residual stream, and what it changes stays changed") {
    for (const std::string& name : kTinyModels) {
        const Model model = load(tiny(name), DType::f32);
        const llm::Config& c = model.config();
        const std::vector<int> ids = Random{3}.tokens(200, model.sampleable());
        Session session(model, 0, 2);
        std::vector<std::vector<float>> seen(usize(c.num_layers));
        session.on_layer([&](int layer, int position, int n, const float* x) {
            CHECK(static_cast<int>(seen[usize(layer)].size()) == position * c.hidden_size);
            seen[usize(layer)].insert(seen[usize(layer)].end(), x, x + n * c.hidden_size);
        });
        const std::vector<float> expected = last_logits(session, ids);
        for (const auto& layer : seen) CHECK(layer.size() == ids.size() * usize(c.hidden_size));

        // What layer 1 made, put in place of what it makes of another text, gives the first text's logits.
        session.rewind(0);
        session.on_layer([&](int layer, int position, int n, float* x) {
            if (layer + 1 == c.num_layers)
                std::copy_n(seen[usize(layer)].begin() + position * c.hidden_size, n * c.hidden_size, x);
        });
        CHECK(last_logits(session, Random{4}.tokens(200, model.sampleable())) == expected);
        session.on_layer([](int, int, int n, float* x) { x[n - 1] += 1; });
        session.rewind(0);
        CHECK(last_logits(session, ids) != expected);
        session.on_layer([](int layer, int, int, float*) {
            if (layer == 1) throw 5;
        });
        session.rewind(0);
        CHECK_THROWS_AS(session.forward(ids), int);
        CHECK(session.position() == 0);
        session.on_layer(nullptr);
        CHECK(last_logits(session, ids) == expected);
    }
}

TEST_CASE("a fork goes on alone, and takes memory for what is held") {
    const Model model = load(tiny("gemma3-tiny"));
    Session session(model);
    generated(session, "ROMEO:", greedy(20));
    Session fork = session.fork();
    CHECK(fork.tokens() == session.tokens());
    const std::string expected = generated(session, "", greedy(30));
    session.rewind(0);
    CHECK(generated(fork, "", greedy(30)) == expected);
    CHECK(fork.context() == session.context());
    CHECK(fork.threads() == session.threads());
    CHECK(fork.save_bytes().size() < 60 * 6 * 2 * 64 * 2 * sizeof(float) + 4096);
}

TEST_CASE("a session is refused by every model that would go on otherwise") {
    for (const std::string& name : kTinyModels) {
        const Model model = load(tiny(name));
        auto& data = const_cast<detail::ModelData&>(model.data());  // of this test alone
        const auto fingerprint = [&] {
            data.fingerprint = 0;
            return detail::fingerprint(data);
        };
        const std::uint64_t before = fingerprint();
        CHECK(fingerprint() == before);
        const auto tells = [&](auto& value, const auto& other) {
            const auto kept = std::exchange(value, std::decay_t<decltype(value)>(other));
            CHECK(fingerprint() != before);
            value = kept;
        };
        llm::Config& c = data.config;
        for (const auto size : {&llm::Config::vocab_size, &llm::Config::context_length, &llm::Config::hidden_size,
                                &llm::Config::intermediate_size, &llm::Config::num_layers, &llm::Config::num_heads,
                                &llm::Config::num_kv_heads, &llm::Config::head_dim, &llm::Config::sliding_window})
            tells(c.*size, c.*size + 1);
        tells(c.norm_eps, c.norm_eps * 1.1f);
        tells(c.final_logit_softcapping, 30.0f);
        tells(c.attention_scale, c.attention_scale * 1.1f);
        tells(c.architecture, std::string("other"));
        tells(data.dtype, DType::f32);
        for (std::size_t i = 0; i < c.is_local.size(); ++i) {
            c.is_local[i].flip();
            CHECK(fingerprint() != before);
            c.is_local[i].flip();
        }
        const auto all_tell = [&](auto* values, std::size_t n) {
            for (const std::size_t i : {std::size_t{0}, n / 2, n - 1})
                if (n > 0) tells(values[i], values[i] + 1);
        };
        const auto floats_tell = [&](std::vector<float>& values) { all_tell(values.data(), values.size()); };
        for (auto* values : {&data.rope_global, &data.rope_local, &data.weights.positions, &data.weights.final_norm.w,
                             &data.weights.final_norm.b})
            floats_tell(*values);
        all_tell(data.weights.embedding.data, data.weights.embedding.bytes);
        for (detail::Layer& l : data.weights.layers) {
            for (detail::Linear* linear : {&l.qkv, &l.out, &l.up, &l.down}) {
                all_tell(linear->w.data, linear->w.bytes);
                floats_tell(linear->b);
            }
            for (detail::Norm* norm :
                 {&l.attn_norm, &l.ffn_norm, &l.post_attn_norm, &l.post_ffn_norm, &l.q_norm, &l.k_norm})
                floats_tell(norm->w), floats_tell(norm->b);
        }
        CHECK(fingerprint() == before);
    }
}

TEST_CASE("callbacks may be missing, may throw, and cannot call their own session") {
    const Model model = load(tiny("gemma3-tiny"));
    Session session(model);
    const std::vector<int> ids = model.tokenizer().encode("ROMEO:");
    const int n = static_cast<int>(ids.size());
    CHECK_ERROR(session.forward_each(ids.data(), n, nullptr), "callback");
    CHECK_ERROR(session.forward_hidden(ids.data(), n, nullptr), "callback");
    CHECK(session.position() == 0);
    CHECK(llm::generate(session, ids, greedy(4)).generated == 4);

    const std::string saved = session.save_bytes();
    const TemporaryDirectory directory;
    const std::string file = (directory.path / "s").string();
    session.save(file);
    const auto none = [](int, const float*) {};
    const std::function<void()> calls[] = {
        [&] { session.forward(ids); },
        [&] { session.forward_each(ids.data(), n, none); },
        [&] { session.forward_hidden(ids.data(), n, none); },
        [&] { session.logits(); },
        [&] { session.rewind(0); },
        [&] { session.save(file); },
        [&] { session.load(file); },
        [&] { session.save_bytes(); },
        [&] { session.load_bytes(saved); },
        [&] { session.fork(); },
        [&] { session.on_layer(nullptr); },
        [&] { llm::score(session, ids); },
        [&] { llm::generate(session, ids, greedy(1)); },
        [&] { llm::generate(session, "a", greedy(1)); },
    };
    for (const auto& call : calls) {
        const auto refused = [&] {
            CHECK_ERROR(call(), "callback", "own session");
            CHECK(session.position() <= session.context());  // it may be asked
        };
        session.rewind(0);
        session.forward_each(ids.data(), n, [&](int, const float*) { refused(); });
        GenerateOptions options = greedy(2);
        options.on_prompt = [&](int, int) { return refused(), true; };
        options.on_token = [&](const TokenInfo&) { return refused(), true; };
        options.on_logits = [&](float*, int) { refused(); };
        llm::generate(session, ids, options, [&](std::string_view) { return refused(), true; });
        CHECK_THROWS_AS(llm::generate(session, ids, greedy(2), [&](std::string_view) { return call(), true; }),
                        llm::Error);
        CHECK(session.position() > n);
    }
    session.on_layer([&](int, int, int, float*) { CHECK_ERROR(session.forward(ids), "own session"); });
    session.forward(ids);
}

TEST_CASE("objects that hold nothing throw when they are used") {
    Model empty;
    CHECK_ERROR(empty.config(), "there is no model");
    CHECK_ERROR(empty.sampleable(), "there is no model");
    CHECK_ERROR(Session(empty), "there is no model");
    Model model = load(tiny("gpt2-tiny"));
    Session session(model);
    const Model moved = std::move(model);
    CHECK_ERROR(model.tokenizer(), "there is no model");  // NOLINT: that is the test
    Session other = std::move(session);
    CHECK_ERROR(session.forward({1}), "there is no session");
    CHECK_ERROR(session.position(), "there is no session");
    CHECK_ERROR(session.fork(), "there is no session");
    CHECK_ERROR(llm::generate(session, "a"), "there is no session");
    CHECK(other.forward({1}) != nullptr);
    CHECK_ERROR(Tokenizer().encode("a"), "there is no tokenizer");
    CHECK(Tokenizer().decode({}).empty());
    CHECK_ERROR(other.fork().logits() == nullptr ? 0 : throw llm::Error("there are some"), "some");
    CHECK_ERROR(Session(moved).logits(), "holds nothing");
}

TEST_CASE("a model without a tokenizer runs but does not write; ids without a text are never drawn") {
    const Model model = Model::random(shape("gpt2", 64, 4, 4, 16, 96));
    CHECK(model.sampleable() == 0);
    Session session(model);
    CHECK(session.forward({1, 2, 76}) != nullptr);
    CHECK(llm::score(session, std::vector<int>{3, 4}) < 0);
    CHECK_ERROR(llm::generate(session, std::vector<int>{1}, greedy(1)), "no tokenizer");
    CHECK_ERROR(llm::generate(session, "a", greedy(1)), "no tokenizer");
    CHECK(session.position() == 5);

    // An embedding with three rows more than the tokenizer has tokens
    Gguf file = small_gguf(false);
    const SmallTokenizer t(false, 280);
    const int known = static_cast<int>(t.tokens.size()) - 3;
    file.set_list("tokenizer.ggml.tokens", Gguf::string,
                  std::vector<std::string>(t.tokens.begin(), t.tokens.end() - 3));
    file.set_list("tokenizer.ggml.token_type", Gguf::i32, std::vector<int>(t.kinds.begin(), t.kinds.end() - 3));
    std::vector<std::string> merges;
    for (const auto& [left, right] : t.merges)
        if (std::find(t.tokens.end() - 3, t.tokens.end(), left + right) == t.tokens.end())
            merges.push_back(left + " " + right);
    file.set_list("tokenizer.ggml.merges", Gguf::string, merges);
    for (const char* key : {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"}) file.set(key, 0);
    const Model wide = Model::load_bytes(file.bytes());
    CHECK(wide.config().vocab_size == known + 3);
    CHECK(wide.sampleable() == known);
    Session wild(wide);
    GenerateOptions options = greedy(30);
    options.sampling.temperature = 1e6f;
    options.sampling.top_k = 0, options.sampling.top_p = 1, options.sampling.min_p = 0;
    options.ignore_end = true;
    CHECK(llm::generate(wild, std::vector<int>{known + 2}, options).generated > 0);
    for (std::size_t i = 1; i < wild.tokens().size(); ++i) CHECK(wild.tokens()[i] < known);
    wild.rewind(0);
    wild.forward({known, known + 1, known + 2});
    CHECK(llm::generate(wild, "", greedy(2)).generated > 0);
}

TEST_CASE("a GGUF in memory is the model that it is in a file, and nothing of it is kept") {
    for (const bool gemma : {false, true}) {
        std::string bytes = small_gguf(gemma).bytes();
        const TemporaryDirectory directory;
        write_file(directory.path / "model.gguf", bytes);
        Session from_file(load(directory.path / "model.gguf"));
        const Model model = Model::load_bytes(bytes);
        for (std::size_t n = 0; n < bytes.size(); n += 1 + n / 8)
            CHECK_KIND(Model::load_bytes(std::string_view(bytes).substr(0, n)), file);
        std::fill(bytes.begin(), bytes.end(), 'x');
        bytes = {};
        Session from_memory(model);
        const std::vector<int> ids = Random{5}.tokens(20, model.sampleable());
        CHECK(logits_of(from_memory, ids) == logits_of(from_file, ids));
        CHECK(model.info().weight_bytes == from_file.model().info().weight_bytes);
    }
    CHECK_ERROR(Model::load_bytes(std::string_view()), "memory");
    CHECK_ERROR(Model::load_bytes("{\"a\":1}"), "not a GGUF");
    Gguf adapter = small_gguf(true);
    adapter.tensors.back().name += ".lora_a";
    CHECK_ERROR(Model::load_bytes(adapter.bytes()), "adapters", "memory", "lora_a");
}

TEST_CASE("an error says whose fault it is") {
    const TemporaryDirectory directory;
    const Model model = load(tiny("gpt2-tiny"));
    Session session(model, 8);
    CHECK_KIND(load("nowhere"), file);
    write_file(directory.path / "broken.gguf", "GGUF");
    CHECK_KIND(load(directory.path / "broken.gguf"), file);
    CHECK_KIND(session.load((directory.path / "broken.gguf").string()), file);
    CHECK_KIND(session.load_bytes("no session"), file);

    CHECK_KIND(Session(model, -1), argument);
    CHECK_KIND(Session(model, 8, 5000), argument);
    CHECK_KIND(session.forward({-1}), argument);
    CHECK_KIND(session.forward(std::vector<int>()), argument);
    CHECK_KIND(session.rewind(1), argument);
    CHECK_KIND(model.tokenizer().piece(-1), argument);
    CHECK_KIND(Model().config(), argument);
    CHECK_KIND(Model::random(llm::Config()), argument);
    CHECK_KIND(Model::random([] {
                   llm::Config c;
                   c.architecture = "other";
                   return c;
               }()),
               argument);
    CHECK_KIND(llm::Sampler([] {
                   llm::Sampling s;
                   s.top_p = 2;
                   return s;
               }()),
               argument);
    for (const auto option : {&GenerateOptions::max_tokens, &GenerateOptions::lookup, &GenerateOptions::likeliest}) {
        GenerateOptions options;
        options.*option = -2;
        CHECK_KIND(llm::generate(session, "a", options), argument);
    }
    CHECK_KIND(llm::log_probability(nullptr, 1, 0), argument);

    CHECK_KIND(session.forward(std::vector<int>(9, 1)), context);
    CHECK_KIND(llm::generate(session, "a text that does not fit into so small a context"), context);
    CHECK_KIND(llm::Chat(session).say("a text that does not fit into so small a context", {}, nullptr), context);
    Session large(model);
    large.forward(std::vector<int>(20, 1));
    CHECK_KIND(session.load_bytes(large.save_bytes()), context);

    CHECK_KIND(session.save((directory.path / "no" / "such" / "directory").string()), system);
    {
        const Environment forced("LLM_SIMD", "abacus");
        CHECK_KIND(load(tiny("gpt2-tiny")), system);
    }
    CHECK(llm::Error("mine").kind == Kind::argument);
}

// Every line that examples/json.cpp writes is an object, with these fields of these types.
TEST_CASE("examples/json.cpp writes valid JSON only, from any model, at any temperature" * not_sanitized()) {
    const TemporaryDirectory directory;
    REQUIRE(compile_example(directory.path / "json", "json") == "");
    const auto lines = [&](const std::string& model, const std::string& arguments) {
        const std::string out = (directory.path / "out").string();
        REQUIRE(std::system((quoted((directory.path / "json").string()) + " " + quoted(tiny(model)) + " " + arguments +
                             " >" + quoted(out))
                                .c_str()) == 0);
        std::istringstream text(read_file(out));
        std::vector<std::string> all;
        for (std::string line; std::getline(text, line);) all.push_back(line);
        return all;
    };
    int objects = 0, filled = 0;
    for (const std::string& model : kTinyModels)
        for (const std::string temperature : {"0.8", "5"}) {
            for (const std::string& line : lines(model, "25 " + temperature + " 'A person:'")) {
                CAPTURE(line);
                const JsonDocument document(line, "line");
                CHECK(document.root().is<Json::Object>());
                ++objects;
            }
            for (const std::string& line :
                 lines(model, "25 " + temperature + " 'A:' name:string age:number alive:boolean words:list x:any")) {
                CAPTURE(line);
                const JsonDocument document(line, "line");
                const Json::Object& members = document.root().members();
                REQUIRE(members.size() == 5);
                CHECK(members[0].first == "name");
                CHECK(members[0].second.is<std::string_view>());
                CHECK(members[1].second.is<double>());
                CHECK(members[2].second.is<bool>());
                CHECK(members[3].second.is<Json::Array>());
                CHECK(members[4].first == "x");
                for (std::size_t i = 0; i < line.size(); i += detail::utf8_decode(line, i).length)
                    CHECK(detail::utf8_decode(line, i).code_point != 0xFFFFFFFF);
                filled += members[0].second.string().size() > 3;
                ++objects;
            }
        }
    CHECK(objects == 200);
    CHECK(filled > 25);
}

TEST_CASE("examples/lens.cpp shows a row for each layer, the last one what the model says, and steers" *
          not_sanitized()) {
    const TemporaryDirectory directory;
    REQUIRE(compile_example(directory.path / "lens", "lens") == "");
    const auto output_of = [&](const std::string& arguments) {
        const std::string out = (directory.path / "out").string();
        REQUIRE(std::system((quoted((directory.path / "lens").string()) + " " + quoted(tiny("gpt2-tiny")) + " " +
                             arguments + " >" + quoted(out))
                                .c_str()) == 0);
        return read_file(out);
    };
    const std::string lens = output_of("'To be or not to'");
    CHECK(std::count(lens.begin(), lens.end(), '\n') == 5);
    Session session(load(tiny("gpt2-tiny")));
    const std::string next = session.model().tokenizer().piece(
        argmax(last_logits(session, session.model().tokenizer().encode("To be or not to"))));
    const std::string row = lens.substr(0, lens.find('\n'));
    CHECK(row.substr(row.size() - 7).find(detail::replace_all(next, " ", "_")) == 0);
    const auto steered = [&](const std::string& strength) {
        return output_of("'To be' 'I love' 'I hate' " + strength);
    };
    CHECK(steered("0") != steered("3"));
    CHECK(steered("3") == steered("3"));
}

}  // namespace
}  // namespace tests
