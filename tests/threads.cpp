// MEMORY AND THREADS: the pool that shares work.

#include "support.h"

namespace tests {
namespace {

#ifdef __x86_64__
// Where they are slow, numbers below 1e-38 are 0 inside of a step; the host program's own arithmetic stays as it was.
TEST_CASE("denormals are flushed in a step and nowhere else") {
    volatile float small = 1e-30f;
    const auto is_flushed = [&] { return small * 1e-10f == 0; };
    for (const int threads : {1, 3}) {
        detail::ThreadPool pool(threads);
        std::atomic<int> flushed{0};
        pool.for_each(100, [&](int) { flushed += is_flushed(); });
        CHECK(flushed == 100);
        CHECK(!is_flushed());
        CHECK_THROWS_AS(pool.for_each(100, [&](int) { throw 1; }), int);
        CHECK(!is_flushed());
    }
    Session session(load(tiny("gemma3-tiny")), 0, 2);
    generated(session, "To be", greedy(2));
    CHECK(!is_flushed());
}
#endif

}  // namespace
}  // namespace tests
