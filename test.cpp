// build/test: the tests of llm.h, main.cpp and bench.cpp. What they compare with lies in testdata/ (numbers of the
// reference, Hugging Face transformers in F32) and in models/. Sections, in this order:
//
//     helpers        numbers     kernels              model files    tokenizers    golden numbers
//     sampling       generate    the command lines    refused input  lookup, chat and saved sessions
//     examples and builds        README     robustness (robust_tests.cpp)
//
// Tests of real models run where these are: models/gemma-3-270m-q4_k_m.gguf (`make gemma` gets it), and a directory
// that the environment's LLM_REAL names (~/.cache/llm-real if it does not) with gemma-3-270m-hf/ and gpt2-124m/.
// LLM_REAL=none leaves them out.
// LLM_FIXTURES may name a directory of more model files with a golden.json like testdata/layouts/golden.json.

#define DOCTEST_CONFIG_IMPLEMENT
#if __has_include(<doctest/doctest.h>)
#include <doctest/doctest.h>
#else
#include <doctest.h>
#endif

#define LLM_IMPLEMENTATION
#include "llm.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

#include <cstdlib>
#include <fstream>
#include <set>

#if defined(__has_feature)
#define LLM_HAS(feature) __has_feature(feature)
#else
#define LLM_HAS(feature) 0
#endif
#if defined(__SANITIZE_THREAD__) || LLM_HAS(thread_sanitizer)
#define LLM_TSAN 1
#else
#define LLM_TSAN 0
#endif
#if defined(__SANITIZE_ADDRESS__) || LLM_HAS(address_sanitizer)
#define LLM_ASAN 1
#else
#define LLM_ASAN 0
#endif

namespace fs = std::filesystem;
namespace detail = llm::detail;
using detail::Json, detail::JsonDocument, detail::TensorType, detail::usize;
using llm::DType, llm::Model, llm::Session, llm::Tokenizer;

namespace {

// ==== HELPERS ========================================================================================================

// This program's own path; the repository is found above it.
fs::path& program() {
    static fs::path path;
    return path;
}

const fs::path& repository() {
    static const fs::path found = [] {
        for (fs::path p = fs::absolute(program()).parent_path(); p != p.root_path(); p = p.parent_path())
            if (fs::exists(p / "llm.h") && fs::exists(p / "testdata")) return p;
        return fs::current_path();
    }();
    return found;
}
fs::path testdata() { return repository() / "testdata"; }
std::string tiny(const std::string& name) { return (repository() / "models" / name).string(); }
const std::string kTinyModels[] = {"gpt2-tiny", "gemma3-tiny"};

std::string environment(const char* name, const std::string& otherwise = "") {
    const char* value = std::getenv(name);
    return value && *value ? value : otherwise;
}

// Where a real model is, or an empty path after a message that its tests are left out.
fs::path real_model(const std::string& name) {
    const fs::path places[] = {environment("LLM_REAL", environment("HOME") + "/.cache/llm-real"),
                               repository() / "models"};
    for (const fs::path& place : places)
        if (places[0] != "none" && fs::exists(place / name)) return place / name;
    MESSAGE("skipped, " << name << " is not here");
    return {};
}
const char* const kRealGemma = "gemma-3-270m-q4_k_m.gguf";

std::string read_file(const fs::path& path) {
    std::ifstream in(path, std::ios::binary);
    REQUIRE_MESSAGE(in, path.string());
    return {std::istreambuf_iterator<char>(in), {}};
}
void write_file(const fs::path& path, std::string_view bytes) {
    std::ofstream out(path, std::ios::binary);
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    REQUIRE_MESSAGE(out.flush(), path.string());
}
JsonDocument read_json(const fs::path& path) { return JsonDocument(read_file(path), path.string()); }

// Where a sanitizer makes each round of a long test slow, one of so many is done.
constexpr int kThinned = LLM_TSAN ? 12 : LLM_ASAN ? 4 : 1;

template <class T> std::vector<T> thinned(const std::vector<T>& all) {
    std::vector<T> some;
    for (std::size_t i = 0; i < all.size(); i += kThinned) some.push_back(all[i]);
    return some;
}

const std::vector<DType> kDTypes = LLM_TSAN ? std::vector{DType::q8_0} : std::vector{DType::f32, DType::q8_0};

std::vector<int> ints(const Json& array) {
    std::vector<int> out;
    for (const Json& value : array.array()) out.push_back(static_cast<int>(value.number()));
    return out;
}
std::vector<float> floats(const Json& array) {
    std::vector<float> out;
    for (const Json& value : array.array()) out.push_back(static_cast<float>(value.number()));
    return out;
}
std::string text(const Json& object, const char* key) { return std::string(object.find(key)->string()); }

struct TemporaryDirectory {
    fs::path path;
    TemporaryDirectory() {
        std::string name = (fs::temp_directory_path() / "llm-test-XXXXXX").string();
        REQUIRE(mkdtemp(name.data()));
        path = name;
    }
    ~TemporaryDirectory() { fs::remove_all(path); }
    TemporaryDirectory(const TemporaryDirectory&) = delete;
    TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
};

// Sets an environment variable until the end of the scope.
class Environment {
  public:
    Environment(const char* name, const std::string& value) : name_(name), before_(environment(name)) {
        setenv(name, value.c_str(), 1);
    }
    ~Environment() { before_.empty() ? unsetenv(name_) : setenv(name_, before_.c_str(), 1); }
    Environment(const Environment&) = delete;
    Environment& operator=(const Environment&) = delete;
  private:
    const char* name_;
    std::string before_;
};

struct Random {
    std::uint64_t state;
    float uniform(float lowest, float highest) {
        return lowest + (highest - lowest) * static_cast<float>(detail::next_uniform(state));
    }
    int below(int n) { return static_cast<int>(detail::next_random(state) % static_cast<unsigned>(n)); }
    std::vector<int> tokens(int count, int vocab) {
        std::vector<int> ids(usize(count));
        for (int& id : ids) id = below(vocab);
        return ids;
    }
};

Model load(const fs::path& path, DType dtype = DType::q8_0, int threads = 2) {
    llm::LoadOptions options;
    options.dtype = dtype;
    options.threads = threads;
    return Model::load(path.string(), options);
}
std::string name_of(DType dtype) { return dtype == DType::f32 ? "f32" : "q8_0"; }

using Logits = std::vector<std::vector<float>>;  // [tokens][vocab_size]

// The logits after each of the tokens, which the session gets in pieces of this size.
Logits logits_of(Session& session, const std::vector<int>& ids, std::size_t piece = SIZE_MAX) {
    Logits out;
    const auto vocab = usize(session.model().config().vocab_size);
    for (std::size_t done = 0; done < ids.size();) {
        const std::size_t n = std::min(piece, ids.size() - done);
        session.forward_each(ids.data() + done, static_cast<int>(n),
                             [&](int, const float* logits) { out.emplace_back(logits, logits + vocab); });
        done += n;
    }
    return out;
}

std::vector<float> last_logits(Session& session, const std::vector<int>& ids) {
    const float* logits = session.forward(ids.data(), static_cast<int>(ids.size()));
    return {logits, logits + session.model().config().vocab_size};
}

// The largest distance; infinite if the sizes differ or a value is no number.
float distance(const std::vector<float>& a, const std::vector<float>& b) {
    if (a.size() != b.size()) return INFINITY;
    float largest = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        const float d = std::fabs(a[i] - b[i]);
        if (!(d <= largest)) largest = std::isnan(d) ? INFINITY : d;
    }
    return largest;
}
float distance(const Logits& a, const Logits& b) {
    if (a.size() != b.size()) return INFINITY;
    float largest = 0;
    for (std::size_t i = 0; i < a.size(); ++i) largest = std::max(largest, distance(a[i], b[i]));
    return largest;
}

int argmax(const std::vector<float>& x) { return static_cast<int>(std::max_element(x.begin(), x.end()) - x.begin()); }

double log_sum_exp(const std::vector<float>& x) {
    const double highest = *std::max_element(x.begin(), x.end());
    double sum = 0;
    for (const float v : x) sum += std::exp(v - highest);
    return highest + std::log(sum);
}

// What a call throws, or "" if it throws nothing. Anything but llm::Error is not caught.
template <class Call> std::string error_of(const Call& call) {
    try {
        call();
    } catch (const llm::Error& e) {
        return e.what();
    }
    return "";
}

// ==== NUMBERS ========================================================================================================

// testdata/blocks/TYPE.bin: 5 blocks (of random bytes, of zeros, of ones; large, small and negative scales), and then
// the F32 values that the Python package gguf reads from them.
TEST_CASE("dequantization gives the reference's values, bit for bit") {
    int types = 0;
    for (const auto& entry : fs::directory_iterator(testdata() / "blocks")) {
        const std::string name = entry.path().stem().string(), bytes = read_file(entry.path());
        CAPTURE(name);
        const TensorType type = detail::find_type([&](const detail::TypeTraits& t) { return name == t.name; });
        REQUIRE(type != TensorType::other);
        const detail::TypeTraits& traits = detail::traits(type);
        const int n = 5;
        REQUIRE(bytes.size() == usize(n) * (usize(traits.bytes) + usize(traits.block) * sizeof(float)));
        std::vector<float> expected(usize(n * traits.block)), got(expected.size() + 1, 123.0f);
        std::memcpy(expected.data(), bytes.data() + n * traits.bytes, expected.size() * sizeof(float));
        traits.to_f32(reinterpret_cast<const std::uint8_t*>(bytes.data()), got.data(), n);
        CHECK(got.back() == 123.0f);
        got.pop_back();
        CHECK(got == expected);
        ++types;
    }
    CHECK(types == 10);
}

TEST_CASE("F16 and BF16 to F32 and back") {
    for (std::uint32_t bits = 0; bits < 65536; ++bits) {
        const auto half = static_cast<std::uint16_t>(bits);
        const float value = detail::f16_to_f32(half);
        const int exponent = half >> 10 & 31, fraction = half & 1023;
        const double magnitude = exponent == 31  ? (fraction ? NAN : INFINITY)
                                 : exponent == 0 ? std::ldexp(fraction, -24)
                                                 : std::ldexp(1024 + fraction, exponent - 25);
        const bool good = std::isnan(magnitude)
                              ? std::isnan(value) && std::isnan(detail::f16_to_f32(detail::f32_to_f16(value)))
                              : value == std::copysign(static_cast<float>(magnitude), half & 0x8000 ? -1.0f : 1.0f) &&
                                    detail::f32_to_f16(value) == half;
        if (!good) FAIL("F16 " << bits);
    }
    // Between neighbours the nearer one, of equally near ones the even one; beyond the largest, infinity.
    for (std::uint16_t half = 0; half < 0x7BFF; ++half) {
        const float low = detail::f16_to_f32(half), high = detail::f16_to_f32(static_cast<std::uint16_t>(half + 1));
        const float middle = (low + high) / 2;
        const bool good = detail::f32_to_f16(middle) == (half & 1 ? half + 1 : half) &&
                          detail::f32_to_f16(std::nextafter(middle, low)) == half &&
                          detail::f32_to_f16(std::nextafter(middle, high)) == half + 1;
        if (!good) FAIL("F16 beyond " << half);
    }
    CHECK(detail::f32_to_f16(65519.996f) == 0x7BFF);
    CHECK(detail::f32_to_f16(65520.0f) == 0x7C00);
    CHECK(detail::f32_to_f16(-1e30f) == 0xFC00);
    CHECK(detail::bf16_to_f32(0x3FC0) == 1.5f);
    CHECK(detail::bf16_to_f32(0xFF80) == -INFINITY);
}

// ==== KERNELS ========================================================================================================
//
// Each kernel set against `scalar`: the same inputs, and all outputs within rounding, for every size at which a vector
// or a tile begins or ends. Outputs are followed by a few cells that must stay as they are.

constexpr std::size_t kGuard = 19;

// What the kernels get: numbers of a kind, always the same ones for the same seed.
struct Input {
    enum Kind { ordinary, zeros, large, small, spikes };
    Kind kind;
    Random random;

    float value() {
        const float x = random.uniform(-2, 2);
        switch (kind) {
            case zeros: return 0;
            case large: return x * 1e12f;
            case small: return x * 1e-20f;
            case spikes: return random.below(7) ? x * 1e-3f : x * 1e3f;
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
    out.insert(out.end(), std::begin(block.q), std::end(block.q));
}

// Q8_0 products of groups with m tokens. Weights and activations are random bytes, or all at an end of their range.
std::vector<float> product_q8(const detail::Kernels& k, int groups, int blocks, int m, Input& in) {
    std::vector<detail::WeightBlock> w(usize(groups * blocks));
    std::vector<detail::ActivationBlock> x(usize(blocks * m));
    const bool extreme = in.kind == Input::large;
    for (detail::WeightBlock& block : w) {
        for (auto& scale : block.scale) scale = detail::f32_to_f16(in.random.uniform(-0.1f, 0.1f));
        for (auto& columns : block.w)
            for (auto& row : columns)
                for (auto& value : row)
                    value = static_cast<std::uint8_t>(extreme ? 255 * in.random.below(2) : in.random.below(256));
    }
    for (detail::ActivationBlock& block : x) {
        block.scale = in.kind == Input::zeros ? 0 : in.random.uniform(0, 1);
        block.offset = 0;
        for (auto& value : block.q) {
            value = static_cast<std::int8_t>(extreme ? 254 * in.random.below(2) - 127 : in.random.below(255) - 127);
            block.offset -= 128 * value;
        }
    }
    const std::size_t stride = usize(groups * detail::kGroup) + 3;
    std::vector<float> y = guarded(m * static_cast<int>(stride));
    k.product_q8({w.data(), groups, blocks, x.data(), m, y.data(), stride});
    return y;
}

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

struct KernelTest {
    const char* name;
    float tolerance;  // of the largest output
    std::vector<float> (*run)(const detail::Kernels& k, int n, Input& in);
};

const KernelTest kKernelTests[] = {
    {"product_q8", 1e-6f,
     [](const detail::Kernels& k, int n, Input& in) {
         return all_counts([&](int m) { return product_q8(k, n % 4 + 1, n % 6 + 1, m, in); });
     }},
    {"product_f32", 2e-6f,
     [](const detail::Kernels& k, int n, Input& in) {
         return all_counts([&](int m) { return product_float<float>(k.product_f32, n, m, in); });
     }},
    {"product_f16", 2e-6f,
     [](const detail::Kernels& k, int n, Input& in) {
         return all_counts([&](int m) { return product_float<std::uint16_t>(k.product_f16, n, m, in); });
     }},
    {"quantize", 0,
     [](const detail::Kernels& k, int n, Input& in) {
         const std::vector<float> x = in.values(n);
         const int step = n % 3 + 1;
         std::vector<detail::ActivationBlock> blocks(usize((n / detail::kBlock + 2) * step));
         for (auto& block : blocks) block = {7, 7, {7}};
         k.quantize(x.data(), n, blocks.data(), step);
         std::vector<float> y;
         for (const auto& block : blocks) append(y, block);
         return y;
     }},
    {"rms_norm", 1e-6f,
     [](const detail::Kernels& k, int n, Input& in) {
         const std::vector<float> x = in.values(n), w = in.values(n);
         std::vector<float> y = guarded(n);
         k.rms_norm(x.data(), w.data(), 1e-6f, n, y.data());
         return y;
     }},
    {"center", 2e-5f,  // x - mean cancels
     [](const detail::Kernels& k, int n, Input& in) {
         const std::vector<float> x = in.values(n);
         std::vector<float> y = guarded(n);
         k.center(x.data(), n, y.data());
         return y;
     }},
    {"gelu", 1e-6f,
     [](const detail::Kernels& k, int n, Input& in) {
         std::vector<float> y = guarded(in.values(n));
         k.gelu(y.data(), nullptr, n, y.data());
         return y;
     }},
    {"gelu * up", 1e-6f,
     [](const detail::Kernels& k, int n, Input& in) {
         const std::vector<float> x = in.values(n), up = in.values(n);
         std::vector<float> y = guarded(n);
         k.gelu(x.data(), up.data(), n, y.data());
         return y;
     }},
    {"rotate", 1e-6f,
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
    {"softmax", 2e-6f,
     [](const detail::Kernels& k, int n, Input& in) {
         std::vector<float> x = in.values(n);
         float max = in.value(), sum = 3;
         x = guarded(std::move(x));
         const float shrink = k.softmax(x.data(), n, max, sum);
         for (const float v : {shrink, max == 0 ? 0 : 1 / max, sum / static_cast<float>(n)}) x.push_back(v);
         return x;
     }},
    {"axpy", 1e-6f,
     [](const detail::Kernels& k, int n, Input& in) {
         const std::vector<float> x = in.values(n);
         std::vector<float> y = guarded(in.values(n));
         k.axpy(in.random.uniform(-1, 1), x.data(), n, y.data());
         return y;
     }},
    {"scale", 0,
     [](const detail::Kernels& k, int n, Input& in) {
         std::vector<float> y = guarded(in.values(n));
         k.scale(in.random.uniform(-1, 1), n, y.data());
         return y;
     }},
    {"to_f16", 0,
     [](const detail::Kernels& k, int n, Input& in) {
         const std::vector<float> x = in.values(n);
         std::vector<std::uint16_t> y(x.size() + kGuard, 77);
         k.to_f16(x.data(), n, y.data());
         return as_floats(y);
     }},
};

TEST_CASE("kernels equal the scalar ones") {
    const int sizes[] = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 96, 127, 128, 129, 255, 640};
    const std::vector kinds = {Input::ordinary, Input::zeros, Input::large, Input::small, Input::spikes};
    const auto sets = detail::available_kernels();
    for (const detail::Kernels* set : sets) {
        for (const KernelTest& test : kKernelTests)
            for (const int n : sizes)
                for (const auto kind : thinned(kinds)) {
                    const std::uint64_t seed = usize(n) * 8 + kind;
                    Input a{kind, {seed}}, b{kind, {seed}};
                    const std::vector<float> expected = test.run(detail::scalar::kernels, n, a);
                    float largest = 0;
                    for (const float x : expected) largest = std::max(largest, std::fabs(x));
                    REQUIRE(std::isfinite(largest));
                    CAPTURE(std::string(set->name));
                    CAPTURE(std::string(test.name));
                    CAPTURE(n);
                    CAPTURE(int{kind});
                    CHECK(distance(test.run(*set, n, b), expected) <= test.tolerance * largest);
                }
    }
    MESSAGE(sets.size() << " sets of kernels, the best is " << std::string(sets.back()->name));
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

llm::Config shape(const std::string& architecture, int hidden, int heads, int kv_heads, int head_dim, int ffn) {
    llm::Config c;
    c.architecture = architecture;
    c.vocab_size = 77;
    c.context_length = 90;
    c.hidden_size = hidden;
    c.intermediate_size = ffn;
    c.num_layers = 2;
    c.num_heads = heads;
    c.num_kv_heads = kv_heads;
    c.head_dim = head_dim;
    c.attention_scale = 1 / std::sqrt(static_cast<float>(head_dim));
    c.rope_theta = 1e6f;
    c.rope_local_theta = 1e4f;
    c.sliding_window = 5;
    c.is_local = {architecture == "gemma3", false};
    return c;
}

TEST_CASE("all kernel sets give the same logits, for shapes that fill no vector and every number of tokens") {
    const llm::Config shapes[] = {
        shape("gpt2", 40, 4, 4, 10, 50),    shape("gpt2", 34, 1, 1, 34, 31),
        shape("gpt2", 96, 3, 3, 32, 200),   shape("gemma3", 48, 3, 1, 18, 72),
        shape("gemma3", 65, 4, 2, 64, 129), shape("gemma3", 1, 1, 1, 2, 1),
        shape("gemma3", 17, 15, 1, 34, 16), shape("gemma3", 128, 5, 5, 16, 47),
    };
    std::vector<int> counts = {25, 31, 90};
    for (int n = 1; n <= 13; ++n) counts.push_back(n);
    for (const llm::Config& config : shapes)
        for (const DType dtype : {DType::f32, DType::q8_0}) {
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
                // An activation on the edge between two integers may become either one.
                CHECK(distance(got, expected) < (dtype == DType::f32 ? 2e-5f : 0.2f));
            }
        }
}

// ==== MODEL FILES ====================================================================================================

// Writes GGUF files: whole models in other formats than those in testdata/, and damaged ones.
struct Gguf {
    enum Type : std::uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };
    struct Pair {
        std::string key;
        std::uint32_t type;
        std::string bytes;
    };
    struct Tensor {
        std::string name;
        std::vector<std::uint64_t> shape;  // outermost first
        std::uint32_t type;
        std::string bytes;
        std::uint64_t shift = 0;  // added to the right offset
    };
    std::uint32_t version = 3;
    std::vector<Pair> pairs;
    std::vector<Tensor> tensors;
    std::uint64_t extra_tensors = 0, extra_pairs = 0;  // counted, but not there

    template <class T> static std::string raw(T value) { return {reinterpret_cast<const char*>(&value), sizeof value}; }
    static std::string raw(const std::string& s) { return raw(std::uint64_t{s.size()}) + s; }
    template <class T> static std::string raw_array(std::uint32_t type, const std::vector<T>& items) {
        std::string bytes = raw(type) + raw(std::uint64_t{items.size()});
        for (const T& item : items) bytes += raw(item);
        return bytes;
    }
    Pair& pair(const std::string& key) {
        for (Pair& p : pairs)
            if (p.key == key) return p;
        return pairs.emplace_back(Pair{key, u32, ""});
    }
    Tensor& tensor(const std::string& name) {
        for (Tensor& t : tensors)
            if (t.name == name) return t;
        throw std::logic_error("no tensor " + name);
    }
    void set(const std::string& key, std::uint32_t type, std::string bytes) { pair(key) = {key, type, bytes}; }
    void set(const std::string& key, int value) { set(key, u32, raw(static_cast<std::uint32_t>(value))); }
    void set(const std::string& key, float value) { set(key, f32, raw(value)); }
    void set(const std::string& key, const std::string& value) { set(key, string, raw(value)); }
    void set(const std::string& key, bool value) { set(key, boolean, raw(std::uint8_t{value})); }
    void remove(const std::string& key) {
        pairs.erase(std::remove_if(pairs.begin(), pairs.end(), [&](const Pair& p) { return p.key == key; }));
    }

    std::string bytes() const {
        constexpr std::size_t kAlignment = 32;
        const auto pad = [](std::string& s) { s.resize((s.size() + kAlignment - 1) / kAlignment * kAlignment); };
        std::string head = "GGUF" + raw(version) + raw(tensors.size() + extra_tensors), data;
        head += raw(pairs.size() + extra_pairs);
        for (const Pair& p : pairs) head += raw(p.key) + raw(p.type) + p.bytes;
        for (const Tensor& t : tensors) {
            head += raw(t.name) + raw(static_cast<std::uint32_t>(t.shape.size()));
            for (std::size_t i = t.shape.size(); i-- > 0;) head += raw(t.shape[i]);
            head += raw(t.type) + raw(data.size() + t.shift);
            data += t.bytes;
            pad(data);
        }
        pad(head);
        return head + data;
    }
};

std::vector<float> values_of(const detail::Tensor& t) {
    const detail::TypeTraits& type = detail::traits(t.type);
    std::vector<std::uint8_t> raw(usize(t.bytes));
    t.file->read(t.offset, raw.data(), raw.size());
    std::vector<float> out(usize(t.elements()));
    type.to_f32(raw.data(), out.data(), static_cast<std::int64_t>(t.elements()) / type.block);
    return out;
}

std::string encoded(const std::vector<float>& values, TensorType type) {
    std::string bytes;
    for (const float v : values) {
        if (type == TensorType::f32) bytes += Gguf::raw(v);
        if (type == TensorType::f16) bytes += Gguf::raw(detail::f32_to_f16(v));
        if (type == TensorType::bf16) bytes += Gguf::raw(static_cast<std::uint16_t>(detail::f32_to_bits(v) >> 16));
    }
    return bytes;
}

// Names of tensors in Hugging Face's files and in GGUF; in layers, behind their prefix.
const std::map<std::string, std::string> kGgufNames = {
    {"wte", "token_embd"},
    {"wpe", "position_embd"},
    {"ln_f", "output_norm"},
    {"ln_1", "attn_norm"},
    {"ln_2", "ffn_norm"},
    {"attn.c_attn", "attn_qkv"},
    {"attn.c_proj", "attn_output"},
    {"mlp.c_fc", "ffn_up"},
    {"mlp.c_proj", "ffn_down"},
    {"embed_tokens", "token_embd"},
    {"norm", "output_norm"},
    {"input_layernorm", "attn_norm"},
    {"post_attention_layernorm", "post_attention_norm"},
    {"pre_feedforward_layernorm", "ffn_norm"},
    {"post_feedforward_layernorm", "post_ffw_norm"},
    {"self_attn.q_proj", "attn_q"},
    {"self_attn.k_proj", "attn_k"},
    {"self_attn.v_proj", "attn_v"},
    {"self_attn.q_norm", "attn_q_norm"},
    {"self_attn.k_norm", "attn_k_norm"},
    {"self_attn.o_proj", "attn_output"},
    {"mlp.gate_proj", "ffn_gate"},
    {"mlp.up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"},
};

// "transformer.h.3.attn.c_attn.weight" -> "blk.3.attn_qkv.weight"
std::string gguf_name(std::string name) {
    std::string prefix;
    for (const std::string part : {"transformer.", "model."})
        if (name.rfind(part, 0) == 0) name.erase(0, part.size());
    for (const std::string part : {"h.", "layers."})
        if (name.rfind(part, 0) == 0) {
            const std::size_t end = name.find('.', part.size()) + 1;
            prefix = "blk." + name.substr(part.size(), end - part.size());
            name.erase(0, end);
        }
    const std::size_t dot = name.rfind('.');
    return prefix + kGgufNames.at(name.substr(0, dot)) + name.substr(dot);
}

std::string transposed(const std::string& in, std::size_t rows, std::size_t cols, std::size_t bytes) {
    std::string out(in.size(), 0);
    for (std::size_t r = 0; r < rows; ++r)
        for (std::size_t c = 0; c < cols; ++c)
            std::copy_n(&in[(r * cols + c) * bytes], bytes, &out[(c * rows + r) * bytes]);
    return out;
}

void add_tokenizer(Gguf& out, const JsonDocument& tokenizer, bool byte_level) {
    const Json& model = *tokenizer.root().find("model");
    std::map<int, std::pair<std::string, std::int32_t>> tokens;  // id -> spelling, type
    std::map<std::string, float> scores;
    std::vector<std::string> merges;
    for (const auto& [spelling, id] : model.find("vocab")->members()) {
        const bool is_byte = !byte_level && spelling.size() == 6 && spelling.substr(0, 3) == "<0x";
        tokens[static_cast<int>(id.whole())] = {std::string(spelling), is_byte ? 6 : 1};
    }
    for (const Json& added : tokenizer.root().find("added_tokens")->array())
        tokens[static_cast<int>(added.find("id")->whole())] = {text(added, "content"),
                                                               added.find("special")->boolean() ? 3 : 4};
    for (const Json& merge : model.find("merges")->array()) {
        const std::string left(merge.array()[0].string()), right(merge.array()[1].string());
        scores.emplace(left + right, -static_cast<float>(merges.size()));
        merges.push_back(left + " " + right);
    }
    std::vector<std::string> spellings;
    std::vector<std::int32_t> types;
    std::vector<float> all_scores;
    for (const auto& [id, token] : tokens) {
        spellings.push_back(token.first);
        types.push_back(token.second);
        all_scores.push_back(scores.count(token.first) ? scores[token.first] : -1e6f);
    }
    out.set("tokenizer.ggml.model", std::string(byte_level ? "gpt2" : "llama"));
    out.set("tokenizer.ggml.tokens", Gguf::array, Gguf::raw_array(Gguf::string, spellings));
    out.set("tokenizer.ggml.token_type", Gguf::array, Gguf::raw_array(Gguf::i32, types));
    if (byte_level) out.set("tokenizer.ggml.merges", Gguf::array, Gguf::raw_array(Gguf::string, merges));
    else out.set("tokenizer.ggml.scores", Gguf::array, Gguf::raw_array(Gguf::f32, all_scores));
    out.set("tokenizer.ggml.bos_token_id", byte_level ? 767 : 2);
    out.set("tokenizer.ggml.eos_token_id", byte_level ? 767 : 1);
}

// One of the two tiny models as a GGUF whose matrices have this type.
Gguf as_gguf(const std::string& directory, TensorType type) {
    const detail::Checkpoint file = detail::open_checkpoint(directory);
    const Model model = Model::load(directory);
    const llm::Config& c = model.config();
    const bool gpt2 = c.architecture == "gpt2";
    const std::string family = gpt2 ? "gpt2" : "gemma3";
    Gguf out;
    out.set("general.architecture", family);
    out.set(family + ".context_length", c.context_length);
    out.set(family + ".embedding_length", c.hidden_size);
    out.set(family + ".block_count", c.num_layers);
    out.set(family + ".feed_forward_length", c.intermediate_size);
    out.set(family + ".attention.head_count", c.num_heads);
    if (!gpt2) {
        out.set(family + ".attention.head_count_kv", c.num_kv_heads);
        out.set(family + ".attention.key_length", c.head_dim);
        out.set(family + ".attention.value_length", c.head_dim);
        out.set(family + ".attention.sliding_window", c.sliding_window);
        out.set(family + ".attention.layer_norm_rms_epsilon", c.norm_eps);
        out.set(family + ".rope.freq_base", c.rope_theta);
    }
    add_tokenizer(out, read_json(fs::path(directory) / "tokenizer.json"), gpt2);
    for (const auto& [name, tensor] : file.tensors) {
        std::vector<float> values = values_of(tensor);
        const bool is_matrix = tensor.shape.size() == 2, is_norm = name.find("norm") != std::string::npos;
        for (float& v : values) v += is_norm ? 1.0f : 0.0f;  // Gemma's norms alone are named so
        const TensorType held = is_matrix ? type : TensorType::f32;
        Gguf::Tensor t{gguf_name(name), tensor.shape, static_cast<std::uint32_t>(detail::traits(held).gguf_id),
                       encoded(values, held)};
        if (gpt2 && is_matrix && t.name.rfind("blk.", 0) == 0) {  // Conv1D
            t.bytes = transposed(t.bytes, usize(t.shape[0]), usize(t.shape[1]), usize(detail::traits(held).bytes));
            std::swap(t.shape[0], t.shape[1]);
        }
        out.tensors.push_back(std::move(t));
    }
    return out;
}

// Every model of a directory with a golden.json: its tokens, and its logits in F32 and Q8_0. Those that are in testdata/
// as well are left out elsewhere.
int check_layouts(const fs::path& directory) {
    const JsonDocument golden = read_json(directory / "golden.json");
    const fs::path ours = testdata() / "layouts";
    int models = 0;
    for (const auto& [key, cases] : golden.root().members()) {
        const std::string name(key);
        if (directory != ours && fs::exists(ours / name)) continue;
        CAPTURE(name);
        const std::string path = (directory / name).string();
        const Model exact = load(path, DType::f32), quantized = load(path, DType::q8_0);
        Session session(exact), rounded(quantized);
        for (const Json& one : cases.array()) {
            const std::vector<int> ids = ints(*one.find("ids"));
            CHECK(exact.tokenizer().encode(text(one, "prompt")) == ids);
            session.rewind(0);
            rounded.rewind(0);
            const std::vector<float> expected = floats(*one.find("logits"));
            CHECK(distance(last_logits(session, ids), expected) < 1e-3f);
            CHECK(distance(last_logits(rounded, ids), expected) < 0.5f);
        }
        ++models;
    }
    return models;
}

TEST_CASE("layouts of model files give the reference's logits") {
    CHECK(check_layouts(testdata() / "layouts") == 7);
    const std::string more = environment("LLM_FIXTURES");
    if (more.empty()) MESSAGE("skipped, LLM_FIXTURES names no other model files");
    else CHECK(check_layouts(more) > 0);
}

TEST_CASE("GGUF of F32, F16 and BF16, version 2 and 3, is the same model as the directory it was made from") {
    const TemporaryDirectory directory;
    const std::string path = (directory.path / "model.gguf").string();
    struct {
        std::string name;
        TensorType type;
        std::uint32_t version;
    } const cases[] = {
        {"gpt2-tiny", TensorType::f16, 3},
        {"gpt2-tiny", TensorType::f32, 2},
        {"gemma3-tiny", TensorType::bf16, 2},
        {"gemma3-tiny", TensorType::f32, 3},
    };
    for (const auto& one : cases) {
        const std::string original = tiny(one.name);
        CAPTURE(original);
        Gguf file = as_gguf(original, one.type);
        file.version = one.version;
        write_file(path, file.bytes());
        for (const DType dtype : {DType::f32, DType::q8_0}) {
            const Model expected = load(original, dtype), got = load(path, dtype);
            const std::vector<int> ids = expected.tokenizer().encode("Shall I compare thee to a summer's day?");
            CHECK(got.tokenizer().encode("Shall I compare thee to a summer's day?") == ids);
            Session a(expected), b(got);
            CHECK(distance(logits_of(a, ids), logits_of(b, ids)) < 1e-5f);
            CHECK(got.info().format == "GGUF v" + std::to_string(one.version));
            CHECK(got.info().tensors.count(detail::traits(one.type).name) == 1);
        }
    }
}

TEST_CASE("a model is found by its directory and by its .safetensors file") {
    const std::vector<int> ids = {5, 6, 7};
    Session a(load(tiny("gpt2-tiny"))), b(load(tiny("gpt2-tiny/model.safetensors")));
    CHECK(last_logits(a, ids) == last_logits(b, ids));
}

TEST_CASE("info says what was in the file and what it became") {
    struct {
        std::string path;
        DType dtype;
        const char* format;
        int quantized, exact, fused, ignored;
    } const cases[] = {
        {tiny("gpt2-tiny"), DType::q8_0, "safetensors", 1 + 4 * 4, 0, 0, 0},
        {tiny("gpt2-tiny"), DType::f32, "safetensors", 0, 1 + 4 * 4, 0, 0},
        {tiny("gemma3-tiny"), DType::q8_0, "safetensors", 1 + 6 * 4, 0, 6 * 5, 0},
        {testdata() / "layouts/gemma3-mm", DType::q8_0, "safetensors, 2 shards", 1 + 7 * 4, 0, 7 * 5, 2},
        {testdata() / "layouts/gpt2-odd", DType::q8_0, "safetensors", 2 + 3 * 4, 0, 0, 3},
        {testdata() / "layouts/gemma3-q8_0.gguf", DType::q8_0, "GGUF v3", 0, 1 + 3 * 4, 3 * 5, 0},
        {testdata() / "layouts/gemma3-q2_k.gguf", DType::q8_0, "GGUF v3", 1 + 3 * 4, 0, 3 * 5, 0},
    };
    for (const auto& one : cases) {
        CAPTURE(one.path);
        const Model model = load(one.path, one.dtype);
        const llm::ModelInfo& info = model.info();
        CHECK(info.format == one.format);
        CHECK(info.quantized == one.quantized);
        CHECK(info.exact == one.exact);
        CHECK(info.fused == one.fused);
        CHECK(info.ignored == one.ignored);
        CHECK(model.dtype() == one.dtype);
        CHECK(info.weight_bytes >= info.parameters * (one.dtype == DType::f32 ? 4 : 1));
    }
    CHECK(load(tiny("gpt2-tiny")).info().parameters == 924416);
}

TEST_CASE("loading reports its progress from 0 to 1") {
    std::vector<float> steps;
    llm::LoadOptions options;
    options.progress = [&](float done, const char* what) {
        CHECK(std::string(what) != "");
        steps.push_back(done);
    };
    Model::load(tiny("gpt2-tiny"), options);
    CHECK(steps.size() > 10);
    CHECK(steps.front() == 0);
    CHECK(steps.back() == 1);
    CHECK(std::is_sorted(steps.begin(), steps.end()));
}

// ==== TOKENIZERS =====================================================================================================

struct Text {
    std::string text;
    std::vector<int> ids;
};

// The 400 texts of testdata/tok-NAME.jsonl with the ids of the reference, which are those of the real vocabulary.
std::vector<Text> texts(const std::string& name) {
    std::istringstream lines(read_file(testdata() / ("tok-" + name + ".jsonl")));
    std::vector<Text> all;
    for (std::string line; std::getline(lines, line);) {
        const JsonDocument document(line, name);
        all.push_back({text(document.root(), "text"), ints(*document.root().find("ids"))});
    }
    REQUIRE(all.size() == 400);
    return all;
}

TEST_CASE("real vocabularies give the reference's ids, and 1 MB of anything takes no time to speak of") {
    const std::pair<const char*, std::string> cases[] = {
        {"gpt2", "gpt2-124m"}, {"gemma3", kRealGemma}, {"gemma3", "gemma-3-270m-hf"}};
    for (const auto& [name, file] : cases) {
        const fs::path path = real_model(file);
        if (path.empty()) continue;
        CAPTURE(path);
        const Model model = load(path);
        for (const Text& one : texts(name)) {
            CAPTURE(one.text);
            CHECK(model.tokenizer().encode(one.text, false) == one.ids);
            // Gemma has one token for U+2581 and for a space.
            CHECK(detail::replace_all(model.tokenizer().decode(one.ids), "\u2581", " ") ==
                  detail::replace_all(one.text, "\u2581", " "));
        }
        for (const char* repeated : {"a", " ", "\n", "ab", "1", "\xFF"}) {
            std::string million;
            while (million.size() < 1000000) million += repeated;
            CHECK(model.tokenizer().decode(model.tokenizer().encode(million, false)) == million);
        }
    }
}

// The tiny models' tokenizers, from every kind of file that can hold them.
struct NamedTokenizer {
    std::string name;
    bool byte_level;
    Tokenizer tokenizer;
};

const std::vector<NamedTokenizer>& tiny_tokenizers() {
    static const std::vector<NamedTokenizer> all = [] {
        std::vector<NamedTokenizer> list;
        const TemporaryDirectory directory;
        const fs::path gguf = directory.path / "model.gguf";
        for (const std::string& name : kTinyModels) {
            const bool byte_level = name == "gpt2-tiny";
            list.push_back({name, byte_level, load(tiny(name)).tokenizer()});
            write_file(gguf, as_gguf(tiny(name), TensorType::f16).bytes());
            list.push_back({name + " as GGUF", byte_level, load(gguf).tokenizer()});
        }
        list.push_back({"GGUF of llama.cpp", false, load(testdata() / "layouts/gemma3-q8_0.gguf").tokenizer()});
        // vocab.json and merges.txt, as GPT-2 was published
        const JsonDocument whole = read_json(tiny("gpt2-tiny/tokenizer.json"));
        std::string vocab = "{\"<|endoftext|>\": 767", merges = "#version: 0.2\n";
        const auto quoted = [](std::string_view s) {
            return '"' + detail::replace_all(detail::replace_all(s, "\\", "\\\\"), "\"", "\\\"") + '"';
        };
        for (const auto& [spelling, id] : whole.root().find("model")->find("vocab")->members())
            vocab += ", " + quoted(spelling) + ": " + std::to_string(id.whole());
        for (const Json& merge : whole.root().find("model")->find("merges")->array())
            merges += std::string(merge.array()[0].string()) + " " + std::string(merge.array()[1].string()) + "\n";
        write_file(directory.path / "vocab.json", vocab + "}");
        write_file(directory.path / "merges.txt", merges);
        for (const char* file : {"config.json", "model.safetensors"})
            fs::copy(tiny("gpt2-tiny") + "/" + file, directory.path / file);
        list.push_back({"vocab.json and merges.txt", true, load(directory.path).tokenizer()});
        return list;
    }();
    return all;
}

TEST_CASE("a tokenizer is the same from every kind of file") {
    const std::vector<NamedTokenizer>& all = tiny_tokenizers();
    std::vector<Text> some = texts("gpt2");
    for (const Text& one : texts("gemma3")) some.push_back(one);
    for (const NamedTokenizer& one : all) {
        CAPTURE(one.name);
        const Tokenizer& first = all[one.byte_level ? 0 : 2].tokenizer;
        for (const Text& t : some)
            if (one.tokenizer.encode(t.text) != first.encode(t.text)) FAIL_CHECK("other ids of " << t.text);
        for (int id = 0; id < first.vocab_size(); ++id)
            if (one.tokenizer.piece(id) != first.piece(id)) FAIL_CHECK("another piece " << id);
        CHECK(one.tokenizer.vocab_size() == first.vocab_size());
        CHECK(one.tokenizer.bos() == first.bos());
        CHECK(one.tokenizer.find("<end_of_turn>") == first.find("<end_of_turn>"));
    }
}

// What a text should be after encode and decode. Gemma has one token for U+2581 and for a space.
std::string round_trip(const NamedTokenizer& t, const std::string& bytes) {
    return t.byte_level ? bytes : detail::replace_all(bytes, detail::kSpaceMark, " ");
}

TEST_CASE("any bytes decode back to themselves") {
    const char* const parts[] = {" ",        "  ",   "\n",  "a",      "the",    "\xC3",   "\xA9",          "\xE2\x96",
                                 "\x81",     "'s",   "123", "\u00e9", "\r\n",   "\u65e5", "<bos>",         "<",
                                 "\xF0\x9F", "\xFF", "\t",  "The",    "\u2581", "<0x0A>", "<|endoftext|>", "\xF4\x90",
                                 "\0"};
    for (const NamedTokenizer& one : thinned(tiny_tokenizers())) {
        CAPTURE(one.name);
        const auto check = [&](const std::string& bytes) {
            for (const bool parse_special : {true, false})
                if (one.tokenizer.decode(one.tokenizer.encode(bytes, false, parse_special)) != round_trip(one, bytes))
                    FAIL_CHECK("not decoded to itself: " << bytes);
        };
        for (int a = 0; a < 256; ++a) {
            check({static_cast<char>(a)});
            for (int b = a % kThinned; b < 256; b += kThinned) check({static_cast<char>(a), static_cast<char>(b)});
        }
        Random random{1};
        for (int i = 0; i < 5000 / kThinned; ++i) {
            std::string bytes, pieces;
            for (int n = random.below(30); n > 0; --n) {
                bytes += static_cast<char>(random.below(256));
                pieces += parts[random.below(std::size(parts))];
            }
            check(bytes);
            check(pieces);
        }
    }
}

// The numbers are those of the patterns \p{L}, \p{N} and \s of the reference, the Python package tokenizers.
TEST_CASE("every character is a letter, a number, white space or neither, as in the reference") {
    std::map<detail::CharClass, int> count;
    std::uint64_t hash = 0xCBF29CE484222325u;  // FNV-1a of all classes in turn
    for (std::uint32_t c = 0; c < 0x110000; ++c) {
        if (c >= 0xD800 && c < 0xE000) continue;  // surrogates are no characters
        std::string character;
        detail::utf8_append(character, c);
        std::size_t length = 0;
        const detail::CharClass kind = detail::class_at(character, 0, length);
        if (length != character.size()) FAIL("code point " << c);
        ++count[kind];
        const unsigned number = kind == detail::CharClass::letter   ? 1
                                : kind == detail::CharClass::space  ? 2
                                : kind == detail::CharClass::number ? 3
                                                                    : 0;
        hash = (hash ^ number) * 0x100000001B3u;
    }
    CHECK(count[detail::CharClass::letter] == 141028);
    CHECK(count[detail::CharClass::number] == 1911);
    CHECK(count[detail::CharClass::space] == 25);
    CHECK(hash == 0x5FBE39043182D402u);
}

TEST_CASE("all of Unicode decodes back to itself") {
    for (const NamedTokenizer& one : thinned(tiny_tokenizers())) {
        CAPTURE(one.name);
        for (std::uint32_t first = 0; first < 0x110000; first += 0x1000 * kThinned) {
            std::string all;
            for (std::uint32_t c = first; c < first + 0x1000; ++c)
                if (c < 0xD800 || c > 0xDFFF) detail::utf8_append(all, c);
            if (one.tokenizer.decode(one.tokenizer.encode(all, false)) != round_trip(one, all))
                FAIL_CHECK("not decoded to itself: from code point " << first);
        }
    }
}

TEST_CASE("a long text takes little more than linear time") {
    for (const NamedTokenizer& one : thinned(tiny_tokenizers()))
        for (const std::string repeated : {"a", " ", "\n", "he", "\xFF", "\u00e9", "<bos", "'"}) {
            CAPTURE(one.name);
            std::string million;
            while (million.size() < 1000000 / kThinned) million += repeated;
            CHECK((one.tokenizer.decode(one.tokenizer.encode(million, false)) == million));
        }
}

TEST_CASE("special tokens are parsed on request, and begin a text where the model wants it") {
    const Tokenizer gpt2 = load(tiny("gpt2-tiny")).tokenizer(), gemma = load(tiny("gemma3-tiny")).tokenizer();
    CHECK(gpt2.bos() == 767);
    CHECK(gemma.bos() == 2);
    CHECK(gpt2.encode("") == std::vector<int>{});
    CHECK(gemma.encode("") == std::vector<int>{2});
    CHECK(gpt2.encode("<|endoftext|>") == std::vector<int>{767});
    CHECK(gemma.encode("<bos><end_of_turn>", false) == std::vector<int>{2, 5});
    CHECK(gemma.encode("<start_of_turn>user", false)[0] == 4);
    const std::string texts_with_specials[] = {"<|endoftext|>", "a<bos>b<eos>", "<start_of_turn>user\n<end_of_turn>"};
    for (const std::string& s : texts_with_specials) {
        for (const int id : gpt2.encode(s, true, false)) CHECK(id != 767);
        for (const int id : gemma.encode(s, false, false)) CHECK(id > 5);
    }
    CHECK(gpt2.encode("a<|endoftext|>b").size() == 3);
    for (int id = 0; id < 768; ++id) CHECK(gpt2.is_end(id) == (id == 767));
    for (int id = 0; id < 1024; ++id) CHECK(gemma.is_end(id) == (id == 1 || id == 5));
    CHECK(gemma.find("<eos>") == 1);
    CHECK(gemma.find("<eo") == -1);
    CHECK(gemma.find("the") == -1);  // a token, but not an added one
    CHECK(gemma.find("") == -1);
}

TEST_CASE("an id that is no token is refused") {
    for (const NamedTokenizer& one : tiny_tokenizers())
        for (const int id : {-1, one.tokenizer.vocab_size(), INT_MAX, INT_MIN}) {
            CHECK(error_of([&] { one.tokenizer.piece(id); }).find(std::to_string(id)) != std::string::npos);
            CHECK(error_of([&] { one.tokenizer.decode({1, id}); }).find(std::to_string(id)) != std::string::npos);
        }
}

// ==== GOLDEN NUMBERS =================================================================================================

// A model beside its golden file, and how far F32 logits and the perplexity of Q8_0 may be from it.
struct Golden {
    std::string name;  // of testdata/golden/NAME.json
    fs::path path;
    float logits;
    double perplexity_q8_0;
};

std::vector<Golden> golden_models() {
    std::vector<Golden> all = {{"gpt2-tiny", tiny("gpt2-tiny"), 3e-4f, 0.02},
                               {"gemma3-tiny", tiny("gemma3-tiny"), 3e-4f, 0.02},
                               {"gemma-3-270m", real_model(kRealGemma), 3e-3f, 0.01},
                               {"gpt2-124m", real_model("gpt2-124m"), 3e-3f, 0.01}};
    all.erase(std::remove_if(all.begin(), all.end(), [](const Golden& g) { return g.path.empty(); }), all.end());
    return all;
}

// The reference's logits after the prompt: all of them, or the 20 largest.
float distance_to_reference(const Json& one, const std::vector<float>& logits) {
    if (const Json* all = one.find("logits")) return distance(logits, floats(*all));
    float largest = 0;
    for (const Json& pair : one.find("top")->array()) {
        const auto expected = static_cast<float>(pair.array()[1].number());
        largest = std::max(largest, std::fabs(logits[usize(pair.array()[0].whole())] - expected));
    }
    return largest;
}

// Follows the reference's greedy text token by token, so that every place is compared: where the reference's first
// token leads by more than the margin, it must be the first here.
void check_greedy(Session& session, const Json& one, std::vector<float> logits, double margin) {
    const std::vector<int> greedy = ints(*one.find("greedy"));
    const std::vector<float> margins = floats(*one.find("greedy_margin"));
    for (std::size_t i = 0; i < greedy.size(); ++i) {
        CAPTURE(i);
        CAPTURE(margins[i]);
        if (margins[i] > margin) CHECK(argmax(logits) == greedy[i]);
        logits = last_logits(session, {greedy[i]});
    }
}

double perplexity(Session& session, const std::vector<int>& ids) {
    session.rewind(0);
    const Logits logits = logits_of(session, ids);
    double sum = 0;
    for (std::size_t i = 0; i + 1 < ids.size(); ++i) sum += log_sum_exp(logits[i]) - logits[i][usize(ids[i + 1])];
    return std::exp(sum / static_cast<double>(ids.size() - 1));
}

JsonDocument golden_numbers(const std::string& name) { return read_json(testdata() / "golden" / (name + ".json")); }

// F32: the logits after the prompt, and the best token at each of its positions.
void check_exact(const Golden& golden, const Json& one, const Logits& logits) {
    CHECK(distance_to_reference(one, logits.back()) < golden.logits);
    const std::vector<int> best = ints(*one.find("argmax_per_position"));
    for (std::size_t i = 0; i < best.size(); ++i) {
        CAPTURE(i);
        CHECK(*std::max_element(logits[i].begin(), logits[i].end()) - logits[i][usize(best[i])] < 2 * golden.logits);
    }
}

void check_golden(const Golden& golden, DType dtype) {
    const JsonDocument document = golden_numbers(golden.name);
    const bool exact = dtype == DType::f32;
    const Model model = load(golden.path, dtype);
    Session session(model, std::min(512, model.config().context_length));
    for (const Json& one : document.root().find("cases")->array()) {
        const std::vector<int> ids = ints(*one.find("ids"));
        CAPTURE(text(one, "prompt"));
        CHECK(model.tokenizer().encode(text(one, "prompt")) == ids);
        session.rewind(0);
        const Logits logits = logits_of(session, ids);
        if (exact) check_exact(golden, one, logits);
        check_greedy(session, one, logits.back(), exact ? 1e-3 : 1.0);
    }
    for (const Json& one : document.root().find("perplexity")->array()) {
        std::vector<int> ids = model.tokenizer().encode(text(one, "text"));
        ids.resize(std::min(ids.size(), usize(one.find("tokens")->whole())));
        const double got = perplexity(session, ids), expected = one.find("ppl")->number();
        MESSAGE(golden.name << " " << name_of(dtype) << ": perplexity " << got << ", reference " << expected);
        CHECK(std::fabs(got / expected - 1) < (exact ? 5e-4 : golden.perplexity_q8_0));
    }
}

TEST_CASE("both models give the reference's numbers in F32") {
    for (const Golden& golden : golden_models()) {
        CAPTURE(golden.name);
        check_golden(golden, DType::f32);
    }
}

TEST_CASE("both models give nearly the reference's numbers in Q8_0") {
    for (const Golden& golden : golden_models()) {
        CAPTURE(golden.name);
        check_golden(golden, DType::q8_0);
    }
}

// Activations of 8 bits make the logits uncertain by some 0.2, four times that at one position of a hundred.
TEST_CASE("the 20 largest logits of the real Gemma are within 0.7 in Q8_0") {
    const fs::path path = real_model(kRealGemma);
    if (path.empty()) return;
    Session session(load(path), 512);
    const JsonDocument document = golden_numbers("gemma-3-270m");
    for (const Json& one : document.root().find("cases")->array()) {
        CAPTURE(text(one, "prompt"));
        session.rewind(0);
        CHECK(distance_to_reference(one, last_logits(session, ints(*one.find("ids")))) < 0.7f);
    }
}

TEST_CASE("the head is the model's own where its files say so") {
    CHECK(load(tiny("gemma3-tiny")).config().tied_head);
    CHECK_FALSE(load(testdata() / "layouts/gpt2-odd").config().tied_head);
    CHECK_FALSE(load(testdata() / "layouts/gemma3-v5").config().tied_head);
}

// ---- the same text on different ways through the model

// How far logits may be apart that differ in the order of their sums only. In Q8_0 an activation on the edge between
// two integers may become either one, which all that follows carries on.
float rounding(DType dtype) { return dtype == DType::f32 ? 2e-4f : 0.3f; }

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
    std::vector<std::size_t> sizes = {47, 48, 49, 63, 64, 65, 95, 127, 128, 129, 191, 192, 193, 255, 256, 257, 500};
    for (std::size_t n = 1; n <= 40; ++n) sizes.push_back(n);
    with_long_text([&](const Model& model, const std::vector<int>& ids, const Logits& expected) {
        Session session(model, 0, 2);
        for (const std::size_t piece : thinned(sizes)) {
            session.rewind(0);
            CAPTURE(piece);
            CHECK(distance(logits_of(session, ids, piece), expected) < rounding(model.dtype()));
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
        for (const int back : thinned<int>(
                 {all, all - 1, 0, 1, all - 31, all - 32, all - 33, all / 2, 63, 64, 65, 33, all - 300, 200})) {
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
        if (LLM_TSAN) ids.resize(120), expected.resize(120);  // more threads than cores wait long for each other
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

TEST_CASE("two sessions of one model in two threads do not disturb each other") {
    const Model model = load(tiny("gemma3-tiny"));
    const std::vector<int> ids = model.tokenizer().encode("Now is the winter of our discontent");
    Session alone(model, 0, 1);
    const Logits expected = logits_of(alone, ids, 3);
    std::vector<std::thread> threads;
    std::array<Logits, 2> got;
    for (Logits& mine : got)
        threads.emplace_back([&] {
            Session session(model, 0, 1);
            for (int i = 0; i < 20; ++i) session.rewind(0), mine = logits_of(session, ids, 3);
        });
    for (std::thread& thread : threads) thread.join();
    CHECK(got[0] == expected);
    CHECK(got[1] == expected);
}

TEST_CASE("a moved session goes on where it was") {
    const Model model = load(tiny("gpt2-tiny"));
    Session fresh(model), moved(model);
    const std::vector<float> expected = last_logits(fresh, {1, 2, 3, 4});
    last_logits(moved, {1, 2});
    Session other(std::move(moved));
    last_logits(other, {3});
    Session target(model, 10);
    target = std::move(other);
    CHECK(distance(last_logits(target, {4}), expected) < rounding(DType::q8_0));
    CHECK(target.position() == 4);
}

TEST_CASE("the foretold memory of a session grows by the global layer's cache alone") {
    const Model model = load(tiny("gemma3-tiny"));
    const llm::Config& c = model.config();
    const std::size_t position = usize(c.num_kv_heads) * usize(2 * c.head_dim) * 2;  // a key and a value of F16
    CHECK(model.session_bytes(512) - model.session_bytes(448) >= 64 * position);
    CHECK(model.session_bytes(512) - model.session_bytes(448) < 2 * 64 * position);
    CHECK_THROWS_AS(model.session_bytes(513), llm::Error);
}

// ==== SAMPLING =======================================================================================================

constexpr llm::Sampling kPlain = {1.0f, 1.0f, 0.0f, 1.0f, 0, 64, 0};  // no filter: the softmax itself

llm::Sampling with(void (*change)(llm::Sampling&)) {
    llm::Sampling s = kPlain;
    change(s);
    return s;
}

// The probability of each token by the book.
std::vector<double> probabilities(std::vector<double> logits, const llm::Sampling& s, const std::vector<int>& recent) {
    const std::size_t last = std::min(recent.size(), usize(s.repeat_last_n));
    for (const int id : std::set<int>(recent.end() - static_cast<std::ptrdiff_t>(last), recent.end())) {
        double& x = logits[usize(id)];
        x = x > 0 ? x / s.repeat_penalty : x * s.repeat_penalty;
    }
    std::vector<int> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return logits[usize(a)] > logits[usize(b)]; });
    if (s.top_k > 0) order.resize(std::min(order.size(), usize(s.top_k)));
    const auto weight = [&](int id, double t) { return std::exp((logits[usize(id)] - logits[usize(order[0])]) / t); };
    double total = 0, sum = 0;
    for (const int id : order) total += weight(id, 1);
    std::vector<double> p(logits.size());
    for (const int id : order) {
        if (sum > 0 && (sum >= s.top_p * total || weight(id, 1) < s.min_p)) break;
        sum += weight(id, 1);
        p[usize(id)] = weight(id, s.temperature);
    }
    const double all = std::accumulate(p.begin(), p.end(), 0.0);
    for (double& x : p) x /= all;
    return p;
}

TEST_CASE("tokens are drawn with the probabilities that the filters leave") {
    const std::vector<float> logits = {1.0f, -0.5f, 2.0f, 0.25f, -3.0f, 1.5f, 1.5f, -0.75f};
    const std::vector<int> recent = {2, 2, 4, 5};
    const llm::Sampling cases[] = {
        kPlain,
        with([](auto& s) { s.temperature = 0.5f; }),
        with([](auto& s) { s.temperature = 3; }),
        with([](auto& s) { s.top_k = 3; }),
        with([](auto& s) { s.top_k = 2; }),  // cuts between equals
        with([](auto& s) { s.top_k = 1; }),
        with([](auto& s) { s.top_k = 1000; }),
        with([](auto& s) { s.top_p = 0.9999f; }),
        with([](auto& s) { s.top_p = 0.7f; }),
        with([](auto& s) { s.top_p = 0.05f; }),
        with([](auto& s) { s.top_p = 0; }),
        with([](auto& s) { s.min_p = 0.2f; }),
        with([](auto& s) { s.min_p = 1; }),
        with([](auto& s) { s.top_p = 0.8f, s.temperature = 2; }),
        with([](auto& s) { s.repeat_penalty = 1.7f; }),
        with([](auto& s) { s.repeat_penalty = 0.6f; }),
        with([](auto& s) { s.repeat_penalty = 1.7f, s.repeat_last_n = 2; }),
        with([](auto& s) { s.repeat_penalty = 1.7f, s.repeat_last_n = 0; }),
        with([](auto& s) {
            s.temperature = 1.5f, s.top_k = 6, s.top_p = 0.9f, s.min_p = 0.1f, s.repeat_penalty = 1.2f;
        }),
        llm::Sampling(),
    };
    for (std::size_t c = 0; c < std::size(cases); ++c) {
        CAPTURE(c);
        llm::Sampling options = cases[c];
        options.seed = 1234;
        llm::Sampler sampler(options);
        for (const int id : recent) sampler.accept(id);
        const std::vector<double> p = probabilities({logits.begin(), logits.end()}, options, recent);
        constexpr int kDraws = 20000;
        std::vector<int> count(logits.size());
        for (int i = 0; i < kDraws; ++i) ++count[usize(sampler.sample(logits.data(), static_cast<int>(logits.size())))];
        double chi_squared = 0, freedom = -1;
        for (std::size_t id = 0; id < p.size(); ++id) {
            CAPTURE(id);
            if (p[id] == 0) {
                CHECK(count[id] == 0);
                continue;
            }
            chi_squared += (count[id] - kDraws * p[id]) * (count[id] - kDraws * p[id]) / (kDraws * p[id]);
            ++freedom;
        }
        CHECK(chi_squared < freedom + 4 * std::sqrt(2 * freedom) + 0.001);  // once in some 1000 seeds it is more
    }
}

TEST_CASE("a temperature of 0 takes the likeliest token, of equals the first") {
    const std::vector<std::pair<std::vector<float>, int>> cases = {
        {{1, 3, 2}, 1}, {{5, 5, 5}, 0}, {{-INFINITY, 2, 2}, 1}, {{NAN, -7, NAN}, 1}, {{1, INFINITY, 2}, 1}, {{4}, 0}};
    for (const auto& [logits, best] : cases) {
        llm::Sampler greedy(with([](auto&s) { s.temperature = 0; })), one(with([](auto&s) { s.top_k = 1; }));
        CHECK(greedy.sample(logits.data(), static_cast<int>(logits.size())) == best);
        CHECK(one.sample(logits.data(), static_cast<int>(logits.size())) == best);
    }
    llm::Sampler penalized(with([](auto& s) { s.temperature = 0, s.repeat_penalty = 2; }));
    const float logits[] = {3, 2, -1};
    CHECK(penalized.sample(logits, 3) == 0);
    penalized.accept(0);
    CHECK(penalized.sample(logits, 3) == 1);
}

TEST_CASE("the same seed draws the same tokens, another one others") {
    Random random{3};
    std::vector<float> logits(1000);
    for (float& x : logits) x = random.uniform(-1, 1);
    const auto draw = [&](std::uint64_t seed) {
        llm::Sampling options = kPlain;
        options.seed = seed;
        llm::Sampler sampler(options);
        std::vector<int> ids;
        for (int i = 0; i < 50; ++i) ids.push_back(sampler.sample(logits.data(), 1000));
        return ids;
    };
    CHECK(draw(1) == draw(1));
    CHECK(draw(1) != draw(2));
    CHECK(draw(0) != draw(UINT64_MAX));
}

TEST_CASE("logits that are not finite neither crash the sampler nor leave the vocabulary") {
    const std::vector<std::vector<float>> cases = {
        {NAN, NAN},          {-INFINITY, -INFINITY}, {INFINITY, INFINITY}, {NAN, INFINITY, 1},
        {NAN, 1, -INFINITY}, {3e38f, -3e38f, 0},     {1e-40f, -1e-40f, 0}, {0, 0, 0}};
    for (const auto& logits : cases)
        for (const float temperature : {0.0f, 1e-6f, 1.0f, 1e6f})
            for (const int top_k : {0, 1, 2}) {
                llm::Sampling options;
                options.temperature = temperature;
                options.top_k = top_k;
                options.repeat_penalty = 1.1f;
                llm::Sampler sampler(options);
                for (const int id : {0, -1, 1000000, INT_MIN}) sampler.accept(id);
                for (int i = 0; i < 20; ++i) {
                    const int id = sampler.sample(logits.data(), static_cast<int>(logits.size()));
                    REQUIRE((id >= 0 && id < static_cast<int>(logits.size())));
                    if (std::isnan(logits[1]) == std::isnan(logits[0])) continue;
                    CHECK_FALSE(std::isnan(logits[usize(id)]));
                }
            }
}

TEST_CASE("the best of a vocabulary of any size are those of a sort") {
    Random random{4};
    for (int n = 1; n <= 300; ++n) {
        std::vector<float> logits(usize(n));
        for (float& x : logits) x = std::floor(random.uniform(-5, 20));  // some are equal
        if (n % 3 == 0) logits[usize(n / 2)] = NAN;
        std::vector<llm::detail::Candidate> sorted;
        for (int id = 0; id < n; ++id)
            sorted.emplace_back(std::isnan(logits[usize(id)]) ? -INFINITY : logits[usize(id)], -id);
        std::sort(sorted.rbegin(), sorted.rend());
        for (const int k : {1, 2, 40}) {
            if (k > n) continue;
            CAPTURE(n);
            CAPTURE(k);
            const auto best = llm::detail::take_best(logits.data(), n, k);
            CHECK(std::equal(best.begin(), best.end(), sorted.begin()));
        }
    }
}

TEST_CASE("of a large vocabulary only the best are drawn") {
    Random random{5};
    std::vector<float> logits(262144);
    for (float& x : logits) x = random.uniform(0, 10);
    std::vector<float> sorted = logits;
    std::sort(sorted.rbegin(), sorted.rend());
    llm::Sampler sampler(with([](auto& s) { s.top_k = 40, s.temperature = 100; }));
    std::set<int> seen;
    for (int i = 0; i < 1000; ++i) seen.insert(sampler.sample(logits.data(), 262144));
    CHECK(seen.size() == 40);
    for (const int id : seen) CHECK(logits[usize(id)] >= sorted[39]);
}

TEST_CASE("sampling options out of range are refused by name") {
    const std::pair<const char*, void (*)(llm::Sampling&)> cases[] = {
        {"temperature", [](auto& s) { s.temperature = -0.1f; }},
        {"temperature", [](auto& s) { s.temperature = NAN; }},
        {"temperature", [](auto& s) { s.temperature = INFINITY; }},
        {"top_p", [](auto& s) { s.top_p = 1.01f; }},
        {"top_p", [](auto& s) { s.top_p = NAN; }},
        {"min_p", [](auto& s) { s.min_p = -0.5f; }},
        {"repeat_penalty", [](auto& s) { s.repeat_penalty = 0; }},
        {"repeat_penalty", [](auto& s) { s.repeat_penalty = -INFINITY; }},
        {"top_k", [](auto& s) { s.top_k = -1; }},
        {"repeat_last_n", [](auto& s) { s.repeat_last_n = -1; }},
        {"repeat_last_n", [](auto& s) { s.repeat_last_n = INT_MAX; }},
    };
    for (const auto& [name, change] : cases) {
        const llm::Sampling options = with(change);
        CHECK(error_of([&] { llm::Sampler sampler(options); }).rfind(name, 0) == 0);
    }
    llm::Sampler sampler;
    const float logits[] = {1};
    CHECK_THROWS_AS(sampler.sample(logits, 0), llm::Error);
    CHECK_THROWS_AS(sampler.sample(nullptr, 1), llm::Error);
}

// ==== GENERATE =======================================================================================================

// A GPT-2 that writes what it is told to: after the token at position p comes script[p]. Its layers add nothing, the
// embedding is empty, each position is a dimension of its own, and the head turns that into the scripted token.
constexpr int kScript = 64;  // positions and dimensions

Gguf scripted(const std::vector<int>& script) {
    constexpr int d = kScript, vocab = 768;
    Gguf file;
    file.set("general.architecture", std::string("gpt2"));
    file.set("gpt2.context_length", d);
    file.set("gpt2.embedding_length", d);
    file.set("gpt2.block_count", 1);
    file.set("gpt2.feed_forward_length", 32);
    file.set("gpt2.attention.head_count", 2);
    add_tokenizer(file, read_json(tiny("gpt2-tiny/tokenizer.json")), true);
    const auto add = [&](const char* name, std::vector<std::uint64_t> shape, float value) {
        std::uint64_t n = 1;
        for (const std::uint64_t extent : shape) n *= extent;
        file.tensors.push_back({name, shape, 0, encoded(std::vector<float>(usize(n), value), TensorType::f32)});
    };
    const auto set = [&](const char* name, int row, int column, float value) {
        std::memcpy(file.tensor(name).bytes.data() + usize(row * d + column) * sizeof value, &value, sizeof value);
    };
    add("token_embd.weight", {vocab, d}, 0);
    add("position_embd.weight", {d, d}, 0);
    add("output.weight", {vocab, d}, 0);
    add("output_norm.weight", {d}, 1);
    add("output_norm.bias", {d}, 0);
    for (const char* name : {"blk.0.attn_norm.weight", "blk.0.attn_norm.bias", "blk.0.ffn_norm.weight",
                             "blk.0.ffn_norm.bias", "blk.0.attn_output.bias", "blk.0.ffn_down.bias"})
        add(name, {d}, 0);
    add("blk.0.attn_qkv.weight", {3 * d, d}, 0);
    add("blk.0.attn_qkv.bias", {3 * d}, 0);
    add("blk.0.attn_output.weight", {d, d}, 0);
    add("blk.0.ffn_up.weight", {32, d}, 0);
    add("blk.0.ffn_up.bias", {32}, 0);
    add("blk.0.ffn_down.weight", {d, 32}, 0);
    for (int p = 0; p < d; ++p) {
        set("position_embd.weight", p, p, 1);
        set("output.weight", p < static_cast<int>(script.size()) ? script[usize(p)] : 0, p, 5);
    }
    return file;
}

// A model that writes these bytes after one token, byte by byte.
Model writer_of(const std::string& bytes) {
    const Tokenizer& tokenizer = tiny_tokenizers()[0].tokenizer;
    std::vector<int> script;
    for (const char c : bytes) script.push_back(tokenizer.encode(std::string(1, c))[0]);
    const TemporaryDirectory directory;
    write_file(directory.path / "scripted.gguf", scripted(script).bytes());
    return load(directory.path / "scripted.gguf");
}

llm::GenerateOptions greedy(int max_tokens, std::vector<std::string> stop = {}) {
    llm::GenerateOptions options;
    options.max_tokens = max_tokens;
    options.sampling.temperature = 0;
    options.stop = std::move(stop);
    return options;
}

std::string generated(Session& session, std::string_view prompt, const llm::GenerateOptions& options) {
    std::string text;
    llm::generate(session, prompt, options, [&](std::string_view piece) {
        text += piece;
        return true;
    });
    return text;
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
    CHECK(count(-1) == kScript);  // the last one is read off the full context
    CHECK(session.position() == kScript);
    CHECK(count(1000) == kScript);
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
        const int n = static_cast<int>(model.tokenizer().encode("\nROMEO:", false).size());
        CHECK(llm::generate(whole, "\nROMEO:", greedy(0), nullptr).prompt_tokens == n + 1);  // and the last one written
        CHECK(whole.position() == before + n + 1);
    }
}

TEST_CASE("an exception from the callback leaves a session that can go on") {
    const Model model = writer_of("abcdefghij");
    Session session(model);
    struct Stop {};
    std::string got;
    const auto on_text = [&](std::string_view piece) {
        got += piece;
        if (got.size() == 3) throw Stop();
        return true;
    };
    CHECK_THROWS_AS(llm::generate(session, "A", greedy(10), on_text), Stop);
    CHECK(got + generated(session, "", greedy(7)) == "abcdefghij");
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

TEST_CASE("every part of a step is timed on request") {
    const Model model = load(tiny("gemma3-tiny"));
    Session session(model);
    std::map<std::string, int> operations;
    double seconds = 0;
    session.on_timing([&](const llm::Timing& t) {
        if (std::string_view(t.part) == "step") return;  // the sum of the others
        ++operations[t.operation];
        CHECK(t.tokens ==
              (std::string_view(t.part) == "lm_head" || std::string_view(t.operation) == "final_norm" ? 1 : 3));
        CHECK((t.layer >= -1 && t.layer < 6));
        CHECK((t.waited >= 0 && t.waited <= t.seconds));
        seconds += t.seconds;
    });
    const auto start = std::chrono::steady_clock::now();
    session.forward(std::vector<int>{2, 5, 6}.data(), 3);
    CHECK(seconds <= detail::seconds_since(start));
    for (const char* name : {"qkv", "qk", "softmax", "av", "attn_out", "up", "down"}) {
        CAPTURE(std::string(name));
        CHECK(operations[name] == 6);
    }
    CHECK(operations["lm_head"] == 1);
    session.on_timing(nullptr);
    seconds = 0;
    session.forward(std::vector<int>{7}.data(), 1);
    CHECK(seconds == 0);
}

// ==== THE COMMAND LINES ==============================================================================================

struct Outcome {
    int status;  // -1: ended by a signal
    std::string out, err;
};

std::string quoted(const std::string& text) { return "'" + detail::replace_all(text, "'", "'\\''") + "'"; }

// Runs a program that was built beside this one, in the repository's directory.
Outcome run(const std::string& name, const std::vector<std::string>& args, const std::string& input = "") {
    const fs::path beside = fs::absolute(program()).parent_path() / name;
    REQUIRE_MESSAGE(fs::exists(beside), beside.string() << " is missing: run make first");
    const TemporaryDirectory directory;
    const auto file = [&](const char* stream) { return (directory.path / stream).string(); };
    write_file(file("in"), input);
    std::string command = "cd " + quoted(repository().string()) + " && " + quoted(beside.string());
    for (const std::string& arg : args) command += " " + quoted(arg);
    for (const char* stream : {"<in", ">out", "2>err"}) {
        const std::string redirect = stream;
        const std::size_t sign = redirect.find_first_of("<>") + 1;
        command += " " + redirect.substr(0, sign) + quoted(file(redirect.substr(sign).c_str()));
    }
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, read_file(file("out")), read_file(file("err"))};
}
Outcome run_llm(const std::vector<std::string>& args, const std::string& input = "") { return run("llm", args, input); }

// The standard output of a run that succeeds.
std::string output(std::vector<std::string> args, const std::string& input = "") {
    const Outcome o = run_llm(args, input);
    CAPTURE(o.err);
    CHECK(o.status == 0);
    return o.out;
}

std::vector<std::vector<std::string>> table(const std::string& text) {  // lines of cells, tab-separated
    std::vector<std::vector<std::string>> rows;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
        rows.emplace_back();
        std::istringstream cells(line);
        for (std::string cell; std::getline(cells, cell, '\t');) rows.back().push_back(cell);
    }
    return rows;
}

TEST_CASE("llm: every flag of --help is known, and one with a value needs it") {
    const TemporaryDirectory directory;
    const std::string session = (directory.path / "session").string();
    const std::map<std::string, std::string> values = {
        {"--model", "models/gpt2-tiny"},
        {"--prompt", "To be"},
        {"--file", ".clang-format"},
        {"--n-predict", "2"},
        {"--ctx-size", "256"},
        {"--threads", "2"},
        {"--dtype", "f32"},
        {"--temp", "0.5"},
        {"--top-k", "5"},
        {"--top-p", "0.5"},
        {"--min-p", "0.5"},
        {"--repeat-penalty", "1.1"},
        {"--repeat-last-n", "5"},
        {"--seed", "7"},
        {"--stop", "zzz"},
        {"--lookup", "3"},
        {"--save", session},
        {"--load", session},  // which stands below --save
        {"--system", "Speak!"},
        {"--chat-template", "plain"},
        {"--top", "2"},
        {"--profile", "step"},
    };
    const std::string help = output({"--help"});
    CHECK(output({"-h"}) == help);
    int flags = 0;
    for (const auto& line : table(help)) {
        const std::size_t at = line.empty() ? std::string::npos : line[0].find("--");
        if (at != 6) continue;  // where the table's long names stand
        const std::string& row = line[0];
        const std::string name = row.substr(at, row.find(' ', at) - at);
        const bool has_short = row[2] == '-', has_value = row[at + name.size() + 1] != ' ';
        CAPTURE(name);
        ++flags;
        REQUIRE((values.count(name) > 0) == has_value);
        for (const std::string& spelled : {name, has_short ? row.substr(2, 2) : name}) {
            std::vector<std::string> args = {spelled};
            if (has_value) args.push_back(values.at(name));
            if (name != "--prompt" && name != "--file") args.insert(args.end(), {"-p", "To be"});
            if (name != "--n-predict") args.insert(args.end(), {"-n", "2"});
            CHECK(run_llm(args).status == 0);
            const Outcome wrong =
                run_llm(has_value ? std::vector<std::string>{spelled} : std::vector<std::string>{name + "=1"});
            CHECK(wrong.status == 1);
            CHECK(wrong.err.find(has_value ? spelled : name) != std::string::npos);
        }
    }
    CHECK(flags >= 24);
}

TEST_CASE("llm: text goes to standard output, all else to standard error") {
    const Outcome o = run_llm({"-p", "ROMEO:", "-n", "8", "--temp", "0"});
    CHECK(o.status == 0);
    CHECK(o.out.rfind("ROMEO:", 0) == 0);
    CHECK(o.out.back() == '\n');
    for (const char* part : {"prompt: 2 tokens", "generated: 8 tokens", "tokens/s"})
        CHECK(o.err.find(part) != std::string::npos);
    CHECK(o.err.find('\r') == std::string::npos);  // no progress bar: this is no terminal
    const Outcome quiet = run_llm({"ROMEO:", "-n", "8", "--temp", "0", "-q"});
    CHECK(quiet.out == o.out);
    CHECK(quiet.err == "");
    CHECK("ROMEO:" + output({"ROMEO:", "-n", "8", "--temp=0", "--no-display-prompt"}) == o.out);
}

TEST_CASE("llm: a prompt from an argument, a file or standard input is the same") {
    const TemporaryDirectory directory;
    const std::string file = (directory.path / "prompt").string(), prompt = "it's \"quoted\"\n$HOME \xFF\u00e9\t";
    write_file(file, prompt);
    const std::string expected = output({"--tokenize", "-p", prompt});
    CHECK(output({"--tokenize", prompt}) == expected);
    CHECK(output({"--tokenize", "--prompt=" + prompt}) == expected);
    CHECK(output({"--tokenize", "-f", file}) == expected);
    CHECK(output({"--tokenize", "-f", "-"}, prompt) == expected);
    CHECK(output({"--tokenize", "-f", "-"}, "") == "2\t<bos>\n");
}

TEST_CASE("llm --tokenize lists ids and pieces") {
    const Tokenizer tokenizer = load(tiny("gemma3-tiny")).tokenizer();
    const std::string prompt = "Now is\tthe \\ winter\n\u00e9\x01";
    const auto rows = table(output({"--tokenize", prompt}));
    const std::vector<int> ids = tokenizer.encode(prompt);
    REQUIRE(rows.size() == ids.size());
    std::string all;
    for (std::size_t i = 0; i < ids.size(); ++i) {
        REQUIRE(rows[i].size() == 2);
        CHECK(rows[i][0] == std::to_string(ids[i]));
        all += rows[i][1];
    }
    CHECK(all == "<bos>Now is\\tthe \\\\ winter\\n\\xc3\\xa9\\x01");
}

TEST_CASE("llm --top lists the likeliest next tokens") {
    const JsonDocument golden = golden_numbers("gpt2-tiny");
    const Json& one = golden.root().find("cases")->array()[0];
    const auto rows = table(output({"-m", tiny("gpt2-tiny"), "--dtype", "f32", "--top", "5", text(one, "prompt")}));
    REQUIRE(rows.size() == 5);
    const std::vector<float> logits = floats(*one.find("logits"));
    for (std::size_t i = 0; i < 5; ++i) {
        REQUIRE(rows[i].size() == 4);
        const auto expected = one.find("top")->array()[i].array();
        CHECK(std::stoi(rows[i][0]) == expected[0].number());
        CHECK(std::stod(rows[i][1]) == doctest::Approx(expected[1].number()).epsilon(1e-4));
        CHECK(std::stod(rows[i][2]) ==
              doctest::Approx(std::exp(expected[1].number() - log_sum_exp(logits))).epsilon(1e-3));
    }
    CHECK(rows[0][3] == "\\n");
    CHECK(table(output({"-m", tiny("gpt2-tiny"), "--top", "100000", "a"})).size() == 768);
    CHECK(table(output({"-m", tiny("gpt2-tiny"), "--top", "3"})).size() == 3);  // without a prompt
}

TEST_CASE("llm --perplexity counts every token but the first once, in windows if the context is smaller") {
    const JsonDocument golden = golden_numbers("gemma3-tiny");
    const Json& one = golden.root().find("perplexity")->array()[0];
    const auto value = [](const std::string& line) {
        REQUIRE(line.rfind("perplexity: ", 0) == 0);
        return std::stod(line.substr(12));
    };
    const std::string exact = output({"--perplexity", "--dtype", "f32", "-n", "240", "-p", text(one, "text")});
    CHECK(value(exact) == doctest::Approx(one.find("ppl")->number()).epsilon(5e-4));
    CHECK(exact.find("240 tokens") != std::string::npos);

    // Windows of 64 that advance by 32
    const Model model = load(tiny("gemma3-tiny"), DType::f32);
    std::vector<int> ids = model.tokenizer().encode(text(one, "text"));
    ids.resize(240);
    Session session(model);
    double sum = 0;
    for (int begin = 0, counted = 1; counted < 240; begin += 32) {
        const int end = std::min(begin + 64, 240);
        std::vector<int> window(ids.begin() + begin, ids.begin() + end);
        window[0] = ids[0];
        session.rewind(0);
        const Logits logits = logits_of(session, window);
        for (; counted < end; ++counted) {
            const std::vector<float>& row = logits[usize(counted - 1 - begin)];
            sum += log_sum_exp(row) - row[usize(ids[usize(counted)])];
        }
    }
    CHECK(value(output({"--perplexity", "--dtype=f32", "-n", "240", "-c", "64", text(one, "text")})) ==
          doctest::Approx(std::exp(sum / 239)).epsilon(1e-4));
    CHECK(value(output({"--perplexity", "-f", "LICENSE", "-m", tiny("gpt2-tiny")})) > 1);  // longer than the context
}

TEST_CASE("llm --info says what is in the file and what it becomes") {
    const std::string info = output({"--info", "-m", (testdata() / "layouts/gemma3-q3_k_m.gguf").string(), "-c", "64"});
    for (const char* part : {"Gemma 3", "GGUF v3", "layers        3", "see 16 positions", "hidden 256",
                             "heads 4 of 64, KV heads 1", "1024 tokens", "head tied", "64 positions of 256", "12 Q3_K",
                             "1 Q6_K", "13 quantized, 0 exact, 15 fused", "MB weights", "MB KV cache"}) {
        CAPTURE(std::string(part));
        CHECK(info.find(part) != std::string::npos);
    }
    CHECK(output({"--info", "-m", tiny("gpt2-tiny"), "--dtype", "f32"}).find("f32: 0 quantized, 17 exact") !=
          std::string::npos);
    CHECK(output({"--version"}) == "llm " LLM_VERSION "\n");
}

TEST_CASE("llm: sampling flags reach the sampler") {
    const std::vector<std::string> base = {"-q", "-n", "30", "--no-display-prompt", "-p", "HAMLET:"};
    const auto write = [&](std::vector<std::string> more) {
        more.insert(more.end(), base.begin(), base.end());
        return output(more);
    };
    const std::string greedy_text = write({"--temp", "0"}), sampled = write({"-s", "3"});
    CHECK(write({"--top-k", "1"}) == greedy_text);
    CHECK(write({"--top-p", "0"}) == greedy_text);
    CHECK(write({"--min-p", "1"}) == greedy_text);
    CHECK(write({"--temp=0", "--repeat-penalty", "1.5"}) != greedy_text);
    CHECK(write({"--temp=0", "--repeat-penalty", "1.5", "--repeat-last-n", "0"}) == greedy_text);
    CHECK(write({"--seed", "3"}) == sampled);
    CHECK(write({"-s", "4"}) != sampled);
    CHECK(write({"-s", "-1", "--temp", "5"}) != write({"-s", "-1", "--temp", "5"}));
    const std::string stop = greedy_text.substr(10, 4);
    CHECK(write({"--temp=0", "--stop", stop, "--stop", "never"}) ==
          greedy_text.substr(0, greedy_text.find(stop)) + "\n");
    // The end of the context ends a text that has no other end.
    const Outcome full = run_llm({"-n", "-1", "-c", "20", "--ignore-eos", "a"});
    CHECK(full.status == 0);
    CHECK(full.err.find("the context is full") != std::string::npos);
}

TEST_CASE("llm: what is wrong is said in one clear line, and the exit status is 1") {
    const struct {
        std::vector<std::string> args;
        std::vector<std::string> message;  // what the line must hold
    } cases[] = {
        {{"--bogus"}, {"--bogus", "unknown"}},
        {{"-Z", "1"}, {"-Z", "unknown"}},
        {{"-n"}, {"-n", "missing"}},
        {{"-n", "five"}, {"-n", "'five'", "whole"}},
        {{"-n", "5x"}, {"'5x'"}},
        {{"-n", " 5"}, {"' 5'"}},
        {{"-n", ""}, {"-n", "''"}},
        {{"-n", "-2"}, {"'-2'"}},
        {{"-n", "99999999999999"}, {"99999999999999"}},
        {{"-n", "1.5"}, {"'1.5'"}},
        {{"--temp", "nan"}, {"--temp", "nan"}},
        {{"--temp", "-1"}, {"--temp", "-1"}},
        {{"--top-p", "1.5"}, {"--top-p", "1.5"}},
        {{"--min-p", "x"}, {"--min-p", "'x'"}},
        {{"--repeat-penalty", "0"}, {"--repeat-penalty"}},
        {{"--top", "0"}, {"--top", "'0'"}},
        {{"-t", "-1"}, {"-t", "-1"}},
        {{"--dtype", "int4"}, {"--dtype", "int4", "q8_0"}},
        {{"--quiet=yes"}, {"--quiet", "no value"}},
        {{"one", "two"}, {"twice", "two"}},
        {{"-p", "a", "-f", "LICENSE"}, {"prompt", "--file"}},
        {{"-f", "no/such/file"}, {"no/such/file"}},
        {{"-f", "."}, {"."}},
        {{"-m", "no/such/model", "a"}, {"no/such/model"}},
        {{"-m", "LICENSE", "a"}, {"LICENSE", "not a model"}},
        {{"-m", "testdata", "a"}, {"testdata", "model.safetensors"}},
        {{"-c", "513", "a"}, {"context", "513", "512"}},
        {{"-c", "8", "-p", std::string(50, 'x')}, {"context of 8", "tokens"}},
        {{"--perplexity", "-p", ""}, {"--perplexity"}},
    };
    for (const auto& [args, message] : cases) {
        const Outcome o = run_llm(args);
        CAPTURE(o.err);
        CHECK(o.status == 1);
        CHECK(o.out == "");
        CHECK(std::count(o.err.begin(), o.err.end(), '\n') == 1);
        CHECK(o.err.rfind("llm: ", 0) == 0);
        for (const std::string& part : message) {
            CAPTURE(part);
            CHECK(o.err.find(part) != std::string::npos);
        }
    }
    const Environment forced("LLM_SIMD", "quantum");
    CHECK(run_llm({"a"}).err.find("quantum") != std::string::npos);
}

TEST_CASE("bench prints what llama-bench prints, as JSON, CSV and Markdown") {
    const std::vector<std::string> base = {
        "-m", tiny("gpt2-tiny"), "-p", "8,16", "-n", "4", "-d", "0,5", "-t", "2", "-r", "3"};
    const auto print = [&](const std::string& format) {
        std::vector<std::string> args = base;
        args.insert(args.end(), {"-o", format});
        const Outcome o = run("bench", args);
        CHECK(o.status == 0);
        CHECK(o.err == "");
        return o.out;
    };
    const JsonDocument json(print("json"), "bench");
    const auto rows = json.root().array();
    REQUIRE(rows.size() == 6);
    for (const Json& row : rows) {
        const auto number = [&](const char* name) {
            CAPTURE(std::string(name));
            REQUIRE(row.find(name));
            return row.find(name)->number();
        };
        CHECK(text(row, "model_filename") == tiny("gpt2-tiny"));
        for (const char* name : {"cpu_info", "model_type", "test_time"}) CHECK(text(row, name) != "");
        CHECK(number("n_threads") == 2);
        CHECK(number("model_n_params") == 924416);
        CHECK(number("model_size") > 0);
        const double tokens = number("n_prompt") + number("n_gen"), ns = number("avg_ns");
        CHECK((tokens == 8 || tokens == 16 || tokens == 4));
        CHECK((number("n_depth") == 0 || number("n_depth") == 5));
        CHECK(number("avg_ts") >= tokens / ns * 0.999e9);  // the mean of ratios is not below the ratio of means
        CHECK(number("stddev_ts") >= 0);
        CHECK(number("stddev_ns") >= 0);
        CHECK(row.find("samples_ns")->array().size() == 3);
        CHECK(row.find("samples_ts")->array().size() == 3);
    }
    const std::string csv = print("csv"), md = print("md");
    CHECK(std::count(csv.begin(), csv.end(), '\n') == 7);
    CHECK(csv.find("n_prompt,n_gen,n_depth") != std::string::npos);
    CHECK(std::count(md.begin(), md.end(), '\n') == 8);
    CHECK(md.find("| pp8 @ d5 |") != std::string::npos);
    CHECK(md.find("| tg4 |") != std::string::npos);
}

TEST_CASE("bench refuses what it cannot measure") {
    const std::vector<std::vector<std::string>> cases = {{"--bogus"},
                                                         {"-p"},
                                                         {"-p", "x"},
                                                         {"-p", "1,"},
                                                         {"-p", "-1"},
                                                         {"-r", "0"},
                                                         {"-o", "xml"},
                                                         {"--dtype", "f8"},
                                                         {"-m", "no/such/model"},
                                                         {"-p", "600"}};
    for (const auto& args : cases) {
        const Outcome o = run("bench", args);
        CAPTURE(o.err);
        CHECK(o.status == 1);
        CHECK(o.out == "");
        CHECK(o.err.rfind("bench: ", 0) == 0);
        CHECK(o.err.find(args.back()) != std::string::npos);
        CHECK(std::count(o.err.begin(), o.err.end(), '\n') == 1);
    }
    CHECK(run("bench", {"-h"}).out.rfind("usage: bench", 0) == 0);
}

// ==== REFUSED INPUT ==================================================================================================
//
// Damaged, foreign and hostile files. Each is refused with an llm::Error that names the file and what is wrong with it;
// any other exception fails the test.

std::string replaced(const std::string& text, const std::string& from, const std::string& to) {
    const std::size_t at = text.find(from);
    if (at == std::string::npos) throw std::logic_error("nothing to replace: " + from);
    return text.substr(0, at) + to + text.substr(at + from.size());
}

void check_refused(const fs::path& path, const std::vector<std::string>& parts) {
    const std::string message = error_of([&] { load(path); });
    CAPTURE(message);
    CHECK(message != "");
    CHECK(message.find(path.string()) != std::string::npos);
    for (const std::string& part : parts) {
        CAPTURE(part);
        CHECK(message.find(part) != std::string::npos);
    }
}

// ---- Hugging Face directories

using Files = std::map<std::string, std::string>;  // name -> content

Files files_of(const fs::path& directory) {
    Files files;
    for (const auto& entry : fs::directory_iterator(directory))
        files[entry.path().filename().string()] = read_file(entry.path());
    return files;
}

// Changes the header of safetensors, whose length is written before it.
void edit_header(std::string& file, const std::string& from, const std::string& to) {
    const auto length = detail::load_as<std::uint64_t>(file.data());
    const std::string header = replaced(file.substr(8, usize(length)), from, to);
    file = Gguf::raw(std::uint64_t{header.size()}) + header + file.substr(8 + usize(length));
}

struct DirectoryCase {
    const char* what;
    void (*change)(Files&);
    std::vector<std::string> message;
};

template <std::size_t N> void check_refused_directories(const fs::path& original, const DirectoryCase (&cases)[N]) {
    const Files whole = files_of(original);
    for (const DirectoryCase& one : cases) {
        CAPTURE(std::string(one.what));
        const TemporaryDirectory directory;
        Files files = whole;
        one.change(files);
        for (const auto& [name, content] : files) write_file(directory.path / name, content);
        check_refused(directory.path, one.message);
    }
}

// Cases are mostly one text of one file replaced by another.
#define LLM_EDIT(file, from, to) [](Files& f) { f[file] = replaced(f[file], from, to); }
#define LLM_HEADER(from, to) [](Files& f) { edit_header(f["model.safetensors"], from, to); }

TEST_CASE("damaged GPT-2 directories are refused") {
    const DirectoryCase cases[] = {
        {"no config", [](Files& f) { f.erase("config.json"); }, {"config.json"}},
        {"empty config", [](Files& f) { f["config.json"] = ""; }, {"config.json", "byte 0"}},
        {"config cut off", [](Files& f) { f["config.json"].resize(100); }, {"config.json"}},
        {"config nested a million deep", [](Files& f) { f["config.json"] = std::string(1000000, '['); }, {"deep"}},
        {"config a list", [](Files& f) { f["config.json"] = "[]"; }, {"model_type"}},
        {"another architecture", LLM_EDIT("config.json", R"("gpt2")", R"("llama")"), {"model_type", "llama"}},
        {"no architecture", LLM_EDIT("config.json", R"("model_type")", R"("x")"), {"model_type"}},
        {"another activation", LLM_EDIT("config.json", "gelu_new", "relu"), {"activation_function", "relu"}},
        {"heads that do not divide", LLM_EDIT("config.json", R"("n_head": 4)", R"("n_head": 3)"), {"n_embd"}},
        {"no heads", LLM_EDIT("config.json", R"("n_head": 4)", R"("n_head": 0)"), {"n_head", "0"}},
        {"negative heads", LLM_EDIT("config.json", R"("n_head": 4)", R"("n_head": -4)"), {"n_head", "-4"}},
        {"half a head", LLM_EDIT("config.json", R"("n_head": 4)", R"("n_head": 4.5)"), {"n_head", "4.5"}},
        {"heads as text", LLM_EDIT("config.json", R"("n_head": 4)", R"("n_head": "4")"), {"config.json"}},
        {"huge width", LLM_EDIT("config.json", R"("n_embd": 128)", R"("n_embd": 1e15)"), {"n_embd", "1e+15"}},
        {"another width",
         LLM_EDIT("config.json", R"("n_embd": 128)", R"("n_embd": 256)"),
         {"wte.weight", "[768, 128]"}},
        {"another context", LLM_EDIT("config.json", R"("n_positions": 256)", R"("n_positions": 512)"), {"wpe.weight"}},
        {"more layers", LLM_EDIT("config.json", R"("n_layer": 4)", R"("n_layer": 5)"), {"h.4.", "missing"}},
        {"scaled by layer",
         LLM_EDIT("config.json", R"("n_ctx": 256)", R"("scale_attn_by_inverse_layer_idx": true)"),
         {"scale_attn_by_inverse_layer_idx"}},
        {"unscaled attention",
         LLM_EDIT("config.json", R"("n_ctx": 256)", R"("scale_attn_weights": false)"),
         {"scale_attn_weights"}},

        {"no weights", [](Files& f) { f.erase("model.safetensors"); }, {"model.safetensors"}},
        {"empty weights", [](Files& f) { f["model.safetensors"] = ""; }, {"model.safetensors", "no safetensors"}},
        {"a Git LFS pointer",
         [](Files& f) { f["model.safetensors"] = "version https://git-lfs.github.com/spec/v1\n"; },
         {"model.safetensors", "Git LFS"}},
        {"header of a terabyte",
         [](Files& f) { f["model.safetensors"].replace(0, 8, Gguf::raw(std::uint64_t{1} << 40)); },
         {"model.safetensors"}},
        {"header beyond the end",
         [](Files& f) { f["model.safetensors"].replace(0, 8, Gguf::raw(f["model.safetensors"].size())); },
         {"model.safetensors"}},
        {"no JSON", LLM_HEADER("{", "<"), {"model.safetensors", "JSON"}},
        {"data cut off", [](Files& f) { f["model.safetensors"].pop_back(); }, {"outside of the file"}},
        {"a type that is none", LLM_HEADER("F16", "F17"), {"type"}},
        {"integers", LLM_HEADER(R"("F16")", R"("I16")"), {"type"}},
        {"another type's size", LLM_HEADER(R"("F16")", R"("F32")"), {"size that is not its shape's"}},
        {"no type", LLM_HEADER(R"("dtype")", R"("d")"), {"lacks dtype"}},
        {"no offsets", LLM_HEADER(R"("data_offsets")", R"("d")"), {"lacks"}},
        {"three offsets", LLM_HEADER(R"("data_offsets":[)", R"("data_offsets":[0,)"), {"lacks"}},
        {"a negative offset", LLM_HEADER(R"("data_offsets":[0,)", R"("data_offsets":[-1,)"), {"model.safetensors"}},
        {"an offset beyond 64 bits",
         LLM_HEADER(R"("data_offsets":[)", R"("data_offsets":[9e30)"),
         {"model.safetensors"}},
        {"shape of two to the 80",
         LLM_HEADER(R"("shape":[)", R"("shape":[1099511627776,1099511627776,)"),
         {"impossible shape"}},
        {"a missing tensor", LLM_HEADER("ln_f.bias", "ln_f.base"), {"ln_f.bias", "missing"}},
        {"a tensor twice", LLM_HEADER("h.0.ln_1.bias", "h.0.ln_2.bias"), {"h.0.ln_2.bias"}},

        {"no tokenizer", [](Files& f) { f.erase("tokenizer.json"); }, {"tokenizer.json"}},
        {"tokenizer cut off", [](Files& f) { f["tokenizer.json"].resize(9999); }, {"tokenizer.json"}},
        {"another kind of tokenizer", LLM_EDIT("tokenizer.json", R"("BPE")", R"("WordPiece")"), {"WordPiece"}},
        {"another normalizer",
         LLM_EDIT("tokenizer.json", R"("normalizer":null)", R"("normalizer":{"type":"NFC"})"),
         {"NFC"}},
        {"another pre-tokenizer", LLM_EDIT("tokenizer.json", "ByteLevel", "Whitespace"), {"Whitespace"}},
        {"no bytes", LLM_EDIT("tokenizer.json", R"("!")", R"("!!")"), {"byte 33"}},
        {"an id out of range", LLM_EDIT("tokenizer.json", R"("!":0)", R"("!":4000000000)"), {"out of range"}},
        {"an id twice", LLM_EDIT("tokenizer.json", R"("!":0)", R"("!":1)"), {"same id"}},
        {"no vocabulary", LLM_EDIT("tokenizer.json", R"("vocab")", R"("v")"), {"vocab"}},
        {"an unknown merge", LLM_EDIT("tokenizer.json", R"("merges":[)", R"("merges":[["q", "zzz"], )"), {"zzz"}},
        {"a merge of three", LLM_EDIT("tokenizer.json", R"("merges":[)", R"("merges":[["a", "b", "c"], )"), {"two"}},
        {"dropout", LLM_EDIT("tokenizer.json", R"("dropout":null)", R"("dropout":0.1)"), {"dropout"}},
        {"a stripping token", LLM_EDIT("tokenizer.json", R"("lstrip":false)", R"("lstrip":true)"), {"lstrip"}},
        {"another model's tokenizer",
         [](Files& f) { f["tokenizer.json"] = read_file(tiny("gemma3-tiny/tokenizer.json")); },
         {"does not fit", "1024", "768"}},
    };
    check_refused_directories(tiny("gpt2-tiny"), cases);
}

TEST_CASE("damaged Gemma directories are refused") {
    const DirectoryCase cases[] = {
        {"an unknown layer", LLM_EDIT("config.json", "full_attention", "chunked_attention"), {"chunked_attention"}},
        {"a layer too many",
         LLM_EDIT("config.json", R"("layer_types": [)", R"("layer_types": ["full_attention",)"),
         {"layer_types"}},
        {"another RoPE", LLM_EDIT("config.json", R"("default")", R"("yarn")"), {"rope_type", "yarn"}},
        {"RoPE without a base", LLM_EDIT("config.json", "500000.0", "0"), {"rope"}},
        {"soft caps",
         LLM_EDIT("config.json", R"("final_logit_softcapping": null)", R"("final_logit_softcapping": 30)"),
         {"final_logit_softcapping"}},
        {"biases",
         LLM_EDIT("config.json", R"("attention_bias": false)", R"("attention_bias": true)"),
         {"attention_bias"}},
        {"both directions",
         LLM_EDIT("config.json", R"("use_bidirectional_attention": false)", R"("use_bidirectional_attention": true)"),
         {"use_bidirectional_attention"}},
        {"another activation", LLM_EDIT("config.json", "gelu_pytorch_tanh", "silu"), {"hidden_activation", "silu"}},
        {"odd heads", LLM_EDIT("config.json", R"("head_dim": 32)", R"("head_dim": 33)"), {"head_dim", "odd"}},
        {"large heads", LLM_EDIT("config.json", R"("head_dim": 32)", R"("head_dim": 4096)"), {"head_dim", "4096"}},
        {"other heads", LLM_EDIT("config.json", R"("head_dim": 32)", R"("head_dim": 16)"), {"q_proj.weight"}},
        {"K/V heads that do not divide",
         LLM_EDIT("config.json", R"("num_key_value_heads": 3)", R"("num_key_value_heads": 4)"),
         {"heads"}},
        {"no window", LLM_EDIT("config.json", R"("sliding_window": 8)", R"("sliding_window": 0)"), {"sliding_window"}},
        {"no scale",
         LLM_EDIT("config.json", R"("query_pre_attn_scalar": 24)", R"("query_pre_attn_scalar": 0)"),
         {"query_pre_attn_scalar"}},
        {"no layers",
         LLM_EDIT("config.json", R"("num_hidden_layers": 4)", R"("num_hidden_layers": 0)"),
         {"num_hidden_layers"}},
        {"more layers than listed",
         LLM_EDIT("config.json", R"("num_hidden_layers": 4)", R"("num_hidden_layers": 9)"),
         {"layer_types"}},
        {"no embedding", LLM_HEADER("model.embed_tokens.weight", "model.embed.weight"), {"embedding"}},
        {"a flat embedding", LLM_HEADER(R"("shape":[1024,96])", R"("shape":[98304])"), {"lm_head.weight", "[98304]"}},
        {"a missing norm",
         LLM_HEADER("layers.2.self_attn.q_norm", "layers.2.self_attn.r_norm"),
         {"model.layers.2.self_attn.q_norm.weight"}},
        {"no byte fallback",
         LLM_EDIT("tokenizer.json", R"("byte_fallback":true)", R"("byte_fallback":false)"),
         {"byte_fallback"}},
        {"a template with an end",
         LLM_EDIT("tokenizer.json", R"("single":[)", R"("single":[{"SpecialToken":{}},)"),
         {"template"}},
        {"no such first token", LLM_EDIT("tokenizer.json", R"({"id":"<bos>")", R"({"id":"<boss>")"), {"<boss>"}},
    };
    check_refused_directories(testdata() / "layouts/gemma3-v5", cases);
}

TEST_CASE("an index that leads astray is refused") {
    const fs::path whole = testdata() / "layouts/gemma3-mm";
    const std::string index = read_file(whole / "model.safetensors.index.json");
    const std::string shard = "model-00001-of-00002.safetensors";
    const struct {
        std::string index;
        std::vector<std::string> message;
    } cases[] = {
        {"", {"index.json"}},
        {"{}", {"weight_map"}},
        {R"({"weight_map": []})", {"index.json"}},
        {R"({"weight_map": {}})", {"embedding"}},
        {R"({"weight_map": {"a": 5}})", {"index.json"}},
        {replaced(index, shard, "../" + shard), {"../" + shard}},
        {replaced(index, shard, "/etc/passwd"), {"/etc/passwd"}},
        {replaced(index, shard, ".."), {".."}},
        {replaced(index, shard, "a\\\\b"), {"not a file of the model's directory"}},
        {replaced(index, shard, ""), {"not a file of the model's directory"}},
        {replaced(index, shard, "model-00003-of-00002.safetensors"), {"model-00003-of-00002.safetensors", "missing"}},
        {replaced(index, shard, "model-00002-of-00002.safetensors"), {"is not in its shard"}},
        {replaced(index, "language_model.model.norm.weight", "language_model.model.norms.weight"), {"norms.weight"}},
        {replaced(index, shard, "config.json"), {"config.json", "no safetensors"}},
    };
    for (const auto& one : cases) {
        const TemporaryDirectory directory;
        for (const auto& entry : fs::directory_iterator(whole))
            fs::create_symlink(entry.path(), directory.path / entry.path().filename());
        fs::remove(directory.path / "model.safetensors.index.json");
        write_file(directory.path / "model.safetensors.index.json", one.index);
        check_refused(directory.path, one.message);
    }
}

// ---- GGUF

struct GgufCase {
    const char* what;
    void (*change)(Gguf&);
    std::vector<std::string> message;
};

template <std::size_t N> void check_refused_ggufs(const Gguf& whole, const GgufCase (&cases)[N]) {
    const TemporaryDirectory directory;
    for (const GgufCase& one : cases) {
        CAPTURE(std::string(one.what));
        Gguf file = whole;
        one.change(file);
        write_file(directory.path / "model.gguf", file.bytes());
        check_refused(directory.path / "model.gguf", one.message);
    }
}

std::string raw_strings(std::uint32_t type, std::initializer_list<std::string> items) {
    return Gguf::raw_array(type, std::vector<std::string>(items));
}

TEST_CASE("damaged GGUF files are refused") {
    using G = Gguf;
    const GgufCase cases[] = {
        {"version 1", [](G& g) { g.version = 1; }, {"version 1"}},
        {"version 4", [](G& g) { g.version = 4; }, {"version 4"}},
        {"big-endian", [](G& g) { g.version = 0x03000000; }, {"big-endian"}},
        {"a tensor too many", [](G& g) { g.extra_tensors = 1; }, {}},
        {"too many tensors", [](G& g) { g.extra_tensors = std::uint64_t{1} << 40; }, {"count"}},
        {"too many values", [](G& g) { g.extra_pairs = std::uint64_t{1} << 60; }, {"count"}},
        {"a value twice", [](G& g) { g.pairs.push_back(g.pairs[0]); }, {"general.architecture"}},
        {"a string of 4 exabytes", [](G& g) { g.set("x", G::string, G::raw(std::uint64_t{1} << 62)); }, {}},
        {"an array of 16 exabytes", [](G& g) { g.set("x", G::array, G::raw(5u) + G::raw(UINT64_MAX)); }, {"count"}},
        {"an array of arrays", [](G& g) { g.set("x", G::array, G::raw(9u) + G::raw(std::uint64_t{1})); }, {"type"}},
        {"a value of unknown type", [](G& g) { g.set("x", 13, "abcd"); }, {"type"}},
        {"one part of several", [](G& g) { g.set("split.count", 2); }, {"part"}},
        {"no alignment", [](G& g) { g.set("general.alignment", 0); }, {"alignment"}},
        {"alignment of 24", [](G& g) { g.set("general.alignment", 24); }, {"alignment"}},
        {"alignment of 1 MB", [](G& g) { g.set("general.alignment", 1 << 20); }, {"alignment"}},

        {"another architecture", [](G& g) { g.set("general.architecture", std::string("llama")); }, {"llama"}},
        {"no architecture", [](G& g) { g.remove("general.architecture"); }, {"general.architecture"}},
        {"architecture as a number", [](G& g) { g.set("general.architecture", 2); }, {"general.architecture"}},
        {"no context", [](G& g) { g.remove("gpt2.context_length"); }, {"gpt2.context_length", "missing"}},
        {"context as text", [](G& g) { g.set("gpt2.context_length", std::string("64")); }, {"gpt2.context_length"}},
        {"no heads", [](G& g) { g.set("gpt2.attention.head_count", 0); }, {"gpt2.attention.head_count", "0"}},
        {"heads that do not divide", [](G& g) { g.set("gpt2.attention.head_count", 3); }, {"gpt2.embedding_length"}},
        {"another width", [](G& g) { g.set("gpt2.embedding_length", 128); }, {"token_embd.weight", "[768, 64]"}},
        {"another depth", [](G& g) { g.set("gpt2.block_count", 2); }, {"blk.1."}},
        {"a million layers", [](G& g) { g.set("gpt2.block_count", 1000000); }, {"gpt2.block_count", "1e+06"}},
        {"infinite norms", [](G& g) { g.set("gpt2.attention.layer_norm_epsilon", INFINITY); }, {"layer_norm_epsilon"}},

        {"no dimensions", [](G& g) { g.tensors[3].shape.clear(); }, {"output_norm.weight", "dimensions"}},
        {"five dimensions", [](G& g) { g.tensors[3].shape.assign(5, 1); }, {"output_norm.weight", "dimensions"}},
        {"a dimension of 0", [](G& g) { g.tensors[3].shape = {0}; }, {"output_norm.weight", "shape"}},
        {"shape of two to the 80", [](G& g) { g.tensors[3].shape.assign(2, std::uint64_t{1} << 40); }, {"shape"}},
        {"size of two to the 64", [](G& g) { g.tensors[3].shape = {std::uint64_t{1} << 62}; }, {"output_norm.weight"}},
        {"integers", [](G& g) { g.tensors[3].type = 26; }, {"output_norm.weight", "type"}},
        {"a type that is none", [](G& g) { g.tensors[0].type = 0xFFFFFFFF; }, {"token_embd.weight", "type"}},
        {"half a block", [](G& g) { g.tensors[0].type = 12; }, {"token_embd.weight", "blocks"}},
        {"an offset out of line", [](G& g) { g.tensors[3].shift = 4; }, {"output_norm.weight", "outside"}},
        {"an offset beyond the end", [](G& g) { g.tensors[3].shift = std::uint64_t{1} << 40; }, {"output_norm.weight"}},
        {"an offset near 2^64", [](G& g) { g.tensors[3].shift = 0 - std::uint64_t{1 << 20}; }, {"output_norm.weight"}},
        {"overlapping tensors", [](G& g) { g.tensors[3].shift = 0 - std::uint64_t{256}; }, {"output", "overlaps"}},
        {"a tensor twice", [](G& g) { g.tensors.push_back(g.tensors[3]); }, {"output_norm.weight"}},

        {"no tokenizer", [](G& g) { g.remove("tokenizer.ggml.model"); }, {"tokenizer.ggml.model"}},
        {"another tokenizer", [](G& g) { g.set("tokenizer.ggml.model", std::string("bert")); }, {"bert"}},
        {"another pre-tokenizer", [](G& g) { g.set("tokenizer.ggml.pre", std::string("qwen2")); }, {"qwen2"}},
        {"no tokens", [](G& g) { g.remove("tokenizer.ggml.tokens"); }, {"tokenizer.ggml.tokens"}},
        {"tokens as text", [](G& g) { g.set("tokenizer.ggml.tokens", std::string("a")); }, {"tokenizer.ggml.tokens"}},
        {"two tokens",
         [](G& g) {
             g.set("tokenizer.ggml.tokens", G::array, raw_strings(G::string, {"a", "b"}));
         },
         {}},
        {"no merges", [](G& g) { g.remove("tokenizer.ggml.merges"); }, {"tokenizer.ggml.merges"}},
        {"a merge of one",
         [](G& g) { g.set("tokenizer.ggml.merges", G::array, raw_strings(G::string, {"ab"})); },
         {R"("ab")"}},
        {"an unknown merge",
         [](G& g) { g.set("tokenizer.ggml.merges", G::array, raw_strings(G::string, {"q zzz"})); },
         {"zzz"}},
        {"a first token out of range", [](G& g) { g.set("tokenizer.ggml.bos_token_id", 768); }, {"bos_token_id"}},
        {"a last token out of range", [](G& g) { g.set("tokenizer.ggml.eos_token_id", -1); }, {"eos_token_id"}},
        {"types of other tokens",
         [](G& g) { g.set("tokenizer.ggml.token_type", G::array, G::raw_array(G::i32, std::vector<int>(700, 1))); },
         {"type"}},
    };
    check_refused_ggufs(scripted({}), cases);
}

TEST_CASE("damaged GGUF files of Gemma are refused") {
    using G = Gguf;
    const GgufCase cases[] = {
        {"no window", [](G& g) { g.set("gemma3.attention.sliding_window", 0); }, {"sliding_window"}},
        {"odd heads", [](G& g) { g.set("gemma3.attention.key_length", 63); }, {"head_dim", "odd"}},
        {"values of another width", [](G& g) { g.set("gemma3.attention.value_length", 32); }, {"value_length"}},
        {"K/V heads that do not divide", [](G& g) { g.set("gemma3.attention.head_count_kv", 3); }, {"heads"}},
        {"another RoPE", [](G& g) { g.set("gemma3.rope.scaling.type", std::string("yarn")); }, {"yarn"}},
        {"RoPE scaled by 0",
         [](G& g) {
             g.set("gemma3.rope.scaling.type", std::string("linear"));
             g.set("gemma3.rope.scaling.factor", 0.0f);
         },
         {"rope"}},
        {"RoPE that is no number", [](G& g) { g.set("gemma3.rope.freq_base", NAN); }, {"gemma3.rope.freq_base"}},
        {"no scores", [](G& g) { g.remove("tokenizer.ggml.scores"); }, {"tokenizer.ggml.scores"}},
        {"few scores",
         [](G& g) { g.set("tokenizer.ggml.scores", G::array, G::raw_array(G::f32, std::vector<float>(9))); },
         {"score"}},
        {"scores that are no numbers",
         [](G& g) { g.set("tokenizer.ggml.scores", G::array, G::raw_array(G::f32, std::vector<float>(1024, NAN))); },
         {"score"}},
        {"no first token", [](G& g) { g.remove("tokenizer.ggml.bos_token_id"); }, {"bos_token_id"}},
        {"GPT-2's tokenizer",
         [](G& g) { add_tokenizer(g, read_json(tiny("gpt2-tiny/tokenizer.json")), true); },
         {"does not fit", "768", "1024"}},
    };
    check_refused_ggufs(as_gguf(tiny("gemma3-tiny"), TensorType::bf16), cases);
}

TEST_CASE("a missing or misshapen tensor is named, whichever it is") {
    const TemporaryDirectory directory;
    for (const Gguf& whole : {scripted({}), as_gguf(tiny("gemma3-tiny"), TensorType::bf16)}) {
        std::set<std::string> kinds;
        for (std::size_t i = 0; i < whole.tensors.size(); ++i) {
            const std::string name = whole.tensors[i].name;
            if (!kinds.insert(name.substr(name.find('.', 4) + 1)).second) continue;  // a layer like another
            CAPTURE(name);
            Gguf less = whole, twisted = whole;
            less.tensors.erase(less.tensors.begin() + static_cast<std::ptrdiff_t>(i));
            twisted.tensors[i].shape.push_back(1);
            write_file(directory.path / "model.gguf", twisted.bytes());
            check_refused(directory.path / "model.gguf", {name == "token_embd.weight" ? "embedding" : name});
            if (name == "output.weight") continue;  // without it the head is the embedding
            write_file(directory.path / "model.gguf", less.bytes());
            check_refused(directory.path / "model.gguf", {name == "token_embd.weight" ? "embedding" : name});
        }
    }
}

TEST_CASE("files cut off anywhere, and files with any byte changed, are refused or loaded") {
    const TemporaryDirectory directory;
    const auto try_to_load = [&](const fs::path& path) {
        const std::string message = error_of([&] {
            Session session(load(path), 8);
            session.forward(std::vector<int>{1, 2, 3}.data(), 3);
        });
        if (!message.empty() && message.find(path.filename().string()) == std::string::npos &&
            message.find(path.parent_path().string()) == std::string::npos)
            FAIL_CHECK("names no file: " << message);
        return message;
    };
    fs::copy(tiny("gpt2-tiny"), directory.path / "hf");
    const std::pair<fs::path, std::string> wholes[] = {
        {directory.path / "model.gguf", scripted({1, 2, 3}).bytes()},
        {directory.path / "hf/tokenizer.json", read_file(tiny("gpt2-tiny/tokenizer.json"))},
        {directory.path / "hf/config.json", read_file(tiny("gpt2-tiny/config.json"))},
        {directory.path / "hf/model.safetensors", read_file(tiny("gpt2-tiny/model.safetensors"))},
    };
    Random random{9};
    for (const auto& [path, whole] : wholes) {
        const fs::path model = path.extension() == ".gguf" ? path : path.parent_path();
        const int header = static_cast<int>(std::min<std::size_t>(whole.size(), 20000));
        for (int i = 0; i < 150 / kThinned; ++i) {
            std::string damaged = whole;
            if (i % 3 == 0) damaged.resize(usize(random.below(header)));
            else damaged[usize(random.below(header))] = static_cast<char>(random.below(256));
            write_file(path, damaged);
            const std::string message = try_to_load(model);
            if (i % 3 == 0) CHECK(message != "");
        }
        write_file(path, whole);
        CHECK(try_to_load(model) == "");
    }
}

// ---- the API

TEST_CASE("a call that cannot work says what was asked and what is possible") {
    const Model model = load(tiny("gpt2-tiny"));
    Session session(model, 16);
    const std::vector<int> ids(20, 5);
    session.forward(ids.data(), 10);
    const auto with_ids = [&](std::vector<int> bad) { session.forward(bad.data(), static_cast<int>(bad.size())); };
    const auto with_shape = [](void (*change)(llm::Config&)) {
        llm::Config c = shape("gemma3", 32, 4, 2, 16, 64);
        change(c);
        Model::random(c);
    };
    const std::pair<std::function<void()>, std::vector<std::string>> cases[] = {
        {[&] { session.forward(ids.data(), 0); }, {"0"}},
        {[&] { session.forward(ids.data(), -1); }, {"-1"}},
        {[&] { session.forward(nullptr, 1); }, {"token"}},
        {[&] { session.forward(ids.data(), 7); }, {"7", "10", "16"}},
        {[&] {
             with_ids({1, 768});
         },
         {"768", "767"}},
        {[&] { with_ids({-1}); }, {"-1", "767"}},
        {[&] { session.forward_each(ids.data(), 7, [](int, const float*) {}); }, {"7", "10", "16"}},
        {[&] { session.rewind(-1); }, {"-1", "10"}},
        {[&] { session.rewind(11); }, {"11", "10"}},
        {[&] { Session other(model, 257); }, {"257", "256"}},
        {[&] { Session other(model, -1); }, {"-1", "256"}},
        {[&] { Session other(model, 16, -1); }, {"-1", "threads"}},
        {[&] { Session other(model, 16, 100000); }, {"100000", "threads"}},
        {[&] { load(tiny("gpt2-tiny"), DType::q8_0, -5); }, {"-5", "threads"}},
        {[&] { Model::load("no/such/model"); }, {"no/such/model"}},
        {[&] { Model::load(""); }, {"no such file"}},
        {[&] { Model::load("/dev/null"); }, {"/dev/null"}},
        {[&] { with_shape([](llm::Config& c) { c.vocab_size = 0; }); }, {"size"}},
        {[&] { with_shape([](llm::Config& c) { c.hidden_size = INT_MAX; }); }, {"size"}},
        {[&] { with_shape([](llm::Config& c) { c.head_dim = 15; }); }, {"head_dim"}},
        {[&] { with_shape([](llm::Config& c) { c.num_kv_heads = 3; }); }, {"num_kv_heads"}},
        {[&] { with_shape([](llm::Config& c) { c.is_local.pop_back(); }); }, {"is_local"}},
        {[&] { with_shape([](llm::Config& c) { c.sliding_window = 0; }); }, {"sliding_window"}},
        {[&] { with_shape([](llm::Config& c) { c.architecture = "gpt2"; }); }, {"heads"}},
    };
    for (std::size_t i = 0; i < std::size(cases); ++i) {
        CAPTURE(i);
        const std::string message = error_of(cases[i].first);
        CAPTURE(message);
        CHECK(message != "");
        for (const std::string& part : cases[i].second) CHECK(message.find(part) != std::string::npos);
    }
    CHECK(session.position() == 10);  // none of them did anything
    Session fresh(model, 16);
    fresh.forward(ids.data(), 10);
    CHECK(distance(last_logits(session, {7}), last_logits(fresh, {7})) == 0);

    Session untrained(Model::random(shape("gemma3", 32, 4, 2, 16, 64)));
    CHECK_THROWS_AS(llm::generate(untrained, "text", {}, nullptr), llm::Error);  // it has no tokenizer
}

// ==== LOOKUP, CHAT AND SAVED SESSIONS ================================================================================

// What a session holds, to be compared: its tokens, and the logits after one more.
std::pair<std::vector<int>, std::vector<float>> state_of(Session& session) {
    const std::vector<int> ids = session.tokens();
    const int at = session.position();
    if (at == session.context()) session.rewind(at - 1);
    std::vector<float> logits = last_logits(session, {7});
    session.rewind(std::min(at, session.position() - 1));
    return {ids, logits};
}

TEST_CASE("tokens tried out together have the logits of tokens one by one, to the last bit") {
    for (const detail::Kernels* kernels : thinned(detail::available_kernels())) {
        const Environment forced("LLM_SIMD", kernels->name);
        for (const std::string& name : kTinyModels)
            for (const DType dtype : kDTypes) {
                CAPTURE(std::string(kernels->name) + " " + name + " " + name_of(dtype));
                const Model model = load(tiny(name), dtype);
                const int vocab = model.config().vocab_size;
                Session session(model);
                Random random{5};
                const std::vector<int> ids = random.tokens((session.context() - 100) / (LLM_TSAN ? 4 : 1), vocab);
                const Logits expected = logits_of(session, ids, 1);
                detail::SessionData tried(model, 0, session.threads());
                std::size_t at = 0;
                for (int guesses = 0; at + 12 < ids.size(); guesses = (guesses + 5) % 12) {
                    const int right = random.below(guesses + 1);
                    std::vector<int> batch(ids.begin() + static_cast<std::ptrdiff_t>(at),
                                           ids.begin() + static_cast<std::ptrdiff_t>(at) + 1 + guesses);
                    for (int i = 1 + right; i <= guesses; ++i) batch[usize(i)] = random.below(vocab);
                    const float* logits = tried.try_out(batch.data(), 1 + guesses);
                    REQUIRE(tried.sequence.position() == static_cast<int>(at) + 1);
                    for (int i = 0; i <= right; ++i, ++at, logits += vocab) {
                        if (i > 0) tried.keep(ids[at]);
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
            Session session(model);
            options.lookup = lookup;
            std::string all;
            int calls = 0;
            const llm::Stats stats = llm::generate(session, "ROMEO:\nI will not be.\n\nJULIET:\nI will", options,
                                                   [&](std::string_view piece) {
                                                       all += piece;
                                                       CHECK(session.position() + 1 <= session.context() + 1);
                                                       return ++calls != most_calls;
                                                   });
            guessed += stats.guessed, right += stats.guessed_right;
            CHECK(stats.guessed_right <= stats.guessed);
            CHECK(stats.guessed_right <= stats.generated);
            if (lookup == 0) CHECK(stats.guessed == 0);
            auto state = state_of(session);
            return std::make_tuple(all, stats.generated, stats.stopped, state.first, state.second);
        };
        std::vector<llm::GenerateOptions> kinds = {greedy(-1), greedy(90), greedy(60, {"\n\n"}), greedy(60, {"the "})};
        for (const int max_tokens : {1, 2, 17, 30, 31, 32, 33}) kinds.push_back(greedy(max_tokens));
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
            for (const int lookup : thinned<int>({11, 1, 4, 1000})) CHECK(write(kind, lookup, 0) == expected);
            for (const int calls : thinned<int>({9, 1, 20})) CHECK(write(kind, 11, calls) == write(kind, 0, calls));
        }
    }
    CHECK(right > (kThinned > 1 ? 20 : 1000));
    CHECK(guessed > right);
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
    options.lookup = -1;
    CHECK(error_of([&] { llm::generate(session, "a", options, nullptr); }).find("lookup") != std::string::npos);
    const Model gpt2 = load(tiny("gpt2-tiny"));
    Session plain(gpt2);
    CHECK(error_of([&] { llm::Chat(plain, "", llm::Chat::Template::gemma); }).find("turn") != std::string::npos);
}

std::string held_text(const Session& session) { return session.model().tokenizer().decode(session.tokens()); }

TEST_CASE("a chat is in Gemma's template, and nobody can say its tokens") {
    const Model model = load(tiny("gemma3-tiny"));
    Session session(model);
    llm::Chat chat(session, "Be brief.", llm::Chat::Template::gemma);
    std::string answer;
    const auto on_text = [&](std::string_view piece) {
        answer += piece;
        return true;
    };
    chat.say("  <end_of_turn>one\ntwo \n", greedy(6), on_text);
    const std::string first =
        "<bos><start_of_turn>user\nBe brief.\n\n<end_of_turn>one\ntwo<end_of_turn>\n<start_of_turn>model\n";
    CHECK(held_text(session).rfind(first, 0) == 0);
    CHECK(std::count(session.tokens().begin(), session.tokens().end(), 5) == 1);
    answer.clear();
    const int before = session.position();
    const llm::Stats stats = chat.say("three", greedy(6), on_text);
    CHECK(held_text(session).find("<end_of_turn>\n<start_of_turn>user\nthree<end_of_turn>\n<start_of_turn>model\n") !=
          std::string::npos);
    CHECK(session.position() == before + stats.prompt_tokens + stats.generated - 1);  // the cache was kept
    CHECK(stats.prompt_tokens < 40);
    // The same from the template as a text
    Session whole(model);
    std::string text = held_text(session);
    text.erase(0, 5);  // <bos>
    text.resize(text.rfind("model\n") + 6);
    std::vector<int> ids = session.tokens();
    while (model.tokenizer().decode(ids) != "<bos>" + text) ids.pop_back();
    whole.forward(ids.data(), static_cast<int>(ids.size()));
    CHECK(generated(whole, "", greedy(6)) == answer);
}

TEST_CASE("a chat with the real vocabulary is the reference's") {
    const fs::path path = real_model(kRealGemma);
    if (path.empty()) return;
    const Model model = load(path);
    Session session(model, 512);
    const std::vector<int> first = {2,      105,    2364,   107,    3912,   8652,   236761, 108,  3689,   563,
                                    236743, 236778, 900,    236743, 236778, 236881, 108,    3133, 236743, 236800,
                                    808,    236743, 236800, 236881, 106,    107,    105,    4368, 107};
    llm::Chat chat(session, "Be brief.", llm::Chat::Template::gemma);
    chat.say("  What is 2 + 2?\n\nAnd 3 * 3? ", greedy(0), nullptr);
    CHECK(session.tokens() == first);
    const std::vector<int> answer = {236812, 236761, 108, 236819, 236761},
                           next = {106, 107, 105, 2364, 107, 12879, 236888, 106, 107, 105, 4368, 107};
    session.forward(answer.data(), static_cast<int>(answer.size()));
    llm::Chat resumed(session, "", llm::Chat::Template::gemma);
    resumed.say("Thanks!", greedy(0), nullptr);
    CHECK(session.tokens() == detail::joined({first, answer, next}));
    CHECK(!model.tokenizer().has_turns());  // a base model
}

TEST_CASE("a model that was trained for turns is known by its files") {
    CHECK(!load(tiny("gemma3-tiny")).tokenizer().has_turns());
    CHECK(!load(tiny("gpt2-tiny")).tokenizer().has_turns());
    const TemporaryDirectory directory;
    Gguf file = as_gguf(tiny("gemma3-tiny"), TensorType::f32);
    const auto has_turns = [&] {
        write_file(directory.path / "model.gguf", file.bytes());
        return load(directory.path / "model.gguf").tokenizer().has_turns();
    };
    CHECK(!has_turns());
    file.set("tokenizer.chat_template", std::string("{{ bos_token }}..."));
    CHECK(has_turns());
    const fs::path copy = directory.path / "copy";
    fs::copy(tiny("gemma3-tiny"), copy);
    fs::permissions(copy / "config.json", fs::perms::owner_write, fs::perm_options::add);
    write_file(copy / "generation_config.json", R"({"eos_token_id": [1, 5]})");
    CHECK(load(copy).tokenizer().has_turns());
}

TEST_CASE("a chat drops its oldest turns whole when the context is full") {
    for (const auto style : {llm::Chat::Template::gemma, llm::Chat::Template::plain}) {
        const bool plain = style == llm::Chat::Template::plain;
        CAPTURE(plain);
        const Model model = load(tiny("gemma3-tiny"));
        Session session(model, 160);
        llm::Chat chat(session, "SYSTEM", style);
        int turns = 0;
        for (const char c : std::string("abcdefghijklmnop")) {
            const std::string words = std::string("turn ") + c + " ends.";
            chat.say(words, greedy(12), nullptr);
            ++turns;
            const std::string text = held_text(session),
                              head = plain ? "<bos>SYSTEM\n\n" : "<bos><start_of_turn>user\nSYSTEM\n\n";
            CAPTURE(text);
            CHECK(text.rfind(head + "turn ", 0) == 0);
            CHECK(text.find("SYSTEM", head.size()) == std::string::npos);
            int held = 0;
            for (std::size_t at = 0; (at = text.find(" ends.", at)) != std::string::npos; ++at) ++held;
            CHECK(held == turns - chat.dropped());
            CHECK(text.find(words) != std::string::npos);
        }
        CHECK(chat.dropped() > 6);
        CHECK(chat.dropped() < turns);
        // What is held is what a session would hold that began there.
        Session fresh(model, 160);
        const std::vector<int> ids = session.tokens();
        fresh.forward(ids.data(), static_cast<int>(ids.size()));
        CHECK(distance(last_logits(fresh, {9}), last_logits(session, {9})) < 0.2f);  // Q8_0, other batches
        const std::string error = error_of([&] { chat.say(std::string(2000, 'x'), greedy(12), nullptr); });
        CHECK(error.find("160") != std::string::npos);
    }
}

TEST_CASE("a turn of a chat that was ended while it was read, or by an exception, is forgotten") {
    const Model model = load(tiny("gemma3-tiny"), DType::f32);
    Session session(model), other(model);
    llm::Chat chat(session, "", llm::Chat::Template::gemma), untroubled(other, "", llm::Chat::Template::gemma);
    const auto both = [&](const char* words) {
        chat.say(words, greedy(8), nullptr);
        untroubled.say(words, greedy(8), nullptr);
        CHECK(session.tokens() == other.tokens());
    };
    both("one");
    llm::GenerateOptions options = greedy(8);
    const std::string longer(400, 'y');
    for (const int end : {1, 256, 100000}) {
        options.on_prompt = [&](int done, int total) { return done < end && done < total; };
        CHECK(chat.say(longer, options, nullptr).generated == 0);
    }
    both("two");
    struct Stop {};
    CHECK_THROWS_AS(chat.say("three", greedy(8), [](std::string_view) -> bool { throw Stop(); }), Stop);
    both("four");
    chat.say("five", greedy(8), [](std::string_view) { return false; });  // this one is kept
    CHECK(held_text(session).find("five") != std::string::npos);
}

TEST_CASE("a plain chat goes on in the same text, after a stop text without a blank line") {
    const Model model = writer_of("##one END two three four");
    Session session(model);
    llm::Chat chat(session);
    chat.say("A", greedy(20, {"END"}), nullptr);
    CHECK(held_text(session) == "A##one EN");  // the last token was only shown, it is read with what follows
    chat.say("B", greedy(1), nullptr);
    CHECK(held_text(session).find("A##one ENDB") == 0);
    chat.say("C", greedy(0), nullptr);
    CHECK(held_text(session).find("\n\nC") != std::string::npos);
}

TEST_CASE("a saved session goes on where it was, in any context it fits into") {
    for (const std::string& name : kTinyModels)
        for (const DType dtype : {DType::f32, DType::q8_0}) {
            CAPTURE(name + " " + name_of(dtype));
            const Model model = load(tiny(name), dtype);
            const int most = model.config().context_length;
            const TemporaryDirectory directory;
            const std::string file = (directory.path / "session").string();
            const std::vector<int> ids = Random{6}.tokens(most, model.config().vocab_size);
            // Tokens held, how many more came and were taken back, contexts of the writer and the reader
            struct Case {
                int held, more, context, readers;
            };
            const Case cases[] = {{0, 0, most, most},
                                  {1, 0, 16, most},
                                  {15, 0, most, 16},
                                  {16, 0, most, 17},
                                  {64, 3, 80, most},
                                  {100, 0, most, 101},
                                  {most - 60, 59, most, most - 58},
                                  {most - 60, 59, most, most},
                                  {most - 130, 129, most, most - 100},
                                  {most, 0, most, most}};
            for (const Case& one : cases) {  // not taken apart: CAPTURE could not see the parts
                const int held = one.held, more = one.more, context = one.context, readers = one.readers;
                CAPTURE(held);
                Session session(model, context);
                if (held + more > 0) session.forward(ids.data(), held + more);
                session.rewind(held);
                session.save(file);
                Session reader(model, readers);
                reader.forward(ids.data() + 3, 5);
                reader.load(file);
                CHECK(reader.tokens() == session.tokens());
                for (int to : {held, held - 1, held - 40, held - 200}) {
                    if (to < 0 || to >= std::min(context, readers)) continue;
                    session.rewind(to);
                    reader.rewind(to);
                    const int n = std::min({3, context - to, readers - to});
                    CHECK(logits_of(reader, {ids.begin(), ids.begin() + n}, 1) ==
                          logits_of(session, {ids.begin(), ids.begin() + n}, 1));
                    session.rewind(to);
                    reader.rewind(to);
                }
            }
            // A token that was shown and not yet read
            Session whole(model), first(model), second(model);
            const std::string expected = generated(whole, "To be", greedy(40));
            const std::string begun = generated(first, "To be", greedy(17));
            first.save(file);
            second.load(file);
            CHECK(begun + generated(second, "", greedy(23)) == expected);
        }
}

TEST_CASE("a saved session that is damaged or of another model is refused, and nothing changes") {
    const Model model = load(tiny("gemma3-tiny"));
    Session session(model), writer(model);
    generated(writer, "ROMEO:", greedy(45));
    const TemporaryDirectory directory;
    const std::string file = (directory.path / "session").string();
    writer.save(file);
    const std::string good = read_file(file);
    const std::string before = generated(session, "JULIET:", greedy(5));
    const std::vector<int> held = session.tokens();
    const auto refused = [&](const std::string& bytes) {
        write_file(file, bytes);
        const std::string error = error_of([&] { session.load(file); });
        CHECK(session.tokens() == held);
        return error;
    };
    for (std::size_t i = 0; i < good.size(); i += i < 300 ? 1 : 997) {
        std::string bad = good;
        bad[i] = static_cast<char>(bad[i] ^ (1 << i % 8));
        CAPTURE(i);
        CHECK(refused(bad).find(file) != std::string::npos);
        CHECK(refused(good.substr(0, i)).find(file) != std::string::npos);
    }
    CHECK(refused(good + "x").find("damaged") != std::string::npos);
    CHECK(refused("").find("not a saved session") != std::string::npos);
    // Tokens and counts that are wrong, under a checksum that is right
    const auto signed_again = [&](std::size_t at, int value) {
        std::string bytes = good.substr(0, good.size() - 8);
        std::memcpy(&bytes[at], &value, sizeof value);
        std::uint64_t sum = detail::hash(0, bytes.data(), 32);
        const int n = writer.position() + 1;
        sum = detail::hash(sum, bytes.data() + 32, usize(n - 1) * 4);
        sum = detail::hash(sum, bytes.data() + 32 + (n - 1) * 4, 4);
        sum = detail::hash(sum, bytes.data() + 32 + n * 4, bytes.size() - 32 - usize(n) * 4);
        return bytes + Gguf::raw(sum);
    };
    CHECK(signed_again(32, writer.tokens()[0]) == good);
    for (const int id : {-1, 1024, INT_MAX}) CHECK(refused(signed_again(32, id)).find("damaged") != std::string::npos);
    for (const std::size_t at : {12u, 16u, 20u})  // held, unread, written
        for (const int count : {-1, 2, 600, INT_MAX})
            CHECK(refused(signed_again(at, count)).find(file) != std::string::npos);
    CHECK(refused(signed_again(8, 2)).find("version 2") != std::string::npos);
    CHECK(generated(session, "", greedy(20)) == [&] {
        Session fresh(model);
        return generated(fresh, "JULIET:", greedy(25)).substr(before.size());
    }());

    write_file(file, good);
    const auto load_into = [&](const Model& other, int context) {
        Session reader(other, context);
        return error_of([&] { reader.load(file); });
    };
    CHECK(load_into(load(tiny("gpt2-tiny")), 0).find("another model") != std::string::npos);
    CHECK(load_into(load(tiny("gemma3-tiny"), DType::f32), 0).find("another model") != std::string::npos);
    CHECK(load_into(Model::random(model.config()), 0).find("another model") != std::string::npos);
    CHECK(load_into(model, 20).find("larger than 20") != std::string::npos);
    CHECK(load_into(model, writer.position()) == "");
    CHECK(error_of([&] { session.load("no/such/file"); }).find("no/such/file") != std::string::npos);
    // What cannot be written leaves nothing behind.
    const fs::path taken = directory.path / "taken";
    fs::create_directories(taken / "inside");
    for (const std::string& target : {taken.string(), (taken / "no" / "session").string()})
        CHECK(error_of([&] { writer.save(target); }).find(target) != std::string::npos);
    CHECK(std::distance(fs::directory_iterator(directory.path), fs::directory_iterator()) == 2);
}

TEST_CASE("llm: a conversation through a pipe") {
    const Outcome o = run_llm({"--chat", "-n", "10", "--temp", "0"}, "ROMEO:\n\n \nJULIET: \\\nI am\n");
    CHECK(o.status == 0);
    Session session(load(tiny("gemma3-tiny")));
    llm::Chat chat(session);
    std::string expected;
    for (const char* words : {"ROMEO:", "JULIET: \nI am"}) {
        chat.say(words, greedy(10), [&](std::string_view piece) {
            expected += piece;
            return true;
        });
        expected += "\n";
    }
    CHECK(o.out == expected);
    CHECK(o.err.find("generated: 20 tokens") != std::string::npos);
    // A turn that does not fit is an error, and the conversation goes on.
    const Outcome longer = run_llm({"--chat", "-n", "5", "-c", "64", "-q"}, "A\n" + std::string(900, 'x') + "\nB\n");
    CHECK(longer.status == 1);
    CHECK(longer.err.find("too long") != std::string::npos);
    CHECK(std::count(longer.err.begin(), longer.err.end(), '\n') == 1);
    std::string many;
    for (int i = 0; i < 12; ++i) many += "ROMEO: once more, JULIET.\n";
    const Outcome full = run_llm({"--chat", "-n", "10", "-c", "90", "-q", "--system", "A play."}, many);
    CHECK(full.status == 0);
    CHECK(full.err.find("oldest turns are forgotten") != std::string::npos);
    CHECK(full.out.find('\033') == std::string::npos);  // no terminal, no colours
    // The prompt is the first turn.
    CHECK(output({"--chat", "-n", "10", "--temp", "0", "-p", "ROMEO:"}, "JULIET: \\\nI am\n") == expected);
    CHECK(output({"--chat", "-n", "3", "--chat-template", "gemma", "hello"}) != "");
    CHECK(run_llm({"--chat", "-m", "models/gpt2-tiny", "--chat-template", "gemma", "a"}).status == 1);
    CHECK(run_llm({"--chat", "--chat-template", "llama", "a"}).err.find("'llama'") != std::string::npos);
}

TEST_CASE("llm: --save and --load go on with a text or a conversation, --lookup changes nothing") {
    const TemporaryDirectory directory;
    const std::string file = (directory.path / "session").string();
    const std::string whole = output({"ROMEO:", "-n", "60", "--temp", "0"});
    std::string text = output({"ROMEO:", "-n", "20", "--temp", "0", "--save", file});
    text.pop_back();
    CHECK(text + output({"-n", "40", "--temp", "0", "--load", file, "--save", file}) == whole);
    CHECK(output({"ROMEO:", "-n", "60", "--temp", "0", "--lookup", "8"}) == whole);
    CHECK(output({"ROMEO:", "-n", "200", "-s", "3", "--lookup", "8"}) == output({"ROMEO:", "-n", "200", "-s", "3"}));
    const Outcome guessing = run_llm({"ROMEO:", "-n", "20", "--lookup", "8"});
    CHECK(guessing.err.find("guessed right: ") != std::string::npos);

    const std::vector<std::string> chat = {"--chat", "-n", "10", "--temp", "0"};
    const auto with = [&](std::vector<std::string> more) {
        more.insert(more.end(), chat.begin(), chat.end());
        return more;
    };
    const std::string both = output(chat, "ROMEO:\nJULIET:\n");
    const std::string first = output(with({"--save", file}), "ROMEO:\n");
    CHECK(first + output(with({"--load", file}), "JULIET:\n") == both);
    for (const char* task : {"--tokenize", "--perplexity", "--info"})
        CHECK(run_llm({task, "--load", file, "a"}).err.find("--load") != std::string::npos);
    CHECK(run_llm({"--load", file, "-m", "models/gpt2-tiny"}).status == 1);
    CHECK(run_llm({"a", "-n", "1", "--save", "no/such/directory/session"}).status == 1);
}

// A program on a terminal of its own.
class Terminal {
  public:
    Terminal(const std::string& name, const std::vector<std::string>& args) {
        const fs::path beside = fs::absolute(program()).parent_path() / name;
        REQUIRE_MESSAGE(fs::exists(beside), beside.string() << " is missing: run make first");
        std::vector<std::string> all = {beside.string()};
        all.insert(all.end(), args.begin(), args.end());
        std::vector<char*> pointers;
        for (std::string& arg : all) pointers.push_back(arg.data());
        pointers.push_back(nullptr);
        const std::string directory = repository().string();
        master_ = posix_openpt(O_RDWR | O_NOCTTY);
        REQUIRE(master_ >= 0);
        REQUIRE(grantpt(master_) == 0);
        REQUIRE(unlockpt(master_) == 0);
        const std::string slave = ptsname(master_);
        child_ = fork();
        REQUIRE(child_ >= 0);
        if (child_ > 0) return;
        setsid();  // the terminal that is opened now becomes its own
        const int terminal = ::open(slave.c_str(), O_RDWR);
#ifdef TIOCSCTTY
        ioctl(terminal, TIOCSCTTY, 0);  // where opening is not enough
#endif
        for (const int descriptor : {0, 1, 2}) dup2(terminal, descriptor);
        if (chdir(directory.c_str()) == 0) execv(pointers[0], pointers.data());
        _exit(127);
    }
    ~Terminal() {
        if (child_ > 0) kill(child_, SIGKILL), waitpid(child_, nullptr, 0);
        close(master_);
    }
    Terminal(const Terminal&) = delete;
    Terminal& operator=(const Terminal&) = delete;

    void type(const std::string& keys) { REQUIRE(::write(master_, keys.data(), keys.size()) == ssize_t(keys.size())); }
    // Reads until what was shown since the last call holds the text, or the program's end; a minute at the most.
    std::string wait_for(const std::string& text) {
        std::string shown;
        while (text.empty() || shown.find(text) == std::string::npos) {
            pollfd ready{master_, POLLIN, 0};
            REQUIRE_MESSAGE(poll(&ready, 1, 60000) > 0, "nothing more came after: " << shown);
            char bytes[4096];
            const ssize_t n = ::read(master_, bytes, sizeof bytes);
            if (n <= 0) break;
            shown.append(bytes, usize(n));
        }
        return shown;
    }
    int status() {  // of the program, once it has ended
        wait_for("");
        int raw = 0;
        REQUIRE(waitpid(std::exchange(child_, -1), &raw, 0) > 0);
        return WIFEXITED(raw) ? WEXITSTATUS(raw) : -1;
    }
  private:
    int master_ = -1;
    pid_t child_ = -1;
};

// The small Gemma with so large a context that neither a prompt nor an answer fills it while a test waits for something.
struct Endless {
    TemporaryDirectory directory;
    std::string prompt = (directory.path / "prompt").string();
    std::vector<std::string> args = {
        "-m", directory.path.string(), "-c", "40000", "-n", "-1", "--ignore-eos", "-t", "1", "--dtype", "f32"};
    Environment slow{"LLM_SIMD", "scalar"}, kind{"TERM", "xterm"};

    Endless() {
        for (const char* file : {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"})
            write_file(directory.path / file, read_file(tiny("gemma3-tiny") + "/" + file));
        const std::string config = read_file(directory.path / "config.json"), length = "\"max_position_embeddings\": ";
        REQUIRE(config.find(length + "512") != config.npos);
        write_file(directory.path / "config.json", detail::replace_all(config, length + "512", length + "40000"));
    }
    void write_prompt(int words) const {
        std::string text = "ROMEO:";
        for (int i = 0; i < words; ++i) text += " the";
        write_file(prompt, text);
    }
    std::vector<std::string> with(const std::vector<std::string>& more) const {
        std::vector<std::string> all = args;
        all.insert(all.end(), more.begin(), more.end());
        return all;
    }
};

TEST_CASE("llm: a conversation on a terminal") {
    const Endless model;
    {
        Terminal terminal("llm", model.with({"--chat"}));
        CHECK(terminal.wait_for("> ").find("\033[32m> ") != std::string::npos);
        terminal.type("ROMEO: \\\n");
        terminal.wait_for(". ");
        terminal.type("I am\n");
        terminal.wait_for("am\r\n");
        terminal.wait_for(" ");  // the answer has begun
        terminal.type("\x03");
        terminal.wait_for("> ");  // and is ended
        terminal.type("\x04");
        CHECK(terminal.status() == 0);
    }
    {
        Terminal terminal("llm", model.with({"--chat"}));
        terminal.wait_for("> ");
        terminal.type("\x03");
        CHECK(terminal.status() == 130);
    }
    const Environment plain("NO_COLOR", "1");
    Terminal terminal("llm", model.with({"--chat"}));
    CHECK(terminal.wait_for("> ").find("\033[3") == std::string::npos);
    terminal.type("\x04");
    CHECK(terminal.status() == 0);
}

TEST_CASE("llm --chat: a first Ctrl-C ends the answer, a second one the program") {
    const Endless model;
    {
        Terminal terminal("llm", model.with({"--chat", "-p", "ROMEO:"}));
        terminal.wait_for("\n");
        terminal.type("\x03");
        const std::string shown = terminal.wait_for("> ");
        REQUIRE(shown.find("> ") != std::string::npos);
        terminal.type("JULIET:\n");  // the conversation goes on
        terminal.wait_for("\n");
        terminal.wait_for("\n");
        terminal.type("\x03");
        REQUIRE(terminal.wait_for("> ").find("> ") != std::string::npos);
        terminal.type("\x03");
        CHECK(terminal.status() == 130);
    }
    model.write_prompt(30000);
    Terminal terminal("llm", model.with({"--chat", "-f", model.prompt}));
    terminal.wait_for("] prompt");  // it is being read
    terminal.type("\x03");
    REQUIRE(terminal.wait_for("> ").find("> ") != std::string::npos);
    terminal.type("\x03");
    CHECK(terminal.status() == 130);
}

TEST_CASE("llm: Ctrl-C ends a text in good order, colours and bars are for terminals") {
    const Endless model;
    {
        Terminal terminal("llm", model.with({"ROMEO:"}));
        const std::string shown = terminal.wait_for("ROMEO:");
        CHECK(shown.find("[####") != std::string::npos);  // while loading
        CHECK(shown.find("\033[32mROMEO:") != std::string::npos);
        terminal.wait_for("\n");
        terminal.type("\x03");
        CHECK(terminal.wait_for("generated: ").find("generated: ") != std::string::npos);
        CHECK(terminal.status() == 130);
    }
    const std::vector<std::string> wrong = {"-m", "no/such/model"}, brief = {"ROMEO:", "-n", "3"};
    {
        Terminal terminal("llm", wrong);
        CHECK(terminal.wait_for("check").find("\033[31mllm:\033[0m") != std::string::npos);
        CHECK(terminal.status() == 1);
    }
    {
        const Environment no_color("NO_COLOR", "1");
        Terminal terminal("llm", brief), failing("llm", wrong);
        const std::string shown = terminal.wait_for("");
        CHECK(shown.find("\033[3") == std::string::npos);
        CHECK(shown.find("[####") != std::string::npos);  // a bar is no colour
        CHECK(failing.wait_for("").find("\033[3") == std::string::npos);
    }
    const Environment dumb("TERM", "dumb");
    Terminal simple("llm", brief);
    CHECK(simple.wait_for("seed").find('\033') == std::string::npos);
    CHECK(simple.status() == 0);
}

TEST_CASE("llm: a prompt that takes more than a second shows a bar, on a terminal only") {
    const Endless model;
    const std::vector<std::string> args = model.with({"-f", model.prompt, "-n", "1"});
    std::string shown;
    int words = 512;
    for (; words <= 32768; words *= 2) {  // however fast this machine is
        model.write_prompt(words);
        Terminal terminal("llm", args);
        shown = terminal.wait_for("");
        CHECK(terminal.status() == 0);
        if (shown.find("] prompt") != std::string::npos) break;
    }
    REQUIRE(words <= 32768);
    const std::size_t bar = shown.find("] prompt"), gone = shown.rfind("\r\033[K"), text = shown.find("ROMEO:");
    CHECK(bar < gone);  // the line is clear when the text comes
    CHECK(gone < text);
    CHECK(text != std::string::npos);
    const Outcome piped = run_llm(args);
    CHECK(piped.status == 0);
    CHECK(piped.out.find("ROMEO: the") == 0);
    CHECK(piped.err.find("prompt: ") == 0);  // the figures, in one line, are all
    CHECK(piped.err.find_first_of("[\r\033") == std::string::npos);
    CHECK(std::count(piped.err.begin(), piped.err.end(), '\n') == 1);
}

TEST_CASE("llm: Ctrl-C while the prompt is read ends the program between two chunks") {
    const Endless model;
    model.write_prompt(30000);
    Terminal terminal("llm", model.with({"-f", model.prompt}));
    terminal.wait_for("] prompt");
    terminal.type("\x03");
    const std::string shown = terminal.wait_for("");
    CHECK(shown.find("ROMEO:") == std::string::npos);  // it would be there once all was read
    CHECK(shown.find("generated: 0 tokens") != std::string::npos);
    CHECK(terminal.status() == 130);
}

// ==== EXAMPLES AND BUILDS ============================================================================================

// Compiles a program of sources in the repository; returns the error messages.
std::string compile(const fs::path& result, const std::vector<std::string>& sources, const std::string& flags) {
#ifdef __clang__
    const std::string compiler = environment("CXX", "clang++");
#else
    const std::string compiler = environment("CXX", "g++");
#endif
    const std::string log = result.string() + ".log";
    std::string command = "cd " + quoted(repository().string()) + " && " + compiler +
                          " -std=c++17 -O0 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror -I. " + flags;
    for (const std::string& source : sources) command += " " + quoted(source);
    command += " -o " + quoted(result.string()) + " >" + quoted(log) + " 2>&1";
    return std::system(command.c_str()) == 0 ? "" : "failed: " + read_file(log);
}

// Each example is compiled with another set of the header's defines, and run.
TEST_CASE("the examples run, and the header's defines do what they say") {
    if (LLM_ASAN || LLM_TSAN) return;  // what it compiles is without them
    const TemporaryDirectory directory;
    const auto run_it = [&](const std::string& name, const std::vector<std::string>& args,
                            const std::string& input = "") {
        write_file(directory.path / "in", input);
        std::string command = "cd " + quoted(repository().string()) + " && " + quoted((directory.path / name).string());
        for (const std::string& arg : args) command += " " + quoted(arg);
        command += " <" + quoted((directory.path / "in").string()) + " >" + quoted((directory.path / "out").string());
        CHECK(std::system((command + " 2>&1").c_str()) == 0);
        return read_file(directory.path / "out");
    };
    // Two .cpp files with a copy of their own each, which would clash if the linker saw them
    const std::string second = (directory.path / "second.cpp").string();
    write_file(second, "#include \"llm.h\"\nint second() { return llm::Sampler().sample(nullptr, 1); }\n");
    CHECK(compile(directory.path / "hello", {"examples/hello.cpp", second}, "-DLLM_STATIC -pthread") == "");
    const std::string hello = run_it("hello", {});
    Session session(load(tiny("gemma3-tiny")));
    llm::GenerateOptions options;
    options.max_tokens = 60;
    // Built without optimization, sums round otherwise here and there, and a sampled text may part from its twin later on.
    CHECK(hello.size() > 80);
    CHECK(hello.substr(0, 40) == generated(session, "ROMEO:", options).substr(0, 40));

    const std::string threadless = (directory.path / "threadless.cpp").string();
    write_file(threadless,
               "#define LLM_IMPLEMENTATION\n#include \"llm.h\"\n"
               "#if defined(_GLIBCXX_THREAD) || defined(_LIBCPP_THREAD)\n#error threads\n#endif\n");
    CHECK(compile(directory.path / "threadless.o", {threadless}, "-DLLM_NO_THREADS -c") == "");
    CHECK(compile(directory.path / "threads.o", {threadless}, "-fsyntax-only").find("threads") != std::string::npos);
    CHECK(compile(directory.path / "chat", {"examples/chat.cpp"}, "-DLLM_NO_THREADS") == "");
    const std::string chat = run_it("chat", {tiny("gpt2-tiny")}, "ROMEO:\nJULIET:\n");
    CHECK(std::count(chat.begin(), chat.end(), '>') == 3);
    CHECK(chat.size() > 100);
    CHECK(compile(directory.path / "embeddings", {"examples/embeddings.cpp"}, "-DLLM_NO_SIMD -pthread") == "");
    const auto alike = [&](const char* a, const char* b) {
        return std::stof(run_it("embeddings", {tiny("gemma3-tiny"), a, b}));
    };
    CHECK(alike("my lord the king", "my lord the king") > 0.9999f);
    CHECK(alike("my lord the king", "my lord the queen") > alike("my lord the king", "1623\n\n42 # <tag>"));

    CHECK(compile(directory.path / "choice", {"examples/choice.cpp"}, "-pthread") == "");
    std::istringstream lines(run_it("choice", {tiny("gemma3-tiny"), "To be, or not to", " be", " xylophone", " be"}));
    double best, worst, again;
    std::string word;
    lines >> best >> word >> worst >> word >> again;
    CHECK(best > worst);
    CHECK(best == again);
    CHECK(best < 0);
}

TEST_CASE("make install puts the program and the header under PREFIX, make uninstall takes them away") {
    const TemporaryDirectory directory;
    const auto make = [&](const std::string& target) {
        const std::string beside = fs::absolute(program()).parent_path().string();
        return std::system(("cd " + quoted(repository().string()) + " && make -s " + target +
                            " BUILD=" + quoted(beside) + " DESTDIR=" + quoted(directory.path.string()) +
                            " PREFIX=/opt/x >/dev/null 2>&1")
                               .c_str());
    };
    CHECK(make("install") == 0);
    const fs::path prefix = directory.path / "opt" / "x";
    CHECK(read_file(prefix / "include" / "llm.h") == read_file(repository() / "llm.h"));
    CHECK(std::system((quoted((prefix / "bin" / "llm").string()) + " --version >/dev/null").c_str()) == 0);
    CHECK(make("uninstall") == 0);
    CHECK(!fs::exists(prefix / "bin" / "llm"));
    CHECK(!fs::exists(prefix / "include" / "llm.h"));
}

// ==== README =========================================================================================================

TEST_CASE("the README's program compiles as printed, and writes") {
    if (LLM_ASAN || LLM_TSAN) return;  // what it compiles is without them
    const std::string readme = read_file(repository() / "README.md"), fence = "```cpp\n";
    const std::size_t begin = readme.find(fence), end = readme.find("```", begin + fence.size());
    REQUIRE(end != std::string::npos);
    const std::string source = readme.substr(begin + fence.size(), end - begin - fence.size());
    CHECK(std::count(source.begin(), source.end(), '\n') <= 24);
    const TemporaryDirectory directory;
    write_file(directory.path / "hello.cpp", source);
#ifdef __clang__
    const std::string compiler = environment("CXX", "clang++");
#else
    const std::string compiler = environment("CXX", "g++");
#endif
    const std::string hello = (directory.path / "hello").string(), log = hello + ".log";
    const std::string command = compiler + " -std=c++17 -O2 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror -I" +
                                quoted(repository().string()) + " " + quoted(hello + ".cpp") + " -pthread -o " +
                                quoted(hello) + " >" + quoted(log) + " 2>&1";
    REQUIRE_MESSAGE(std::system(command.c_str()) == 0, read_file(log));
    const auto run_it = [&](const std::string& model) {
        return std::system((quoted(hello) + " " + quoted(model) + " >" + quoted(log) + " 2>&1").c_str());
    };
    CHECK(run_it(tiny("gemma3-tiny")) == 0);
    CHECK(read_file(log).size() > 60);
    CHECK(run_it("no/such/model") != 0);
    CHECK(read_file(log).find("no/such/model") != std::string::npos);
}

}  // namespace

#include "profile_tests.cpp"
#ifdef __linux__  // memory and threads are counted in its ways
#include "robust_tests.cpp"
#endif

int main(int argc, char** argv) {
    program() = argv[0];
    doctest::Context context(argc, argv);
    return context.run();
}
