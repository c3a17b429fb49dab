// One arithmetic: the kernels' sums and series against plain loops and long doubles, and the bits of whole models, which
// are the same with every set of kernels, compiler, optimization, number of threads and cut of a prompt.

#include "support.h"

namespace tests {
namespace {

// ---- The specification in plain loops

float tree_sum(const std::vector<float>& terms) {
    float lanes[16] = {};
    for (std::size_t i = 0; i < terms.size(); ++i) lanes[i % 16] += terms[i];
    for (std::size_t half = 8; half > 0; half /= 2)
        for (std::size_t i = 0; i < half; ++i) lanes[i] += lanes[i + half];
    return lanes[0];
}

TEST_CASE("kernels are what the plain loops say, to the bit") {
    for (const detail::Kernels* k : detail::available_kernels())
        for (const int n : {1, 7, 15, 16, 17, 31, 33, 48, 63, 640}) {
            CAPTURE(std::string(k->name));
            CAPTURE(n);
            Random random{usize(n)};
            const std::vector<float> x = random.values(n, -3, 3), w = random.values(n, -3, 3);
            std::vector<float> y(usize(n)), expected(usize(n)), lanes(16, 0.0f);

            for (std::size_t i = 0; i < x.size(); ++i) lanes[i % 16] = std::fma(x[i], x[i], lanes[i % 16]);
            const float scale = 1 / std::sqrt(tree_sum(lanes) / static_cast<float>(n) + 1e-6f);
            for (std::size_t i = 0; i < x.size(); ++i) expected[i] = x[i] * scale * w[i];
            k->rms_norm(x.data(), w.data(), 1e-6f, n, y.data());
            CHECK(y == expected);

            const float mean = tree_sum(x) / static_cast<float>(n);
            for (std::size_t i = 0; i < x.size(); ++i) expected[i] = x[i] - mean;
            k->center(x.data(), n, y.data());
            CHECK(y == expected);

            y = w;
            k->axpy(0.3f, x.data(), n, y.data());
            for (std::size_t i = 0; i < x.size(); ++i) expected[i] = std::fma(0.3f, x[i], w[i]);
            CHECK(y == expected);

            float max = 0.5f, sum = 2;
            y = x;
            const float shrink = k->softmax(y.data(), n, max, sum);
            CHECK(max == std::max(0.5f, *std::max_element(x.begin(), x.end())));
            for (std::size_t i = 0; i < x.size(); ++i) expected[i] = detail::scalar::exp(x[i] - max);
            CHECK(y == expected);
            CHECK(shrink == detail::scalar::exp(0.5f - max));
            CHECK(sum == std::fma(2.0f, shrink, tree_sum(expected)));

            detail::ActivationBlock blocks[20];
            k->quantize(x.data(), n, blocks, 1);
            for (int begin = 0; begin < n; begin += detail::kBlock) {
                const detail::ActivationBlock& block = blocks[begin / detail::kBlock];
                float largest = 0;
                int total = 0;
                for (int i = begin; i < std::min(n, begin + 32); ++i)
                    largest = std::max(largest, std::fabs(x[usize(i)]));
                REQUIRE(block.scale == largest / 127);
                for (int i = 0; i < 32; ++i) {
                    const double value = begin + i < n ? x[usize(begin + i)] : 0;
                    REQUIRE(block.q[i] == std::nearbyint(value * double{127 / largest}));
                    total += block.q[i];
                }
                REQUIRE(block.offset == -128 * total);
            }
        }
}

TEST_CASE("a product of integers is exact, and a product of floats runs over the columns in order") {
    Random random{3};
    const int cols = 96, blocks = cols / detail::kBlock;
    std::vector<std::uint8_t> w(usize(blocks) * detail::BlockQ8_0::kBytes);
    std::vector<detail::Quants> rows_q8[detail::kGroup];
    for (int r = 0; r < detail::kGroup; ++r)
        for (std::size_t b = 0; b < usize(blocks); ++b) {
            detail::Quants& q = rows_q8[r].emplace_back();
            q.scale[0] = detail::f32_to_f16(random.uniform(-0.1f, 0.1f));
            for (auto& value : q.q) value = static_cast<std::uint8_t>(random.below(256));
            detail::pack_block<detail::BlockQ8_0>(w.data() + b * detail::BlockQ8_0::kBytes, nullptr, r, q);
        }
    const std::vector<detail::ActivationBlock> x = random_activations(random, blocks, false);
    const std::vector<float> rows = random.values(cols * detail::kGroup), values = random.values(cols);
    std::vector<float> spans(2 * detail::kSpan);
    std::copy(values.begin(), values.end(), spans.begin());
    for (const detail::Kernels* k : detail::available_kernels()) {
        CAPTURE(std::string(k->name));
        std::vector<float> y(detail::kGroup), expected(detail::kGroup);
        k->q8_0.product({w.data(), nullptr, 1, blocks, x.data(), 1, y.data(), detail::kGroup});
        for (std::size_t r = 0; r < detail::kGroup; ++r)
            for (std::size_t b = 0; b < usize(blocks); ++b) {
                const detail::Quants& q = rows_q8[r][b];
                double dot = 0;  // as an int, g++ 12 -O3 -march=native gets it wrong by its own use of vpdpbusd
                for (std::size_t c = 0; c < detail::kBlock; ++c) dot += (q.q[c] - 128.0) * x[b].q[c];
                expected[r] =
                    std::fma(static_cast<float>(dot), detail::f16_to_f32(q.scale[0]) * x[b].scale, expected[r]);
            }
        CHECK(y == expected);

        k->product_f32({rows.data(), 1, cols, detail::kGroup, 0, spans.data(), 1, y.data(), detail::kGroup, false});
        for (std::size_t r = 0; r < detail::kGroup; ++r) {
            expected[r] = 0;
            for (std::size_t c = 0; c < values.size(); ++c)
                expected[r] = std::fma(rows[c * detail::kGroup + r], values[c], expected[r]);
        }
        CHECK(y == expected);
    }
}

// ---- The series, in units in the last place

double ulps(float got, long double exact, float size) {  // of a float of that size
    const float unit = std::nextafter(std::fabs(size), INFINITY) - std::fabs(size);
    return double(std::fabs(static_cast<long double>(got) - exact) / static_cast<long double>(unit));
}

TEST_CASE("the exponential is within 1 unit in the last place") {
    double worst = 0;
    for (float x = -87.3f; x < 88; x += 0.00037f) {
        const long double exact = std::exp(static_cast<long double>(x));
        worst = std::max(worst, ulps(detail::scalar::exp(x), exact, static_cast<float>(exact)));
    }
    CAPTURE(worst);
    CHECK(worst < 1);
    CHECK(worst > 0.5);  // a rounded result cannot be better: the measure works
    CHECK(detail::scalar::exp(0.0f) == 1);
}

TEST_CASE("the gate is within 3 units in the last place of its input") {
    double worst = 0;
    std::vector<float> x, y;
    for (float v = -30; v < 30; v += 0.00021f) x.push_back(v);
    y.resize(x.size());
    detail::scalar::kernels.gelu(x.data(), nullptr, static_cast<int>(x.size()), y.data());
    for (std::size_t i = 0; i < x.size(); ++i) {
        const long double v = x[i], inner = std::sqrt(2 / 3.14159265358979323846L) * (v + 0.044715L * v * v * v);
        worst = std::max(worst, ulps(y[i], v / (1 + std::exp(-2 * inner)), x[i]));
    }
    CAPTURE(worst);
    CHECK(worst < 3);
}

TEST_CASE("angles are within 1.3 units in the last place of 1, up to a million radians") {
    double worst = 0;
    Random random{1};
    for (int i = 0; i < 400000; ++i) {
        const float position = static_cast<float>(random.below(i % 2 ? 1 << 20 : 4096)),
                    frequency = random.uniform(0, 1);
        float cos, sin;
        detail::scalar::kernels.angles(position, &frequency, 1, &cos, &sin);
        const long double angle = position * frequency;  // rounded to a float, as in the kernel
        worst = std::max({worst, ulps(cos, std::cos(angle), 1), ulps(sin, std::sin(angle), 1)});
    }
    CAPTURE(worst);
    CHECK(worst < 1.3);
}

TEST_CASE("powers, exponentials and logarithms in double agree with long doubles") {
    Random random{2};
    for (int i = 0; i < 20000; ++i) {
        const double x = random.uniform(-600, 600), y = std::exp(double{random.uniform(-60, 60)}),
                     part = random.uniform(0, 1);
        const auto agrees = [](double got, long double exact) { return std::fabs(got / exact - 1) < 1e-14L; };
        REQUIRE(agrees(detail::exponential(x), std::exp(static_cast<long double>(x))));
        REQUIRE(std::fabs(detail::logarithm(y) - std::log(static_cast<long double>(y))) < 1e-14L);
        REQUIRE(agrees(detail::power(1e6, part), std::pow(1e6L, static_cast<long double>(part))));
    }
    CHECK(detail::exponential(-INFINITY) == 0);
    CHECK(detail::exponential(0) == 1);
}

// ---- The bits of whole models

std::uint64_t hash_of(const float* logits, int n, std::uint64_t h = 1) {
    for (int i = 0; i < n; ++i) {
        h = (h ^ detail::f32_to_bits(logits[i])) * 0x9E3779B97F4A7C15u;
        h ^= h >> 29;
    }
    return h;
}

std::vector<int> long_prompt(const Model& model, int length) {
    std::string text;
    while (static_cast<int>(text.size()) < 8 * length)
        text += "The " + std::to_string(text.size()) + "th light through yonder window breaks; it is the east. ";
    std::vector<int> ids = model.tokenizer().encode(text);
    ids.resize(usize(length));
    return ids;
}

// Each way of sending the prompt through the model, in one session: whole, in pieces, the end of it one by one again.
std::vector<std::uint64_t> hashes(Session& session, const std::vector<int>& ids) {
    const int n = static_cast<int>(ids.size()), vocab = session.model().config().vocab_size;
    std::vector<std::uint64_t> found;
    const auto add = [&](const float* logits) { found.push_back(hash_of(logits, vocab)); };
    session.rewind(0);
    add(session.forward(ids.data(), n));

    session.rewind(0);
    for (int at = 0, piece = 1; at < n; at += piece, piece = piece * 2 % 97) {
        piece = std::min(piece, n - at);
        const float* logits = session.forward(ids.data() + at, piece);
        if (at + piece == n) add(logits);
    }
    const int again = std::min(n, 40);
    session.rewind(n - again);
    const float* logits = nullptr;
    for (int at = n - again; at < n; ++at) logits = session.forward(&ids[usize(at)], 1);
    add(logits);
    return found;
}

struct Bits {
    const char* model;
    DType dtype;
    int length;
    std::uint64_t hash;
};

// What must come out on every machine. The long ones cross windows (32), rolling caches, parts (256) and batches (256).
const Bits kShort[] = {{"gemma3-tiny", DType::q8_0, 60, 0xAF0569D8AEF14A71u},
                       {"gemma3-tiny", DType::f32, 60, 0x57C2B74771BD126Cu},
                       {"gpt2-tiny", DType::q8_0, 60, 0x93D97E35CF66DF33u},
                       {"gpt2-tiny", DType::f32, 60, 0x6AEBAC0A64738214u}};
const Bits kLong[] = {{"gemma3-tiny", DType::q8_0, 470, 0x8C6396867C4B0E4Cu},
                      {"gemma3-tiny", DType::f32, 470, 0xB929FF2CC96497AEu},
                      {"gpt2-tiny", DType::q8_0, 250, 0xE723BF2C38088B07u},
                      {"gpt2-tiny", DType::f32, 250, 0xC5A1D312A1C88CA9u}};

void check_bits(const Bits& bits, const std::vector<int>& thread_counts) {
    for (const detail::Kernels* set : detail::available_kernels()) {
        const Environment forced("LLM_SIMD", set->name);
        const Model model = load(tiny(bits.model), bits.dtype);
        const std::vector<int> ids = long_prompt(model, bits.length);
        const bool slow = set == &detail::scalar::kernels;
        for (const int threads : slow ? std::vector{2} : thread_counts) {
            Session session(model, 0, threads);
            for (const std::uint64_t hash : hashes(session, ids)) {
                CAPTURE(std::string(set->name));
                CAPTURE(std::string(bits.model));
                CAPTURE(name_of(bits.dtype));
                CAPTURE(bits.length);
                CAPTURE(threads);
                CHECK(hash == bits.hash);
            }
        }
    }
}

TEST_CASE("the same bits: short prompts, with every set of kernels, in one piece and in many") {
    for (const Bits& bits : kShort) check_bits(bits, {2});
}

TEST_CASE("the same bits: long prompts, with every set of kernels and number of threads, in one piece and in many") {
    for (const Bits& bits : kLong) check_bits(bits, thinned(std::vector{1, 2, 3, 5}));
}

TEST_CASE("the same bits: the real Gemma, 500 tokens and sampled texts" *
          doctest::skip(real_model(kRealGemma).empty() || LLM_ASAN || LLM_TSAN)) {
    std::map<int, std::uint64_t> bits;           // by length
    std::map<std::uint64_t, std::string> texts;  // by seed
    for (const detail::Kernels* set : detail::available_kernels()) {
        const bool slow = set == &detail::scalar::kernels;
        const Environment forced("LLM_SIMD", set->name);
        const Model model = load(real_model(kRealGemma));
        for (const int threads : slow ? std::vector{2} : std::vector{1, 2, 3}) {
            CAPTURE(std::string(set->name));
            CAPTURE(threads);
            Session session(model, 1200, threads);
            for (const int length : slow || threads == 1 ? std::vector{24} : std::vector{24, 500})
                for (const std::uint64_t hash : hashes(session, long_prompt(model, length)))
                    CHECK(hash == bits.try_emplace(length, hash).first->second);
            for (const std::uint64_t seed : {1u, 2u, 3u}) {
                llm::GenerateOptions options;
                options.max_tokens = slow ? 12 : 80;
                options.sampling.seed = seed;
                session.rewind(0);
                const std::string text = generated(session, "Once upon a time", options);
                std::string& known = texts[seed];  // the longest so far
                CHECK(known.substr(0, text.size()) == text.substr(0, known.size()));
                if (text.size() > known.size()) known = text;
            }
        }
    }
}

TEST_CASE("the same bits: a model that is loaded and asked while the host flushes denormals or rounds upwards") {
    for (const std::string& name : kTinyModels) {
        const auto ask = [&](bool flush, bool up) {
            const HostFloats host(flush, up);
            Session session(load(tiny(name), DType::f32), 0, 2);
            std::vector<double> all = {llm::score(session, "To be, or not")};
            const std::vector<int> ids = session.tokens();
            const int width = session.model().config().hidden_size;
            session.forward_hidden(ids.data(), 3, [&](int, const float* x) { all.insert(all.end(), x, x + width); });
            llm::GenerateOptions options = greedy(3);
            options.on_token = [&](const llm::TokenInfo& t) { return all.push_back(t.log_probability), true; };
            generated(session, "", options);
            all.push_back(static_cast<double>(detail::fingerprint(session.model().data()) >> 12));
            return all;
        };
        CAPTURE(name);
        const std::vector<double> expected = ask(false, false);
        CHECK(ask(false, true) == expected);
        CHECK((!kCanFlush || ask(true, false) == expected));
    }
}

}  // namespace
}  // namespace tests
