// What memory and the cores can do at most, by the instructions that llm.h's kernels use: the roofs under which a model
// runs. A set of kernels has one row here, its probe.

#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "../llm.h"
#include "statistics.h"
#include "system.h"

namespace bench {

using llm::detail::seconds_since;
using llm::detail::ThreadPool;
using llm::detail::usize;
using Clock = std::chrono::steady_clock;

// ---- Probes: what a set's instructions reach at most

#ifdef __clang__
#define BENCH_UNROLL _Pragma("unroll")
#else
#define BENCH_UNROLL _Pragma("GCC unroll 16")
#endif

struct Probe {
    const char* kernels;  // the set's name in llm.h
    void (*read)(const std::uint8_t*, std::size_t);
    void (*int8_peak)(int rounds);
    void (*f32_peak)(int rounds);
    int int8_operations, f32_operations;  // of one round of a chain
};

// Reads n bytes, a multiple of 1024, as four streams with prefetch: the fastest of the ways that were tried.
typedef std::uint64_t Line __attribute__((vector_size(64), may_alias));
#define BENCH_READ(function, isa)                                                \
    isa inline void function(const std::uint8_t* p, std::size_t n) {             \
        Line total[4] = {};                                                      \
        for (const std::uint8_t* end = p + n / 4; p < end; p += 256) {           \
            BENCH_UNROLL for (int s = 0; s < 4; ++s) {                           \
                const std::uint8_t* stream = p + usize(s) * (n / 4);             \
                BENCH_UNROLL for (int k = 0; k < 4; ++k) {                       \
                    __builtin_prefetch(stream + 2048 + 64 * k);                  \
                    total[k] += *reinterpret_cast<const Line*>(stream + 64 * k); \
                }                                                                \
            }                                                                    \
        }                                                                        \
        __asm__ volatile("" : : "r"(total) : "memory");                          \
    }

// Twelve chains of one instruction, so that neither its latency nor loads limit it.
#define BENCH_PEAK(function, isa, Vector, value, step)                                                   \
    isa inline void function(int rounds) {                                                               \
        volatile short four = 4;                                                                         \
        const auto x = value(four);                                                                      \
        Vector sums[12];                                                                                 \
        BENCH_UNROLL for (int k = 0; k < 12; ++k) sums[k] = Vector{};                                    \
        __asm__ volatile("" : : "r"(sums) : "memory"); /* they may differ: no chain is another's copy */ \
        for (int i = 0; i < rounds; ++i) {                                                               \
            BENCH_UNROLL for (int k = 0; k < 12; ++k) sums[k] = step(sums[k], x);                        \
        }                                                                                                \
        __asm__ volatile("" : : "r"(sums) : "memory");                                                   \
    }

// A set's row: its name in llm.h, the compiler's target, and for int8 and for f32 the vector, what makes it of a number,
// the step of a chain, and the operations in that.
#define BENCH_PROBE(name, isa, Ints, ints, dot, dots, Floats, floats, fma, fmas) \
    BENCH_READ(read_##name, isa)                                                 \
    BENCH_PEAK(int8_##name, isa, Ints, ints, dot)                                \
    BENCH_PEAK(f32_##name, isa, Floats, floats, fma)                             \
    constexpr Probe name = {#name, read_##name, int8_##name, f32_##name, dots, fmas};

namespace probes {
#define BENCH_PLAIN
#define BENCH_STEP(sum, x) (sum * x + x)
BENCH_PROBE(scalar, BENCH_PLAIN, int, int, BENCH_STEP, 2, float, float, BENCH_STEP, 2)
#if defined(LLM_NO_SIMD) || !defined(__GNUC__)
constexpr const Probe* all[] = {&scalar};
#elif defined(__x86_64__)
#define BENCH_AVX2 __attribute__((target("avx2,fma")))
#define BENCH_AVX2_DOT(sum, x) \
    _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_xor_si256(sum, x), x), x))
#define BENCH_AVX2_FMA(sum, x) _mm256_fmadd_ps(sum, x, x)
BENCH_PROBE(avx2, BENCH_AVX2, __m256i, _mm256_set1_epi32, BENCH_AVX2_DOT, 64, __m256, _mm256_set1_ps, BENCH_AVX2_FMA,
            16)
#define BENCH_AVX512 __attribute__((target("avx512f,avx512vnni")))
#define BENCH_AVX512_DOT(sum, x) _mm512_dpbusd_epi32(sum, x, x)
#define BENCH_AVX512_FMA(sum, x) _mm512_fmadd_ps(sum, x, x)
BENCH_PROBE(avx512, BENCH_AVX512, __m512i, _mm512_set1_epi32, BENCH_AVX512_DOT, 128, __m512, _mm512_set1_ps,
            BENCH_AVX512_FMA, 32)
constexpr const Probe* all[] = {&scalar, &avx2, &avx512};
#elif defined(__aarch64__)
#define BENCH_NEON_INTS(x) vdupq_n_s8(std::int8_t(x))
#define BENCH_NEON_DOT(sum, x) vpadalq_s16(sum, vmull_s8(vget_low_s8(x), vget_low_s8(vreinterpretq_s8_s32(sum))))
#define BENCH_NEON_FMA(sum, x) vfmaq_f32(x, sum, x)
BENCH_PROBE(neon, BENCH_PLAIN, int32x4_t, BENCH_NEON_INTS, BENCH_NEON_DOT, 16, float32x4_t, vdupq_n_f32, BENCH_NEON_FMA,
            8)
#ifdef LLM_KERNEL_DOT  // llm.h has such kernels
#ifdef __ARM_FEATURE_DOTPROD
#define BENCH_DOTPROD
#else
#define BENCH_DOTPROD __attribute__((target("arch=armv8.2-a+dotprod")))
#endif
#define BENCH_NEON_SDOT(sum, x) vdotq_s32(sum, x, x)
BENCH_PROBE(neon_dot, BENCH_DOTPROD, int32x4_t, BENCH_NEON_INTS, BENCH_NEON_SDOT, 32, float32x4_t, vdupq_n_f32,
            BENCH_NEON_FMA, 8)
constexpr const Probe* all[] = {&scalar, &neon, &neon_dot};
#else
constexpr const Probe* all[] = {&scalar, &neon};
#endif
#else
constexpr const Probe* all[] = {&scalar};
#endif
}  // namespace probes

// The row of the kernels that run.
inline const Probe& find_probe() {
    const std::string kernels = llm::detail::choose_kernels().name;
    for (const Probe* probe : probes::all)
        if (probe->kernels == kernels) return *probe;
    throw llm::Error("no probe for these kernels: " + kernels + ": add its row to bench/machine.h");
}

// ---- What they find

struct Roof {
    double read = 0, int8 = 0, f32 = 0;  // bytes and operations per second
};

class Machine {
  public:
    explicit Machine(int threads)
        : buffer_(std::min(std::size_t{1} << 30, std::size_t(available_memory() / 4) >> 20 << 20)) {
        ThreadPool pool(threads);
        pool.for_ranges(int(buffer_.bytes() >> 20), 1, [&](int begin, int end, int) {
            std::fill(buffer_.as<char>() + (usize(begin) << 20), buffer_.as<char>() + (usize(end) << 20), char(1));
        });
        for (int t = 1; t < threads; t *= 2) measure(t);
        measure(threads);
    }
    struct Measured {
        int threads;
        Roof roof;
        double copy, read_spread;
    };
    const std::vector<Measured>& measured() const { return measured_; }
    const char* kernels() const { return probe_.kernels; }
    double buffer_bytes() const { return double(buffer_.bytes()); }

    // How fast so many bytes are read again and again: where they fit into a cache, faster than memory.
    Samples read_rates(ThreadPool& pool, double bytes) const {
        constexpr int kPieces = 64;  // of each thread
        const std::size_t pieces = usize(pool.size() * kPieces);
        const std::size_t piece =
            std::max<std::size_t>(1, std::min(std::size_t(bytes), buffer_.bytes()) / pieces / 1024) * 1024;
        return rates(double(piece * pieces), [&] {
            pool.for_each(int(pieces),
                          [&](int i) { probe_.read(buffer_.as<std::uint8_t>() + usize(i) * piece, piece); });
        });
    }
  private:
    // Per second, of runs that take a third of a second together.
    template <class Body> static Samples rates(double amount, const Body& body) {
        body();
        Samples results;
        for (const auto start = Clock::now();
             results.size() < 4 || (seconds_since(start) < 0.33 && results.size() < 1000);) {
            const auto run = Clock::now();
            body();
            results.push_back(amount / seconds_since(run));
        }
        return results;
    }
    void measure(int threads) {
        constexpr int kRounds = 1 << 17;
        ThreadPool pool(threads);
        const Samples read = read_rates(pool, buffer_bytes());
        const std::size_t half = buffer_.bytes() / 2, part = half / usize(threads * 64);
        const Samples copy = rates(double(2 * part * usize(threads * 64)), [&] {
            pool.for_each(threads * 64, [&](int i) {
                std::memcpy(buffer_.as<char>() + usize(i) * part, buffer_.as<char>() + half + usize(i) * part, part);
            });
        });
        const auto peak = [&](void (*chains)(int), int operations) {
            const Samples found = rates(12.0 * kRounds * operations * threads * 4,
                                        [&] { pool.for_each(threads * 4, [&](int) { chains(kRounds); }); });
            return *std::max_element(found.begin(), found.end());
        };
        measured_.push_back({threads,
                             {median(read), peak(probe_.int8_peak, probe_.int8_operations),
                              peak(probe_.f32_peak, probe_.f32_operations)},
                             median(copy),
                             spread(read)});
    }

    const Probe& probe_ = find_probe();
    llm::detail::Buffer buffer_;
    std::vector<Measured> measured_;
};

}  // namespace bench
