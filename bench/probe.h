// Read by llm.h once for each set of kernels, into that set's namespace (LLM_KERNEL_PROBE): what its instructions reach at
// most, in terms of the set's own vectors and operations. So a new set has its roof from the start.

// The dot product of integers below 64, which is the faster one with AVX2.
template <class Vector> LLM_OP Vector dot_small(Vector acc, Vector w, Vector x) {
    if constexpr (kPairs) return add_pairs(acc, dot_pairs(dot_pairs(Vector{}, w, x, false), x, w, false));
    else return dot(dot(acc, w, x), x, w);
}

// Twelve chains of the integer dot product, or of the F32 multiply-add, so that neither latency nor loads limit them.
LLM_TARGET inline void probe_peak(int rounds, bool floats) {
    Ints integers[12];
    Floats reals[12];
    LLM_UNROLL for (int k = 0; k < 12; ++k) {
        integers[k] = set(std::int32_t{3});
        reals[k] = set(0.5f);
    }
    __asm__ volatile("" : "+m"(integers), "+m"(reals));  // they may differ: no chain is another's copy
    const Ints factor = integers[0];
    const Floats half = reals[0];
    for (int i = 0; i < rounds && !floats; ++i) {
        LLM_UNROLL for (int k = 0; k < 12; ++k) integers[k] = dot_small(integers[k], integers[k], factor);
    }
    for (int i = 0; i < rounds && floats; ++i) {
        LLM_UNROLL for (int k = 0; k < 12; ++k) reals[k] = fma(reals[k], half, half);
    }
    __asm__ volatile("" : : "m"(integers), "m"(reals));
}

// Reads n bytes, a multiple of 1024, as four streams with prefetch: the fastest of the ways that were tried.
LLM_TARGET inline void probe_read(const std::uint8_t* p, std::size_t n) {
    typedef std::uint64_t Line __attribute__((vector_size(64), may_alias));
    Line total[4] = {};
    for (const std::uint8_t* end = p + n / 4; p < end; p += 256) {
        LLM_UNROLL for (int s = 0; s < 4; ++s) {
            const std::uint8_t* stream = p + usize(s) * (n / 4);
            LLM_UNROLL for (int k = 0; k < 4; ++k) {
                __builtin_prefetch(stream + 2048 + 64 * k);
                total[k] += *reinterpret_cast<const Line*>(stream + 64 * k);
            }
        }
    }
    __asm__ volatile("" : : "m"(total) : "memory");
}

inline const bool probe_is_listed = ::bench::list_probe({LLM_TEXT(LLM_KERNEL_PASS), probe_read, probe_peak, kLanes});
