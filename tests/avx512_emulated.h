// AVX-512 for processors without: read before llm.h (g++ -include), this file gives each intrinsic of that set's kernels
// another meaning, in plain C++ or AVX2; g++ does the same with the operators. So the set's text is tried: its tiles, its
// ends of rows, its masks. `make avx512` runs its tests.
#pragma once

#include <bits/stdc++.h>
#include <immintrin.h>

#define EMULATED __attribute__((target("avx2,fma,f16c"), noinline, unused)) static

namespace emulated {

using Floats = float __attribute__((vector_size(64)));
using Ints = std::int32_t __attribute__((vector_size(64)));
using Bytes = std::uint8_t __attribute__((vector_size(64)));
using Raw = __m512i;

template <class To, class From> EMULATED To bits(const From& from) {
    To to;
    std::memcpy(&to, &from, sizeof to);
    return to;
}

template <class Vector, class Op> EMULATED Vector each(const Op& op) {
    Vector out;
    for (unsigned i = 0; i < sizeof out / sizeof out[0]; ++i) out[i] = op(i);
    return out;
}

EMULATED Floats set1_ps(float x) {
    return each<Floats>([&](unsigned) { return x; });
}
EMULATED Raw set1_epi32(int x) {
    return Raw(each<Ints>([&](unsigned) { return x; }));
}
EMULATED Floats loadu_ps(const float* p) {
    return each<Floats>([&](unsigned i) { return p[i]; });
}
EMULATED Floats mask_loadu_ps(Floats rest, int mask, const float* p) {
    return each<Floats>([&](unsigned i) { return mask >> i & 1 ? p[i] : rest[i]; });
}
EMULATED void mask_storeu_ps(float* p, int mask, Floats x) {
    for (int i = 0; i < 16; ++i)
        if (mask >> i & 1) p[i] = x[i];
}
EMULATED void storeu_ps(float* p, Floats x) { mask_storeu_ps(p, 0xFFFF, x); }

EMULATED Floats fmadd_ps(Floats a, Floats b, Floats c) {
    return each<Floats>([&](unsigned i) { return __builtin_fmaf(a[i], b[i], c[i]); });
}
EMULATED Floats sqrt_ps(Floats a) {
    return each<Floats>([&](unsigned i) { return __builtin_sqrtf(a[i]); });
}
EMULATED Floats min_ps(Floats a, Floats b) {
    return each<Floats>([&](unsigned i) { return a[i] < b[i] ? a[i] : b[i]; });
}
EMULATED Floats max_ps(Floats a, Floats b) {
    return each<Floats>([&](unsigned i) { return a[i] > b[i] ? a[i] : b[i]; });
}
EMULATED float reduce_max_ps(Floats a) { return *std::max_element(&a[0], &a[0] + 16); }
EMULATED __m256 extractf32x8_ps(Floats a, int half) {
    return _mm256_loadu_ps(reinterpret_cast<const float*>(&a) + 8 * half);
}
EMULATED __m256 castps512_ps256(Floats a) { return extractf32x8_ps(a, 0); }
EMULATED Floats cvtph_ps(__m256i a) {
    const __m256 half[] = {_mm256_cvtph_ps(_mm256_castsi256_si128(a)), _mm256_cvtph_ps(_mm256_extracti128_si256(a, 1))};
    return bits<Floats>(half);
}
EMULATED __m256i cvtps_ph(Floats a, int) {
    return _mm256_set_m128i(_mm256_cvtps_ph(extractf32x8_ps(a, 1), 0), _mm256_cvtps_ph(extractf32x8_ps(a, 0), 0));
}

EMULATED Floats cvtepi32_ps(Raw a) {
    return each<Floats>([&](unsigned i) { return float(Ints(a)[i]); });
}
EMULATED __m128i cvtepi32_epi8(Raw a) {
    std::int8_t out[16];
    for (int i = 0; i < 16; ++i) out[i] = std::int8_t(Ints(a)[i]);
    return bits<__m128i>(out);
}
EMULATED Raw broadcast_i32x4(__m128i a) {
    return each<Raw>([&](unsigned i) { return a[i % 2]; });
}
EMULATED Raw shuffle_epi8(Raw table, Raw at) {
    return Raw(each<Bytes>([&](unsigned i) {
        const unsigned j = Bytes(at)[i];
        return std::uint8_t(j < 128 ? Bytes(table)[i / 16 * 16 + j % 16] : 0);
    }));
}
EMULATED Raw dpbusd_epi32(Raw acc, Raw w, Raw x) {
    return Raw(each<Ints>([&](unsigned i) {
        int total = Ints(acc)[i];
        for (unsigned k = 4 * i; k < 4 * i + 4; ++k) total += Bytes(w)[k] * std::int8_t(Bytes(x)[k]);
        return total;
    }));
}

}  // namespace emulated

#define target(features) target("avx2,fma,f16c")  // of LLM_TARGET
#define __builtin_cpu_supports(name) true

// Without optimization, those with a constant are macros.
#undef _mm512_cvtps_ph
#undef _mm512_extractf32x8_ps

#define _mm512_broadcast_i32x4 emulated::broadcast_i32x4
#define _mm512_castps512_ps256 emulated::castps512_ps256
#define _mm512_cvtepi32_epi8 emulated::cvtepi32_epi8
#define _mm512_cvtepi32_ps emulated::cvtepi32_ps
#define _mm512_cvtph_ps emulated::cvtph_ps
#define _mm512_cvtps_ph emulated::cvtps_ph
#define _mm512_dpbusd_epi32 emulated::dpbusd_epi32
#define _mm512_extractf32x8_ps emulated::extractf32x8_ps
#define _mm512_fmadd_ps emulated::fmadd_ps
#define _mm512_loadu_ps emulated::loadu_ps
#define _mm512_mask_loadu_ps emulated::mask_loadu_ps
#define _mm512_mask_storeu_ps emulated::mask_storeu_ps
#define _mm512_max_ps emulated::max_ps
#define _mm512_min_ps emulated::min_ps
#define _mm512_reduce_max_ps emulated::reduce_max_ps
#define _mm512_set1_epi32 emulated::set1_epi32
#define _mm512_set1_ps emulated::set1_ps
#define _mm512_shuffle_epi8 emulated::shuffle_epi8
#define _mm512_sqrt_ps emulated::sqrt_ps
#define _mm512_storeu_ps emulated::storeu_ps
