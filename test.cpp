// build/test: the tests of llm.h, main.cpp and bench.cpp. What they compare with lies in testdata/ (numbers of the
// reference, Hugging Face transformers in F32) and in models/. Sections, in this order:
//
//     helpers        numbers     kernels              model files    tokenizers    golden numbers
//     sampling       generate    the command lines    refused input  README
//
// Tests of real models run where these are: models/gemma-3-270m-q4_k_m.gguf (`make gemma` gets it), and a directory
// that the environment's LLM_REAL names (~/.cache/llm-real if it does not) with gemma-3-270m-hf/ and gpt2-124m/.
// LLM_FIXTURES may name a directory of more model files with a golden.json like testdata/layouts/golden.json.

#define DOCTEST_CONFIG_IMPLEMENT
#if __has_include(<doctest/doctest.h>)
#include <doctest/doctest.h>
#else
#include <doctest.h>
#endif

#define LLM_IMPLEMENTATION
#include "llm.h"

#include <sys/wait.h>

#include <cstdlib>
#include <fstream>
#include <iostream>

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
        if (fs::exists(place / name)) return place / name;
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
JsonDocument read_json(const fs::path& path) { return JsonDocument::parse(read_file(path), path.string()); }

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
template <class Call>
std::string error_of(const Call& call) {
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

// Q8_0 products of a group with m tokens. Weights and activations are random bytes, or all at an end of their range.
std::vector<float> product_q8(const detail::Kernels& k, int blocks, int m, Input& in) {
    std::vector<detail::WeightBlock> w(usize(blocks));
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
    const std::size_t stride = detail::kGroup + 3;
    std::vector<float> y = guarded(m * static_cast<int>(stride));
    k.product_q8(w.data(), blocks, x.data(), m, y.data(), stride);
    return y;
}

template <class Weight, class Product>
std::vector<float> product_float(const Product& product, const std::vector<Weight>& w, std::size_t pitch, int columns,
                                 int m, bool add, Input& in) {
    const std::vector<float> x = in.values(columns * m);
    const std::size_t stride = detail::kGroup + 3;
    std::vector<float> y = guarded(in.values(m * static_cast<int>(stride)));
    product(w.data(), pitch, columns, x.data(), m, y.data(), stride, add);
    return y;
}

// All token counts of a product, one after the other.
template <class OneCount>
std::vector<float> all_counts(const OneCount& one) {
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
         return all_counts([&](int m) { return product_q8(k, n % 6 + 1, m, in); });
     }},
    {"product_f32", 2e-6f,
     [](const detail::Kernels& k, int n, Input& in) {
         const std::size_t pitch = detail::kGroup + usize(n % 3);
         return all_counts([&](int m) {
             return product_float(k.product_f32, in.values(n * static_cast<int>(pitch) + detail::kGroup), pitch, n, m,
                                  m % 2 == 0, in);
         });
     }},
    {"product_f16", 2e-6f,
     [](const detail::Kernels& k, int n, Input& in) {
         const std::size_t pitch = detail::kGroup + usize(n % 3);
         return all_counts([&](int m) {
             std::vector<std::uint16_t> w(usize(n) * pitch + detail::kGroup);
             for (auto& half : w) half = detail::f32_to_f16(in.random.uniform(-8, 8));
             return product_float(k.product_f16, w, pitch, n, m, m % 2 == 0, in);
         });
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
    {"layer_norm", 2e-5f,  // x - mean cancels
     [](const detail::Kernels& k, int n, Input& in) {
         const std::vector<float> x = in.values(n), w = in.values(n), b = in.values(n);
         std::vector<float> y = guarded(n);
         k.layer_norm(x.data(), w.data(), b.data(), 1e-5f, n, y.data());
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
    {"exp_sum", 2e-6f,
     [](const detail::Kernels& k, int n, Input& in) {
         std::vector<float> x = in.values(n);
         const float max = *std::max_element(x.begin(), x.end());
         x = guarded(std::move(x));
         x.push_back(k.exp_sum(x.data(), n, max));
         return x;
     }},
    {"max", 0,
     [](const detail::Kernels& k, int n, Input& in) { return std::vector<float>{k.max(in.values(n).data(), n)}; }},
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
    const auto sets = detail::available_kernels();
    for (const detail::Kernels* set : sets) {
        for (const KernelTest& test : kKernelTests)
            for (const int n : sizes)
                for (const auto kind : {Input::ordinary, Input::zeros, Input::large, Input::small, Input::spikes}) {
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

llm::Config shape(llm::Config::Architecture architecture, int hidden, int heads, int kv_heads, int head_dim, int ffn) {
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
    c.is_local = {architecture == llm::Config::Architecture::gemma3, false};
    return c;
}

TEST_CASE("all kernel sets give the same logits, for shapes that fill no vector and every number of tokens") {
    using Architecture = llm::Config::Architecture;
    const llm::Config shapes[] = {
        shape(Architecture::gpt2, 40, 4, 4, 10, 50),    shape(Architecture::gpt2, 34, 1, 1, 34, 31),
        shape(Architecture::gpt2, 96, 3, 3, 32, 200),   shape(Architecture::gemma3, 48, 3, 1, 18, 72),
        shape(Architecture::gemma3, 65, 4, 2, 64, 129), shape(Architecture::gemma3, 1, 1, 1, 2, 1),
        shape(Architecture::gemma3, 17, 15, 1, 34, 16), shape(Architecture::gemma3, 128, 5, 5, 16, 47),
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
                for (const int n : counts) {
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

    template <class T>
    static std::string raw(T value) {
        return {reinterpret_cast<const char*>(&value), sizeof value};
    }
    static std::string raw(const std::string& s) { return raw(std::uint64_t{s.size()}) + s; }
    template <class T>
    static std::string raw_array(std::uint32_t type, const std::vector<T>& items) {
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
    const bool gpt2 = c.architecture == llm::Config::Architecture::gpt2;
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
    for (const auto& [name, cases] : golden.root().members()) {
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
    for (const auto& [name, type, version] : cases) {
        CAPTURE(name);
        Gguf file = as_gguf(tiny(name), type);
        file.version = version;
        write_file(path, file.bytes());
        for (const DType dtype : {DType::f32, DType::q8_0}) {
            const Model expected = load(tiny(name), dtype), got = load(path, dtype);
            const std::vector<int> ids = expected.tokenizer().encode("Shall I compare thee to a summer's day?");
            CHECK(got.tokenizer().encode("Shall I compare thee to a summer's day?") == ids);
            Session a(expected), b(got);
            CHECK(distance(logits_of(a, ids), logits_of(b, ids)) < 1e-5f);
            CHECK(got.info().format == "GGUF v" + std::to_string(version));
            CHECK(got.info().tensors.count(detail::traits(type).name) == 1);
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

// ==== GOLDEN NUMBERS =================================================================================================

// A model beside its golden file. Bounds of F32 and Q8_0; logits of Q8_0 are compared where a bound is given.
struct Golden {
    std::string name;  // of testdata/golden/NAME.json
    fs::path path;
    float logits_f32, logits_q8_0;
    double perplexity_q8_0;
};

std::vector<Golden> golden_models() {
    const float none = INFINITY;
    std::vector<Golden> all = {{"gpt2-tiny", tiny("gpt2-tiny"), 3e-4f, none, 0.02},
                               {"gemma3-tiny", tiny("gemma3-tiny"), 3e-4f, none, 0.02},
                               {"gemma-3-270m", real_model(kRealGemma), 3e-3f, 0.7f, 0.01},
                               {"gpt2-124m", real_model("gpt2-124m"), 3e-3f, none, 0.01}};
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

void check_golden(const Golden& golden, DType dtype) {
    const JsonDocument document = read_json(testdata() / "golden" / ((golden.name + ".json")));
    const bool exact = dtype == DType::f32;
    const Model model = load(golden.path, dtype);
    Session session(model, 512 < model.config().context_length ? 512 : 0);
    const float bound = exact ? golden.logits_f32 : golden.logits_q8_0;
    for (const Json& one : document.root().find("cases")->array()) {
        const std::vector<int> ids = ints(*one.find("ids")), best = ints(*one.find("argmax_per_position"));
        CAPTURE(text(one, "prompt"));
        CHECK(model.tokenizer().encode(text(one, "prompt")) == ids);
        session.rewind(0);
        const Logits logits = logits_of(session, ids);
        CHECK(distance_to_reference(one, logits.back()) < bound);
        for (std::size_t i = 0; exact && i < ids.size(); ++i) {
            const float behind = *std::max_element(logits[i].begin(), logits[i].end()) - logits[i][usize(best[i])];
            if (behind > 2 * bound) CHECK_MESSAGE(behind == 0, "the best token differs at position " << i);
        }
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

TEST_CASE("the head is the model's own where its files say so") {
    CHECK(load(tiny("gemma3-tiny")).config().tied_head);
    CHECK_FALSE(load(testdata() / "layouts/gpt2-odd").config().tied_head);
    CHECK_FALSE(load(testdata() / "layouts/gemma3-v5").config().tied_head);
}

// ---- the same text on different ways through the model

// How far logits may be apart that differ in the order of their sums only. In Q8_0 an activation on the edge between
// two integers may become either one.
float rounding(DType dtype) { return dtype == DType::f32 ? 2e-4f : 0.15f; }

template <class Check>  // check(model, ids, expected logits): both tiny models in both types, as long as their context
void with_long_text(const Check& check) {
    for (const std::string& name : kTinyModels)
        for (const DType dtype : {DType::f32, DType::q8_0}) {
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
        for (const std::size_t piece : sizes) {
            session.rewind(0);
            CAPTURE(piece);
            CHECK(distance(logits_of(session, ids, piece), expected) < rounding(model.dtype()));
        }
    });
}

TEST_CASE("forward gives the last of the logits that forward_each gives") {
    with_long_text([&](const Model& model, const std::vector<int>& ids, const Logits& expected) {
        for (const std::size_t n : {1, 2, 11, 12, 13, 24, 25, 63, 64, 65, 200, 255, 256, 257, 500}) {
            if (n > ids.size()) continue;
            CAPTURE(n);
            Session session(model, 0, 2);
            CHECK(distance(last_logits(session, {ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(n)}),
                           expected[n - 1]) < rounding(model.dtype()));
            CHECK(session.position() == static_cast<int>(n));
        }
    });
}

TEST_CASE("rewinding gives the same logits as starting anew, also to before the sliding window's ring") {
    with_long_text([&](const Model& model, const std::vector<int>& ids, const Logits& expected) {
        Session session(model, 0, 2);
        const int all = static_cast<int>(ids.size());
        for (const int back :
             {all, all - 1, 0, 1, all - 31, all - 32, all - 33, all / 2, 63, 64, 65, 33, all - 300, 200}) {
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
             {1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 255, 256, model.config().context_length}) {
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
    with_long_text([&](const Model& model, const std::vector<int>& ids, const Logits& expected) {
        for (const int threads : {1, 2, 3, 7}) {
            CAPTURE(threads);
            Session session(model, 0, threads);
            CHECK(session.threads() == threads);
            CHECK(distance(logits_of(session, ids, 100), expected) < rounding(model.dtype()));
        }
        const bool gpt2 = model.config().architecture == llm::Config::Architecture::gpt2;
        for (const detail::Kernels* set : detail::available_kernels()) {
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

TEST_CASE("a session needs as much memory as the model foretells") {
    const Model model = load(tiny("gemma3-tiny"));
    CHECK(model.session_bytes(512) > model.session_bytes(64));
    CHECK_THROWS_AS(model.session_bytes(513), llm::Error);
}

}  // namespace

int main(int argc, char** argv) {
    program() = argv[0];
    doctest::Context context(argc, argv);
    return context.run();
}
