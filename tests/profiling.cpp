// PROFILING: what Session::on_timing reports.

#include "support.h"

namespace tests {
namespace {

using llm::Timing;

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
const detail::Kernels* real_kernels = nullptr;

detail::Kernels counting(const detail::Kernels& base) {
    real_kernels = &base;
    detail::Kernels k = base;
    k.q8_0.product = [](const detail::ProductBlocks& p) {
        bytes_q8 += std::uint64_t(p.groups) * std::uint64_t(p.blocks) * detail::BlockQ8_0::kBytes;
        real_kernels->q8_0.product(p);
    };
    k.q8_planes.product = [](const detail::ProductBlocks& p) {
        bytes_q8 += std::uint64_t(p.groups) * std::uint64_t(p.blocks) * detail::BlockQ8_0::kBytes;
        real_kernels->q8_planes.product(p);
    };
    k.product_f32 = [](const detail::ProductFloat& p) {
        bytes_f32 += std::uint64_t(p.groups) * std::uint64_t(p.columns) * detail::kGroup * 4;
        real_kernels->product_f32(p);
    };
    k.product_f16 = [](const detail::ProductFloat& p) {
        bytes_f16 += std::uint64_t(p.groups) * std::uint64_t(p.columns) * detail::kGroup * 2;
        real_kernels->product_f16(p);
    };
    return k;
}

TEST_CASE("profiling: bytes counted are bytes read") {
    for (const std::string& name : kTinyModels)
        for (const DType dtype : {DType::q8_0, DType::f32}) {
            CAPTURE(name);
            const Model model = load(tiny(name), dtype);
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
            const_cast<detail::ModelData&>(model.data()).kernels = real_kernels;

            const llm::Config& c = model.config();
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
    for (const std::string& name : kTinyModels)
        for (const int tokens : {1, 40}) {
            CAPTURE(name);
            const Model model = load(tiny(name));
            Session session(model, 0, 2), silent(model, 0, 2);
            const std::vector<int> ids = some_tokens(model, tokens);
            double parts = 0, most = 0;  // most: of a step that its operations are; one that is interrupted has less
            int layer = 0, reports = 0, step_reports = 0;
            std::map<std::string, int> seen;
            session.on_timing([&](const Timing& t) {
                ++reports;
                CHECK(t.seconds >= 0);
                CHECK(t.waited >= 0);
                CHECK(t.waited <= t.seconds);
                if (is(t.part, "step")) {
                    CHECK(parts <= 1.000001 * t.seconds);  // rounding
                    most = std::max(most, parts / t.seconds);
                    parts = 0;
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
            CHECK(most >= 0.97);
            const bool gemma = model.config().architecture == "gemma3";
            for (const char* operation :
                 {"attn_norm", "qkv", "kv_store", "qk", "softmax", "av", "attn_out", "ffn_norm", "up", "gelu", "down"})
                CHECK(seen[operation] == 10 * model.config().num_layers);
            for (const char* operation : {"norm_rotate", "post_attn_norm", "post_ffn_norm"})
                CHECK(seen[operation] == (gemma ? 10 * model.config().num_layers : 0));
            for (const char* operation : {"embedding", "final_norm", "lm_head"}) CHECK(seen[operation] == 10);

            session.on_timing(nullptr);
            reports = 0;
            session.rewind(0);
            session.forward(ids.data(), tokens);
            CHECK(reports == 0);
        }
}

TEST_CASE("profiling: waiting for other threads is part of each operation, and adds up to the step's") {
    const Model model = load(tiny("gemma3-tiny"));
    const std::vector<int> ids = some_tokens(model, 40);
    for (const int threads : {1, 2}) {
        CAPTURE(threads);
        Session session(model, 0, threads);
        double parts = 0, all = 0;
        int steps = 0;
        session.on_timing([&](const Timing& t) {
            if (!is(t.part, "step")) {
                parts += t.waited;
                return;
            }
            CHECK(std::fabs(t.waited - parts) <= 1e-6 * t.seconds);
            all += t.waited;
            parts = 0;
            ++steps;
        });
        for (int i = 0; i < 20; ++i) {
            session.rewind(0);
            session.forward(ids.data(), 40);
        }
        CHECK(steps == 20);
        CHECK((all > 0) == (threads > 1));
    }
}

TEST_CASE("profiling: operations that share a parallel region each have time of their own") {
    const Model model = load(tiny("gemma3-tiny"));
    Session session(model, 0, 2);
    std::map<std::string, double> seconds;
    session.on_timing([&](const Timing& t) { seconds[t.operation] += t.seconds; });
    for (int i = 0; i < 3; ++i) {
        session.rewind(0);
        session.forward(some_tokens(model, 300));
    }
    for (const char* operation : {"up", "gelu", "qk", "softmax", "av"}) {
        CAPTURE(operation);
        CHECK(seconds[operation] > 0);
    }
}

struct Listener {  // its copies fail as of want of memory
    bool* fails;
    int* reports;
    Listener(bool& f, int& r) : fails(&f), reports(&r) {}
    Listener(Listener&&) = default;
    Listener(const Listener& other) : fails(other.fails), reports(other.reports) {
        if (*fails) throw std::bad_alloc();
    }
    void operator()(const llm::Timing&) const { ++*reports; }
    char large[64] = {};
};

TEST_CASE("profiling: a session whose listener cannot be copied can go on, and so can its forks") {
    Session session(load(tiny("gpt2-tiny")), 0, 1);
    Session fork = session.fork();
    bool fails = false;
    int reports = 0;
    session.on_timing(Listener(fails, reports));
    session.forward({1, 2, 3});
    CHECK(reports > 0);
    fails = true;
    CHECK_THROWS_AS(session.forward({4}), std::bad_alloc);
    fails = false;
    CHECK(session.position() == 3);
    session.forward({4});
    fork.forward({4});
}

TEST_CASE("profiling: a listener that a session gets inside of another one's step does not take that one's place") {
    const Model model = load(tiny("gpt2-tiny"));
    Session first(model, 60, 1);
    Session other = first.fork();
    int reports = 0, others = 0;
    first.on_timing([&](const llm::Timing&) { ++reports; });
    other.on_layer([&](int, int, int, float*) { other.on_timing([&](const llm::Timing&) { ++others; }); });
    llm::forward_together({&first, &other}, {{1, 2}, {3}});
    CHECK(reports > 0);
    CHECK(others == 0);
    other.on_layer(nullptr);
    other.forward({5});
    CHECK(others > 0);

    int operations = 0, steps = 0;  // one that is there in the middle of a step is told of the next
    other.on_timing(nullptr);
    other.on_layer([&](int, int, int, float*) {
        other.on_timing([&](const llm::Timing& t) { ++(is(t.part, "step") ? steps : operations); });
    });
    other.forward({5});
    CHECK(operations == 0);
    other.on_layer(nullptr);
    other.forward({5});
    CHECK(operations > 0);
    CHECK(steps == 1);
}

TEST_CASE("profiling: a listener may throw and may leave, and generate reports its sampling") {
    const Model model = load(tiny("gemma3-tiny"));
    Session session(model, 64, 2);
    const int id = 7;
    session.on_timing([](const Timing&) { throw llm::Error("enough"); });
    CHECK_THROWS_AS(session.forward(&id, 1), llm::Error);
    CHECK(session.position() == 1);  // the step was done
    int reports = 0;
    session.on_timing([&](const Timing&) {
        ++reports;
        session.on_timing(nullptr);
    });
    session.forward(&id, 1);
    CHECK(reports == 1);  // of this step no other, nor of the next
    session.forward(&id, 1);
    CHECK(reports == 1);

    // Of a step that was broken off nothing is reported, not even with the next one.
    int heads = 0;
    session.on_timing([&](const Timing& t) { heads += is(t.part, "lm_head"); });
    CHECK_THROWS_AS(session.forward_each(&id, 1, [](int, const float*) { throw llm::Error("enough"); }), llm::Error);
    CHECK(heads == 0);
    session.forward(&id, 1);
    CHECK(heads == 1);

    int samples = 0, steps = 0;
    session.on_timing([&](const Timing& t) {
        samples += is(t.part, "sampling");
        steps += is(t.part, "step");
    });
    llm::GenerateOptions options;
    options.max_tokens = 5;
    options.ignore_end = true;
    llm::generate(session, "a", options, nullptr);
    CHECK(steps == 5);    // the prompt, and all tokens but the last
    CHECK(samples == 4);  // each is reported with the step that follows it
}

}  // namespace
}  // namespace tests
