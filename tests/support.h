// What all files of tests share: doctest, llm.h and helpers. test.cpp includes all files; each of them is a
// program alone as well (make test FILE=kernels).
//
// What tests compare with lies in tests/data/ (numbers of the reference, Hugging Face transformers in F32) and in
// models/. Tests of real models run where these are: models/gemma-3-270m-q4_k_m.gguf (`make gemma` gets it), and a
// directory that LLM_REAL names (~/.cache/llm-real if it does not) with gemma-3-270m-hf/ and gpt2-124m/. LLM_REAL=none
// leaves them out. What is left out is counted as skipped.

#ifndef LLM_TESTS_SUPPORT_H
#define LLM_TESTS_SUPPORT_H

#if __has_include(<doctest/doctest.h>)
#include <doctest/doctest.h>
#else
#include <doctest.h>
#endif

#include <cfenv>

#include "files.h"

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

namespace tests {

using detail::TensorType;
using llm::DType, llm::Model, llm::Session, llm::Tokenizer;

inline const std::string kTinyModels[] = {"gpt2-tiny", "gemma3-tiny"};

// Where a real model is, or an empty path.
inline fs::path real_model(const std::string& name) {
    const fs::path places[] = {environment("LLM_REAL", environment("HOME") + "/.cache/llm-real"),
                               repository() / "models"};
    for (const fs::path& place : places)
        if (places[0] != "none" && fs::exists(place / name)) return place / name;
    return {};
}
inline const char* const kRealGemma = "gemma-3-270m-q4_k_m.gguf";

// TEST_CASE("..." * needs("gpt2-124m")) is skipped where the model is not here.
inline doctest::skip needs(const std::string& model) { return real_model(model).empty(); }
// Skipped under sanitizers: what the test compiles is without them, or their own memory and time would be measured.
inline doctest::skip not_sanitized() { return LLM_ASAN || LLM_TSAN; }

#if defined(__x86_64__)
constexpr bool kCanFlush = true;
inline void flush_denormals() { _mm_setcsr(_mm_getcsr() | 0x8040); }
#elif defined(__aarch64__)
constexpr bool kCanFlush = true;
inline void flush_denormals() {
    std::uint64_t mode;
    __asm__ __volatile__("mrs %0, fpcr" : "=r"(mode));
    __asm__ __volatile__("msr fpcr, %0" : : "r"(mode | 1u << 24));
}
#else
constexpr bool kCanFlush = false;
inline void flush_denormals() { FAIL("not known here"); }
#endif

// While in scope this thread's floats are as a host program may have set them: denormals flushed to zero, or results
// rounded upwards.
struct HostFloats {
    std::fenv_t before;
    HostFloats(bool flush, bool up) {
        std::fegetenv(&before);
        std::fesetround(up ? FE_UPWARD : FE_TONEAREST);
        if (flush) flush_denormals();
    }
    ~HostFloats() { std::fesetenv(&before); }
    HostFloats(const HostFloats&) = delete;
};

// Where a sanitizer makes each round of a long test slow, one of so many is done.
constexpr int kThinned = LLM_TSAN ? 12 : LLM_ASAN ? 4 : 1;

template <class T> std::vector<T> thinned(const std::vector<T>& all) {
    std::vector<T> some;
    for (std::size_t i = 0; i < all.size(); i += kThinned) some.push_back(all[i]);
    return some;
}

inline const std::vector<DType> kDTypes = LLM_TSAN ? std::vector{DType::q8_0} : std::vector{DType::f32, DType::q8_0};

inline std::vector<int> ints(const Json& array) {
    std::vector<int> out;
    for (const Json& value : array.array()) out.push_back(static_cast<int>(value.number()));
    return out;
}
inline std::vector<float> floats(const Json& array) {
    std::vector<float> out;
    for (const Json& value : array.array()) out.push_back(static_cast<float>(value.number()));
    return out;
}

// The numbers of the reference for a model.
inline JsonDocument golden_numbers(const std::string& name) {
    return read_json(test_data() / "golden" / (name + ".json"));
}

// Sets an environment variable until the end of the scope.
class Environment {
  public:
    Environment(const char* name, const std::string& value) : name_(name), before_(environment(name)) { set(value); }
    ~Environment() { set(before_); }
    Environment(const Environment&) = delete;
    Environment& operator=(const Environment&) = delete;
  private:
    void set(const std::string& value) {  // "" removes it
#ifdef _WIN32
        _putenv_s(name_, value.c_str());
#else
        value.empty() ? unsetenv(name_) : setenv(name_, value.c_str(), 1);
#endif
    }
    const char* name_;
    std::string before_;
};

struct Random {
    std::uint64_t state;
    float uniform(float lowest, float highest) {
        return lowest + (highest - lowest) * static_cast<float>(detail::next_uniform(state));
    }
    template <class Int> Int below(Int n) {
        return n > 0 ? static_cast<Int>(detail::next_random(state) % static_cast<std::uint64_t>(n)) : 0;
    }
    template <class Items> const auto& of(const Items& items) { return items[below(std::size(items))]; }
    std::vector<float> values(int count, float lowest = -1, float highest = 1) {
        std::vector<float> x(usize(count));
        for (float& v : x) v = uniform(lowest, highest);
        return x;
    }
    std::vector<int> tokens(int count, int vocab) {
        std::vector<int> ids(usize(count));
        for (int& id : ids) id = below(vocab);
        return ids;
    }
};

inline std::string replaced(const std::string& text, const std::string& from, const std::string& to) {
    const std::size_t at = text.find(from);
    if (at == std::string::npos) throw std::logic_error("nothing to replace: " + from);
    return text.substr(0, at) + to + text.substr(at + from.size());
}

// ---- models and sessions

inline Model load(const fs::path& path, DType dtype = DType::native, int threads = 2) {
    llm::LoadOptions options;
    options.dtype = dtype;
    options.threads = threads;
    return Model::load(path.string(), options);
}
constexpr DType kAllDTypes[] = {DType::f32, DType::q8_0, DType::q4_0, DType::native};
inline std::string name_of(DType dtype) {
    static const char* const names[] = {"f32", "q8_0", "q4_0", "native"};
    return names[static_cast<int>(dtype)];
}

// A small shape for Model::random.
inline llm::Config shape(const std::string& architecture, int hidden, int heads, int kv_heads, int head_dim, int ffn) {
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

// Blocks of random integers, or of those at the ends of the range.
inline std::vector<detail::ActivationBlock> random_activations(Random& random, int count, bool extreme,
                                                               bool zeros = false) {
    std::vector<detail::ActivationBlock> blocks(static_cast<std::size_t>(count));
    for (auto& block : blocks) {
        block = {zeros ? 0 : random.uniform(0, 1), 0, 0, {}};
        for (int i = 0; i < detail::kBlock; ++i) {
            const int q = extreme ? 254 * random.below(2) - 127 : random.below(255) - 127;
            block.q[i] = static_cast<std::int8_t>(q);
            block.offset -= 128 * q;
            if (i < 16) block.first_offset -= 128 * q;
        }
    }
    return blocks;
}

using Logits = std::vector<std::vector<float>>;  // [tokens][vocab_size]

// The logits after each of the tokens, which the session gets in pieces of this size.
inline Logits logits_of(Session& session, const std::vector<int>& ids, std::size_t piece = SIZE_MAX) {
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

inline std::vector<float> last_logits(Session& session, const std::vector<int>& ids) {
    const float* logits = session.forward(ids.data(), static_cast<int>(ids.size()));
    return {logits, logits + session.model().config().vocab_size};
}

inline llm::GenerateOptions greedy(int max_tokens, std::vector<std::string> stop = {}) {
    llm::GenerateOptions options;
    options.max_tokens = max_tokens;
    options.sampling.temperature = 0;
    options.stop = std::move(stop);
    return options;
}

inline std::string generated(Session& session, std::string_view prompt, const llm::GenerateOptions& options) {
    std::string text;
    llm::generate(session, prompt, options, [&](std::string_view piece) {
        text += piece;
        return true;
    });
    return text;
}

inline std::string held_text(const Session& session) { return session.model().tokenizer().decode(session.tokens()); }

// ---- numbers

// The largest distance; infinite if the sizes differ or a value is no number.
inline float distance(const std::vector<float>& a, const std::vector<float>& b) {
    if (a.size() != b.size()) return INFINITY;
    float largest = 0;
    for (std::size_t i = 0; i < a.size(); ++i) {
        const float d = std::fabs(a[i] - b[i]);
        if (!(d <= largest)) largest = std::isnan(d) ? INFINITY : d;
    }
    return largest;
}
inline float distance(const Logits& a, const Logits& b) {
    if (a.size() != b.size()) return INFINITY;
    float largest = 0;
    for (std::size_t i = 0; i < a.size(); ++i) largest = std::max(largest, distance(a[i], b[i]));
    return largest;
}

// How far logits may be apart that differ in the order of their sums only. In Q8_0 an activation on the edge between
// two integers may become either one, which all that follows carries on.
inline float rounding(DType dtype) { return dtype == DType::f32 ? 2e-4f : 0.3f; }

inline int argmax(const std::vector<float>& x) {
    return static_cast<int>(std::max_element(x.begin(), x.end()) - x.begin());
}

inline double log_sum_exp(const std::vector<float>& x) {
    const double highest = *std::max_element(x.begin(), x.end());
    double sum = 0;
    for (const float v : x) sum += std::exp(v - highest);
    return highest + std::log(sum);
}

// ---- errors

// What a call throws, or "" if it throws nothing. Anything but llm::Error is not caught.
template <class Call> std::string error_of(const Call& call) {
    try {
        call();
    } catch (const llm::Error& e) {
        return e.what();
    }
    return "";
}

// That a call throws an llm::Error which says all this.
#define CHECK_ERROR(call, ...)                                                        \
    do {                                                                              \
        const std::string caught_error = tests::error_of([&] { (void)(call); });      \
        CHECK(caught_error != "");                                                    \
        for (const std::string& wanted_part : std::vector<std::string>{__VA_ARGS__})  \
            CHECK_MESSAGE(caught_error.find(wanted_part) != std::string::npos,        \
                          "\"" << caught_error << "\" does not say " << wanted_part); \
    } while (false)

}  // namespace tests

#endif
