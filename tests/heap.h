// The program's memory, counted and refused. Not under the thread sanitizer, which has its own operator new, nor where
// the size of an allocation is not told: there Heap::live stays 0 and nothing is refused.

#ifndef LLM_TESTS_HEAP_H
#define LLM_TESTS_HEAP_H

#include "support.h"

#ifdef __linux__
#include <malloc.h>
#define LLM_COUNTED_HEAP !LLM_TSAN
#else
#define LLM_COUNTED_HEAP 0
#endif

namespace tests {

struct Heap {
    static inline std::atomic<long long> live{0}, peak{0};   // bytes
    static inline std::atomic<long long> until_failure{-1};  // the allocation after that many fails; -1: none
    static inline std::atomic<bool> failed{false};

    static void* allocate(std::size_t bytes, std::size_t alignment) {
        if (until_failure >= 0 && until_failure-- == 0) {
            until_failure = -1;
            failed = true;
            throw std::bad_alloc();
        }
        void* p = alignment > alignof(std::max_align_t)
                      ? std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment)
                      : std::malloc(bytes ? bytes : 1);
        if (!p) throw std::bad_alloc();
        const long long now = live += static_cast<long long>(malloc_usable_size(p));
        for (long long before = peak; before < now && !peak.compare_exchange_weak(before, now);) continue;
        return p;
    }
    static void release(void* p) {
        if (!p) return;
        live -= static_cast<long long>(malloc_usable_size(p));
        std::free(p);
    }
};

}  // namespace tests

#if LLM_COUNTED_HEAP
// All forms, as a sanitizer brings its own of those that are left out.
using Alignment = std::align_val_t;
void* operator new(std::size_t n) { return tests::Heap::allocate(n, 1); }
void* operator new[](std::size_t n) { return tests::Heap::allocate(n, 1); }
void* operator new(std::size_t n, Alignment a) { return tests::Heap::allocate(n, static_cast<std::size_t>(a)); }
void* operator new[](std::size_t n, Alignment a) { return tests::Heap::allocate(n, static_cast<std::size_t>(a)); }
void* operator new(std::size_t n, const std::nothrow_t&) noexcept {
    try {
        return tests::Heap::allocate(n, 1);
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
}
void* operator new[](std::size_t n, const std::nothrow_t& nothrow) noexcept { return operator new(n, nothrow); }
void operator delete(void* p) noexcept { tests::Heap::release(p); }
void operator delete[](void* p) noexcept { tests::Heap::release(p); }
void operator delete(void* p, std::size_t) noexcept { tests::Heap::release(p); }
void operator delete[](void* p, std::size_t) noexcept { tests::Heap::release(p); }
void operator delete(void* p, Alignment) noexcept { tests::Heap::release(p); }
void operator delete[](void* p, Alignment) noexcept { tests::Heap::release(p); }
void operator delete(void* p, std::size_t, Alignment) noexcept { tests::Heap::release(p); }
void operator delete[](void* p, std::size_t, Alignment) noexcept { tests::Heap::release(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { tests::Heap::release(p); }
void operator delete[](void* p, const std::nothrow_t&) noexcept { tests::Heap::release(p); }
#endif  // LLM_COUNTED_HEAP

#endif
