// Profiling and build/bench: a part of test.cpp, which includes this.

#include <cstdio>
#include <iterator>

namespace profile_tests {

using namespace llm;

std::vector<int> some_tokens(const Model& model, int n) {
    std::vector<int> ids;
    for (int i = 0; i < n; ++i) ids.push_back((i * 37 + 5) % model.config().vocab_size);
    return ids;
}

bool is(const char* name, const char* other) { return std::string_view(name) == other; }

bool is_product(const Timing& t) {
    return is(t.part, "qkv") || is(t.part, "attn_out") || is(t.part, "up") || is(t.part, "down") ||
           is(t.part, "lm_head");
}

// Kernels that count the bytes of W that they are handed.
std::atomic<std::uint64_t> bytes_q8{0}, bytes_f32{0}, bytes_f16{0};
const detail::Kernels* counted = nullptr;

detail::Kernels counting(const detail::Kernels& base) {
    counted = &base;
    detail::Kernels k = base;
    k.product_q8 = [](const detail::ProductQ8& p) {
        bytes_q8 += std::uint64_t(p.groups) * std::uint64_t(p.blocks) * sizeof *p.w;
        counted->product_q8(p);
    };
    k.product_f32 = [](const detail::ProductFloat<float>& p) {
        bytes_f32 += std::uint64_t(p.groups) * std::uint64_t(p.columns) * detail::kGroup * sizeof *p.w;
        counted->product_f32(p);
    };
    k.product_f16 = [](const detail::ProductFloat<std::uint16_t>& p) {
        bytes_f16 += std::uint64_t(p.groups) * std::uint64_t(p.columns) * detail::kGroup * sizeof *p.w;
        counted->product_f16(p);
    };
    return k;
}

struct Output {
    std::string text;
    int status;
};

// Runs a program that was built beside this one, in the repository's directory.
Output run(const std::string& command) {
    Output out{"", -1};
    const std::string directory = quoted(fs::absolute(program()).parent_path().string());
    const std::string all = "cd " + quoted(repository().string()) + " && " + directory + "/" + command + " 2>&1";
    if (FILE* pipe = popen(all.c_str(), "r")) {
        for (int c; (c = std::fgetc(pipe)) != EOF;) out.text += char(c);
        out.status = pclose(pipe);
    }
    return out;
}

double number(const detail::Json& object, const char* key) {
    const detail::Json* value = object.find(key);
    return value && value->is<double>() ? value->number() : NAN;
}

std::string text(const detail::Json& object, const char* key) {
    const detail::Json* value = object.find(key);
    return value && value->is<std::string_view>() ? std::string(value->string()) : "";
}

TEST_CASE("profiling: bytes counted are bytes read") {
    for (const char* path : {"models/gpt2-tiny", "models/gemma3-tiny"})
        for (const DType dtype : {DType::q8_0, DType::f32}) {
            CAPTURE(path);
            LoadOptions options;
            options.dtype = dtype;
            const Model model = Model::load(path, options);
            const detail::Kernels kernels = counting(*model.data().kernels);
            const_cast<detail::ModelData&>(model.data()).kernels = &kernels;
            Session session(model, 0, 2);
            const std::vector<int> ids = some_tokens(model, 64);
            session.forward(ids.data(), 63);  // the 64th sees whole groups of 16 positions, also in a window of 32

            std::uint64_t weights = 0, products = 0, cache = 0, reported_logits = 0;
            session.on_timing([&](const Timing& t) {
                if (is_product(t)) weights += t.bytes, products += t.operations;
                if (is(t.operation, "qk") || is(t.operation, "av")) cache += t.bytes;
                if (is(t.part, "lm_head")) reported_logits += t.operations;
            });
            bytes_q8 = bytes_f32 = bytes_f16 = 0;
            session.forward(&ids[63], 1);
            const_cast<detail::ModelData&>(model.data()).kernels = counted;

            const Config& c = model.config();
            std::uint64_t positions = 0;  // of all layers
            for (const bool local : c.is_local) positions += local ? std::uint64_t(c.sliding_window) : 64;
            const std::uint64_t value = dtype == DType::q8_0 ? 2 : 4;
            CHECK(cache == positions * 2 * std::uint64_t(c.num_kv_heads) * std::uint64_t(c.head_dim) * value);
            if (dtype == DType::q8_0) {
                CHECK(bytes_q8 == weights);
                CHECK(bytes_f16 == cache);
                CHECK(bytes_f32 == 0);
            } else {
                CHECK(bytes_f32 == weights + cache);
            }
            // Every matrix is read once. Besides there are norms, biases and positions, and up to 63 bytes between two.
            const std::uint64_t others = model.info().parameters - products / 2;
            CHECK(model.info().weight_bytes >= weights);
            CHECK(model.info().weight_bytes <= weights + 4 * others + 63 * (1 + 4 * std::uint64_t(c.num_layers)));
            CHECK(reported_logits == 2 * std::uint64_t(c.vocab_size) * std::uint64_t(c.hidden_size));
        }
}

TEST_CASE("profiling: the operations of a step add up to it, in the order of the layers") {
    for (const char* path : {"models/gpt2-tiny", "models/gemma3-tiny"})
        for (const int tokens : {1, 40}) {
            CAPTURE(path);
            const Model model = Model::load(path);
            Session session(model, 0, 2), silent(model, 0, 2);
            const std::vector<int> ids = some_tokens(model, tokens);
            double parts = 0, steps = 0;
            int layer = 0, reports = 0, step_reports = 0;
            std::map<std::string, int> seen;
            session.on_timing([&](const Timing& t) {
                ++reports;
                CHECK(t.seconds >= 0);
                CHECK(t.waited >= 0);
                CHECK(t.waited <= t.seconds);
                if (is(t.part, "step")) {
                    steps += t.seconds;
                    ++step_reports;
                    layer = 0;
                    CHECK(t.tokens == tokens);
                } else {
                    parts += t.seconds;
                    ++seen[t.operation];
                    if (t.layer >= 0) CHECK((t.layer == layer || t.layer == layer + 1));
                    layer = std::max(layer, t.layer);
                    CHECK(t.tokens == (is(t.part, "lm_head") || is(t.operation, "final_norm") ? 1 : tokens));
                }
            });
            for (int i = 0; i < 10; ++i) {
                session.rewind(0);
                const float* logits = session.forward(ids.data(), tokens);
                silent.rewind(0);
                const float* plain = silent.forward(ids.data(), tokens);  // looking on changes nothing
                CHECK(std::equal(logits, logits + model.config().vocab_size, plain));
            }
            CHECK(step_reports == 10);
            CHECK(parts <= steps);
            CHECK(parts >= 0.97 * steps);
            const bool gemma = model.config().architecture == "gemma3";
            for (const char* name :
                 {"attn_norm", "qkv", "kv_store", "qk", "softmax", "av", "attn_out", "ffn_norm", "up", "gelu", "down"})
                CHECK(seen[name] == 10 * model.config().num_layers);
            for (const char* name : {"norm_rotate", "post_attn_norm", "post_ffn_norm"})
                CHECK(seen[name] == (gemma ? 10 * model.config().num_layers : 0));
            for (const char* name : {"embedding", "final_norm", "lm_head"}) CHECK(seen[name] == 10);

            session.on_timing(nullptr);
            reports = 0;
            session.rewind(0);
            session.forward(ids.data(), tokens);
            CHECK(reports == 0);
        }
}

TEST_CASE("profiling: a listener may throw and may leave, and generate reports its sampling") {
    const Model model = Model::load("models/gemma3-tiny");
    Session session(model, 64, 2);
    const int id = 7;
    session.on_timing([](const Timing&) { throw Error("enough"); });
    CHECK_THROWS_AS(session.forward(&id, 1), Error);
    CHECK(session.position() == 1);  // the step was done
    int reports = 0;
    session.on_timing([&](const Timing&) {
        ++reports;
        session.on_timing(nullptr);
    });
    session.forward(&id, 1);
    const int first = reports;
    session.forward(&id, 1);
    CHECK(reports == first);

    // Of a step that was broken off nothing is reported, not even with the next one.
    int heads = 0;
    session.on_timing([&](const Timing& t) { heads += is(t.part, "lm_head"); });
    CHECK_THROWS_AS(session.forward_each(&id, 1, [](int, const float*) { throw Error("enough"); }), Error);
    CHECK(heads == 0);
    session.forward(&id, 1);
    CHECK(heads == 1);

    int samples = 0, steps = 0;
    session.on_timing([&](const Timing& t) {
        samples += is(t.part, "sampling");
        steps += is(t.part, "step");
    });
    GenerateOptions options;
    options.max_tokens = 5;
    options.ignore_end = true;
    generate(session, "a", options, nullptr);
    CHECK(steps == 5);    // the prompt, and all tokens but the last
    CHECK(samples == 4);  // each is reported with the step that follows it
}

TEST_CASE("llm --profile: tables of steps, layers and operations") {
    const std::string llm = "llm -m models/gemma3-tiny -n 4 --ignore-eos --no-display-prompt --profile ";
    const Output step = run(llm + "step ROMEO"), layer = run(llm + "layer ROMEO"), trace = run(llm + "trace:5 ROMEO");
    for (const Output& out : {step, layer, trace}) {
        CHECK(out.status == 0);
        CHECK(out.text.find("3 steps of one token: p50 ") != std::string::npos);
    }
    CHECK(step.text.find("\n   4      1 ") != std::string::npos);
    CHECK(layer.text.find("\noutside ") != std::string::npos);
    CHECK(layer.text.find("\n5      ") != std::string::npos);
    for (const char* name : {"norm_rotate", "kv_store", "qk ", "softmax", "av ", "attn_out", "gelu", "down"})
        CHECK(trace.text.find(name) != std::string::npos);
    CHECK(run(llm + "trace:6 ROMEO").text.find("there is no layer 6: choose 0 to 5") != std::string::npos);
    CHECK(run(llm + "all ROMEO").text.find("none of step, layer, trace") != std::string::npos);
}

TEST_CASE("bench: published shapes have their published number of parameters") {
    for (const auto& [shape, parameters] :
         {std::pair<const char*, double>{"gpt2-124m", 124439808}, {"gemma3-270m", 268098176}}) {
        const Output out = run(std::string("bench --shape ") + shape + " -p 0 -n 1 -r 1 -o json");
        REQUIRE(out.status == 0);
        const detail::JsonDocument document(out.text, "bench");
        CHECK(number(document.root().array()[0], "model_n_params") == parameters);
        CHECK(number(document.root().array()[0], "avg_ts") > 0);
    }
    CHECK(run("bench --shape gpt3").text.find("none of gpt2-124m, ") != std::string::npos);
}

TEST_CASE("bench --report: facts, sums, a picture, and a comparison with itself") {
    if (LLM_TSAN) return;  // under which it measures the machine for minutes
    const TemporaryDirectory directory;
    const std::string base = (directory.path / "report").string();
    const std::string bench = "bench --report -q -m models/gemma3-tiny -p 1,40 -r 2 ";
    const Output json = run(bench + "-o json --png " + base + ".png");
    REQUIRE(json.status == 0);
    const detail::JsonDocument document(json.text, "bench");
    std::map<std::string, double> milliseconds, steps;
    std::map<std::string, int> rows;
    for (const auto& row : document.root().array()) {
        const std::string table = text(row, "table");
        ++rows[table];
        if (table == "bandwidth") CHECK(number(row, "read_gb_s") > 0);
        if (table == "decode") CHECK(number(row, "p50_ms") <= number(row, "p95_ms"));
        if (table == "limits") CHECK((text(row, "bound_by") == "memory" || text(row, "bound_by") == "arithmetic"));
        if (table != "decode_step" && table != "prompt_step") continue;
        if (text(row, "row") == "step") steps[table] = number(row, "ms");
        else if (text(row, "row") != "other") milliseconds[table] += number(row, "ms");
    }
    for (const char* table :
         {"machine", "bandwidth", "model", "first_token", "decode", "decode_step", "prompt_step", "limits"})
        CHECK(rows[table] > 0);
    CHECK(rows["first_token"] == 2);
    for (const char* table : {"decode_step", "prompt_step"}) {
        CHECK(milliseconds[table] >= 0.97 * steps[table]);
        CHECK(milliseconds[table] <= 1.0001 * steps[table]);
    }

    std::ifstream picture(base + ".png", std::ios::binary);
    const std::string png{std::istreambuf_iterator<char>(picture), {}};
    REQUIRE(png.size() > 10000);
    CHECK(png.substr(0, 8) == "\x89PNG\r\n\x1a\n");
    CHECK(png.substr(16, 8) == std::string("\0\0\x06\x40\0\0\x03\xe8", 8));  // 1600 x 1000

    std::ofstream(base + ".json") << json.text;
    const Output again = run(bench + "--compare " + base + ".json");
    CHECK(again.status == 0);
    CHECK(again.text.find("models/gemma3-tiny decode_step lm_head") != std::string::npos);
    CHECK(run(bench + "--compare models/gemma3-tiny/config.json").text.find("an array") != std::string::npos);
}

TEST_CASE("bench --compare: marks what lies beyond the spread, and reads llama-bench's fields") {
    const TemporaryDirectory directory;
    const std::string file = (directory.path / "before.json").string();
    std::ofstream(file) << R"([{"model_filename": "elsewhere/gpt2-tiny", "n_prompt": 0, "n_gen": 4, "n_depth": 0,
                               "avg_ts": 1.0, "stddev_ts": 0.0}])";
    const Output out = run("bench -m models/gpt2-tiny -p 0 -n 4 -r 2 -o json --compare " + file);
    REQUIRE(out.status == 0);
    const detail::JsonDocument document(out.text, "bench");
    REQUIRE(document.root().array().size() == 2);
    const auto& row = document.root().array()[1];
    CHECK(text(row, "table") == "compare");
    CHECK(number(row, "before") == 1.0);
    CHECK(number(row, "ratio") == doctest::Approx(number(document.root().array()[0], "avg_ts")));
}

}  // namespace profile_tests
