// Each kernel set against `scalar`: the same inputs, and all outputs the same to the bit, for every size at which a vector
// or a tile begins or ends, infinities and NaNs included. Outputs are followed by a few cells that must stay as they are.

#include "support.h"

namespace tests {
namespace {

constexpr std::size_t kGuard = 19;

// What the kernels get: numbers of a kind, always the same ones for the same seed.
struct Input {
    enum Kind { ordinary, zeros, large, small, spikes, endless };
    Kind kind;
    Random random;

    float value() {
        const float x = random.uniform(-2, 2);
        switch (kind) {
            case zeros: return 0;
            case large: return x * 1e12f;
            case small: return x * 1e-20f;
            case spikes: return random.below(7) ? x * 1e-3f : x * 1e3f;
            case endless: return random.below(9) ? x : random.of(std::vector{INFINITY, -INFINITY, NAN});
            default: return x;
        }
    }
    std::vector<float> values(int n) {
        std::vector<float> x(usize(n));
        for (float& v : x) v = value();
        return x;
    }
};

std::vector<float> guarded(std::vector<float> x) {
    x.resize(x.size() + kGuard, 77.0f);
    return x;
}
std::vector<float> guarded(int n) { return guarded(std::vector<float>(usize(n), 55.0f)); }

std::vector<float> as_floats(const std::vector<std::uint16_t>& x) { return {x.begin(), x.end()}; }

void append(std::vector<float>& out, const detail::ActivationBlock& block) {
    out.push_back(block.scale);
    out.push_back(static_cast<float>(block.offset));
    out.push_back(static_cast<float>(block.first_offset));
    out.insert(out.end(), std::begin(block.q), std::end(block.q));
}

// Products of one format, of one token and of several. Weights and activations are random bytes, or all at an end of their
// range.
template <class Block> struct Products {
    std::vector<std::uint8_t> w, lower, bytes;
    const detail::ForFormat& f;
    int groups, blocks;

    Products(const detail::ForFormat& format, int n, Input& in) : f(format), groups(n % 4 + 1), blocks(n % 6 + 1) {
        const bool extreme = in.kind == Input::large;
        for (int b = 0; b < groups * blocks; ++b)
            for (int i = 0; i < Block::kBytes; i += 2) {
                std::uint16_t two = detail::f32_to_f16(in.random.uniform(-0.1f, 0.1f));
                if (i >= Block::kIntegers)
                    two = static_cast<std::uint16_t>(extreme ? 65535 * in.random.below(2) : in.random.below(65536));
                w.push_back(static_cast<std::uint8_t>(two & 255));
                w.push_back(static_cast<std::uint8_t>(two >> 8));
            }
        for (int i = 0; i < groups * blocks * Block::kLower; ++i)
            lower.push_back(static_cast<std::uint8_t>(in.random.below(256)));
        bytes.resize(usize(groups * blocks * Block::Unpacked::kBytes));
        f.to_bytes(w.data(), lower.data(), groups * blocks, bytes.data());
    }
    std::vector<float> operator()(int m, Input& in) const {
        std::vector<detail::ActivationBlock> x =
            random_activations(in.random, blocks * m, in.kind == Input::large, in.kind == Input::zeros);
        x.resize(x.size() + usize(detail::kFew), {NAN, 1, 1, {1}});  // products may read what lies behind them
        const std::size_t stride = usize(groups * detail::kGroup) + 3;
        std::vector<float> y = guarded(m * static_cast<int>(stride)), few = y;
        const auto run = [&](auto product, std::vector<float>& to, const std::vector<std::uint8_t>& from) {
            product({from.data(), lower.data(), groups, blocks, x.data(), m, to.data(), stride});
        };
        run(f.product_bytes, y, bytes);
        if (m > detail::kFew) return y;
        run(f.product, few, w);
        CHECK(std::memcmp(y.data(), few.data(), y.size() * sizeof(float)) == 0);
        return y;
    }
};

// Groups of n columns; columns and groups lie some floats further apart than they must.
template <class Weight, class Product>
std::vector<float> product_float(const Product& product, int n, int m, Input& in) {
    const int groups = n % 4 + 1, pitch = detail::kGroup + n % 3, next = n * pitch + n % 2;
    std::vector<Weight> w;
    for (const float value : in.values(groups * next + detail::kGroup)) {
        if constexpr (std::is_same_v<Weight, float>) w.push_back(value);
        else w.push_back(detail::f32_to_f16(std::max(-8.0f, std::min(value, 8.0f))));
    }
    const std::vector<float> x = in.values((n / detail::kSpan + 1) * detail::kSpan * m);
    const int stride = groups * detail::kGroup + 3;
    std::vector<float> y = guarded(in.values(m * stride));
    product({w.data(), groups, n, usize(pitch), usize(next), x.data(), m, y.data(), usize(stride), m % 2 == 0});
    return y;
}

// All token counts of a product, one after the other.
template <class OneCount> std::vector<float> all_counts(const OneCount& one) {
    std::vector<float> all;
    for (int m = 1; m <= detail::kTile; ++m) {
        const std::vector<float> y = one(m);
        all.insert(all.end(), y.begin(), y.end());
    }
    return all;
}

template <class Block, detail::KernelsOf format>
std::vector<float> product_of(const detail::Kernels& k, int n, Input& in) {
    const Products<Block> products(k.*format, n, in);
    std::vector<float> all = all_counts([&](int m) { return products(m, in); });
    all.insert(all.end(), products.bytes.begin(), products.bytes.end());
    return all;
}

std::vector<float> screened(const detail::Kernels& k, int n, Input& in) {
    const Products<detail::BlockQ8Planes> products(k.q8_planes, n, in);
    const int m = n % detail::kScreen + 1, all = products.groups + 2;
    std::vector<detail::ActivationBlock> x = random_activations(in.random, products.blocks * m, false);
    x.resize(x.size() + usize(detail::kScreen), {NAN, 1, 1, {1}});
    std::vector<float> squares(usize(products.blocks * m), 3.0f);
    squares.resize(squares.size() + usize(detail::kScreen), NAN);
    const int rows = all * detail::kGroup;
    std::vector<float> y = guarded(m * (rows + all));
    detail::ProductBlocks p{products.w.data(), nullptr, products.groups, products.blocks,
                            x.data(),          m,       y.data(),        usize(rows)};
    p.squares = squares.data();
    p.most = y.data() + m * rows;
    k.screen(p);
    return y;
}

struct KernelTest {
    const char* name;
    std::vector<float> (*run)(const detail::Kernels& k, int n, Input& in);
};

const KernelTest kKernelTests[] = {
    {"q8_0", product_of<detail::BlockQ8_0, &detail::Kernels::q8_0>},
    {"q8_planes", product_of<detail::BlockQ8Planes, &detail::Kernels::q8_planes>},
    {"screen", screened},
    {"q4_0", product_of<detail::BlockQ4_0, &detail::Kernels::q4_0>},
    {"q4_1", product_of<detail::BlockQ4_1, &detail::Kernels::q4_1>},
    {"q5_0", product_of<detail::BlockQ5_0, &detail::Kernels::q5_0>},
    {"q5_1", product_of<detail::BlockQ5_1, &detail::Kernels::q5_1>},
    {"q6_k", product_of<detail::BlockQ6_K, &detail::Kernels::q6_k>},
    {"q2_k", product_of<detail::BlockQ2_K, &detail::Kernels::q2_k>},
    {"iq4_nl", product_of<detail::BlockIQ4_NL, &detail::Kernels::iq4_nl>},
    {"product_f32",
     [](const detail::Kernels& k, int n, Input& in) {
         return all_counts([&](int m) { return product_float<float>(k.product_f32, n, m, in); });
     }},
    {"product_f16",
     [](const detail::Kernels& k, int n, Input& in) {
         return all_counts([&](int m) { return product_float<std::uint16_t>(k.product_f16, n, m, in); });
     }},
    {"quantize",
     [](const detail::Kernels& k, int n, Input& in) {
         const std::vector<float> x = in.values(n);
         const int step = n % 3 + 1;
         std::vector<detail::ActivationBlock> blocks(usize((n / detail::kBlock + 2) * step));
         for (auto& block : blocks) block = {7, 7, 7, {7}};
         k.quantize(x.data(), n, blocks.data(), step);
         std::vector<float> y;
         for (const auto& block : blocks) append(y, block);
         return y;
     }},
    {"rms_norm",
     [](const detail::Kernels& k, int n, Input& in) {
         const std::vector<float> x = in.values(n), w = in.values(n);
         std::vector<float> y = guarded(n);
         k.rms_norm(x.data(), w.data(), 1e-6f, n, y.data());
         return y;
     }},
    {"center",  // x - mean cancels
     [](const detail::Kernels& k, int n, Input& in) {
         const std::vector<float> x = in.values(n);
         std::vector<float> y = guarded(n);
         k.center(x.data(), n, y.data());
         return y;
     }},
    {"gelu",
     [](const detail::Kernels& k, int n, Input& in) {
         std::vector<float> y = guarded(in.values(n));
         k.gelu(y.data(), nullptr, n, y.data());
         return y;
     }},
    {"gelu * up",
     [](const detail::Kernels& k, int n, Input& in) {
         const std::vector<float> x = in.values(n), up = in.values(n);
         std::vector<float> y = guarded(n);
         k.gelu(x.data(), up.data(), n, y.data());
         return y;
     }},
    {"rotate",
     [](const detail::Kernels& k, int n, Input& in) {
         std::vector<float> x = guarded(in.values(2 * n)), cos, sin;
         for (int i = 0; i < n; ++i) {
             const float angle = in.random.uniform(-3, 3);
             cos.push_back(std::cos(angle));
             sin.push_back(std::sin(angle));
         }
         k.rotate(x.data(), cos.data(), sin.data(), n);
         return x;
     }},
    {"softmax",
     [](const detail::Kernels& k, int n, Input& in) {
         std::vector<float> x = in.values(n);
         float max = in.value(), sum = 3;
         x = guarded(std::move(x));
         const float shrink = k.softmax(x.data(), n, max, sum);
         for (const float v : {shrink, max == 0 ? 0 : 1 / max, sum / static_cast<float>(n)}) x.push_back(v);
         return x;
     }},
    {"axpy",
     [](const detail::Kernels& k, int n, Input& in) {
         const std::vector<float> x = in.values(n);
         std::vector<float> y = guarded(in.values(n));
         k.axpy(in.random.uniform(-1, 1), x.data(), n, y.data());
         return y;
     }},
    {"scale",
     [](const detail::Kernels& k, int n, Input& in) {
         std::vector<float> y = guarded(in.values(n));
         k.scale(in.random.uniform(-1, 1), n, y.data());
         return y;
     }},
    {"to_f16",
     [](const detail::Kernels& k, int n, Input& in) {
         const std::vector<float> x = in.values(n);
         std::vector<std::uint16_t> y(x.size() + kGuard, 77);
         k.to_f16(x.data(), n, y.data());
         return as_floats(y);
     }},
};

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {  // whatever a NaN's bits are
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](float x, float y) {
        return std::isnan(x) ? std::isnan(y) : detail::f32_to_bits(x) == detail::f32_to_bits(y);
    });
}

TEST_CASE("kernels equal the scalar ones, to the bit") {
    const int sizes[] = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 96, 127, 128, 129, 255, 640};
    const std::vector kinds = {Input::ordinary, Input::zeros,  Input::large,
                               Input::small,    Input::spikes, Input::endless};
    const auto sets = detail::available_kernels();
    for (const detail::Kernels* set : sets) {
        for (const KernelTest& test : kKernelTests)
            for (const int n : sizes)
                for (const auto kind : thinned(kinds)) {
                    const std::uint64_t seed = usize(n) * 8 + kind;
                    Input a{kind, {seed}}, b{kind, {seed}};
                    const std::vector<float> expected = test.run(detail::scalar::kernels, n, a);
                    CAPTURE(std::string(set->name));
                    CAPTURE(std::string(test.name));
                    CAPTURE(n);
                    CAPTURE(int{kind});
                    CHECK(same_bits(test.run(*set, n, b), expected));
                }
    }
    MESSAGE(sets.size() << " sets of kernels, the best is " << std::string(sets.back()->name));
}

// Units in the last place of the F32 nearest to `exact`.
double units_off(float got, double exact) {
    const auto nearest = static_cast<float>(exact);
    return std::fabs(got - exact) / (std::nextafter(std::fabs(nearest), INFINITY) - std::fabs(nearest));
}

TEST_CASE("exp, as softmax has it, is within 1 unit in the last place") {
    for (const detail::Kernels* set : detail::available_kernels()) {
        double worst = 0;
        std::vector<float> x(1024), y;
        for (int part = 0; part < 80; ++part) {  // 0 to -80
            for (std::size_t i = 0; i < x.size(); ++i) x[i] = -static_cast<float>(part) - static_cast<float>(i) / 1024;
            float max = 0, sum = 0;
            y = x;
            CHECK(set->softmax(y.data(), static_cast<int>(y.size()), max, sum) == 1);
            CHECK(max == 0);
            for (std::size_t i = 0; i < x.size(); ++i) worst = std::max(worst, units_off(y[i], std::exp(double{x[i]})));
        }
        CAPTURE(std::string(set->name));
        CHECK(worst < 1);
    }
}

TEST_CASE("norms, gelu and rotations are those of a plain loop in double") {
    Random random{2};
    const int n = 333;
    const std::vector<float> x = random.values(n, -6, 6), w = random.values(n);
    double squares = 0, total = 0;
    for (const float v : x) squares += double{v} * v, total += v;
    for (const detail::Kernels* set : detail::available_kernels()) {
        CAPTURE(std::string(set->name));
        std::vector<float> normed(x.size()), centered(x.size()), gelu(x.size()), gated(x.size()), turned = x;
        set->rms_norm(x.data(), w.data(), 0.25f, n, normed.data());
        set->center(x.data(), n, centered.data());
        set->gelu(x.data(), nullptr, n, gelu.data());
        set->gelu(x.data(), w.data(), n, gated.data());
        set->rotate(turned.data(), w.data(), gelu.data(), n / 2);
        for (std::size_t i = 0; i < x.size(); ++i) {
            CAPTURE(i);
            const double v = x[i], tanh = std::tanh(std::sqrt(2 / std::acos(-1.0)) * (v + 0.044715 * v * v * v));
            CHECK(std::fabs(normed[i] - v / std::sqrt(squares / n + 0.25) * w[i]) < 1e-6);
            CHECK(std::fabs(centered[i] - (v - total / n)) < 2e-6);
            CHECK(std::fabs(gelu[i] - 0.5 * v * (1 + tanh)) < 2e-6);
            CHECK(std::fabs(gated[i] - 0.5 * v * (1 + tanh) * w[i]) < 2e-6);
            if (i >= usize(n / 2)) continue;
            const double a = v, b = x[i + usize(n / 2)];
            CHECK(std::fabs(turned[i] - (a * w[i] - b * gelu[i])) < 4e-6);
            CHECK(std::fabs(turned[i + usize(n / 2)] - (b * w[i] + a * gelu[i])) < 4e-6);
        }
        CHECK(turned.back() == x.back());  // the odd one stays
    }
}

// A value that is not finite stays visible: a product with it is not finite either.
TEST_CASE("kernels keep infinity, and nothing breaks at a NaN") {
    for (const detail::Kernels* set : detail::available_kernels())
        for (const float bad : {INFINITY, -INFINITY, NAN})
            for (int at = 0; at < 40; ++at) {
                CAPTURE(std::string(set->name));
                std::vector<float> x(40, 1.0f), y(40);
                x[usize(at)] = bad;
                detail::ActivationBlock blocks[2];
                set->quantize(x.data(), 40, blocks, 1);
                if (!std::isnan(bad)) CHECK(!std::isfinite(blocks[at / 32].scale));
                CHECK(blocks[1 - at / 32].scale == 1.0f / 127);
                set->rms_norm(x.data(), x.data(), 1e-6f, 40, y.data());
                CHECK(!std::isfinite(y[usize(at)]));
                set->gelu(x.data(), nullptr, 40, y.data());
                CHECK(y[usize((at + 1) % 40)] == doctest::Approx(0.841192));
            }
}

TEST_CASE("all kernel sets give the same logits, for shapes that fill no vector and every number of tokens") {
    const llm::Config shapes[] = {
        shape("gpt2", 40, 4, 4, 10, 50),    shape("gpt2", 34, 1, 1, 34, 31),    shape("gpt2", 96, 3, 3, 32, 200),
        shape("gemma3", 48, 3, 1, 18, 72),  shape("gemma3", 65, 4, 2, 64, 129), shape("gemma3", 1, 1, 1, 2, 1),
        shape("gemma3", 17, 15, 1, 34, 16), shape("gemma3", 128, 5, 5, 16, 47),
    };
    std::vector<int> counts = {25, 31, 90};
    for (int n = 1; n <= 13; ++n) counts.push_back(n);
    for (const llm::Config& config : shapes)
        for (const DType dtype : {DType::f32, DType::q8_0, DType::q4_0}) {
            llm::LoadOptions options;
            options.dtype = dtype;
            options.threads = 2;
            Logits expected;
            for (const detail::Kernels* set : detail::available_kernels()) {
                const Environment forced("LLM_SIMD", set->name);
                const Model model = Model::random(config, options, 1);
                Logits got;
                for (const int n : thinned(counts)) {
                    Session session(model, 0, 2);
                    const Logits some = logits_of(session, Random{7}.tokens(n, config.vocab_size));
                    got.insert(got.end(), some.begin(), some.end());
                }
                if (expected.empty()) expected = got;
                CAPTURE(std::string(set->name));
                CAPTURE(config.hidden_size);
                CAPTURE(name_of(dtype));
                CHECK((got == expected));
            }
        }
}

}  // namespace
}  // namespace tests
