// MEMORY AND THREADS: buffers, and the pool that shares work.

#include "support.h"

#include <ctime>
#if defined(__linux__) && defined(__LP64__)
#include <sys/syscall.h>
#endif

namespace tests {
namespace {

using detail::ThreadPool;

std::atomic<bool> clock_runs_fast{false};  // whoever looks at it finds another millisecond gone
std::atomic<long> clock_ahead{0};          // milliseconds

}  // namespace
}  // namespace tests

#if defined(__linux__) && defined(__LP64__) && !LLM_ASAN && !LLM_TSAN
// The system's clock for all of this program, which std::chrono asks as well.
extern "C" int clock_gettime(clockid_t clock, timespec* time) noexcept {
    const long result = syscall(SYS_clock_gettime, clock, time);
    if (tests::clock_runs_fast) ++tests::clock_ahead;
    const long ahead = clock == CLOCK_MONOTONIC ? tests::clock_ahead.load() : 0;
    time->tv_nsec += ahead % 1000 * 1000000;
    time->tv_sec += ahead / 1000 + time->tv_nsec / 1000000000;
    time->tv_nsec %= 1000000000;
    return static_cast<int>(result);
}
#endif

namespace tests {
namespace {

// ---- memory

TEST_CASE("a buffer is zeroed, aligned and shared by its copies") {
    for (const std::size_t bytes : {std::size_t{0}, std::size_t{1}, std::size_t{4097}, std::size_t{5} << 20}) {
        CAPTURE(bytes);
        detail::Buffer buffer(bytes);
        CHECK(buffer.bytes() == bytes);
        const auto address = reinterpret_cast<std::uintptr_t>(buffer.as<char>());
        CHECK(address % (bytes < 2 << 20 ? 64 : 2 << 20) == 0);
        CHECK(std::count(buffer.as<char>(), buffer.as<char>() + bytes, 0) == static_cast<std::ptrdiff_t>(bytes));
        if (bytes == 0) continue;
        const detail::Buffer copy = buffer;
        buffer.as<char>()[bytes - 1] = 7;
        CHECK(copy.as<char>()[bytes - 1] == 7);
        buffer.grow(bytes);  // is large enough
        CHECK(buffer.as<char>() == copy.as<char>());
        buffer.grow(bytes + 1);
        CHECK(buffer.bytes() == bytes + 1);
        CHECK(buffer.as<char>()[bytes - 1] == 0);
        CHECK(copy.as<char>()[bytes - 1] == 7);  // the old one lives as long as it has an owner
    }
    for (const std::uint64_t bytes : {UINT64_MAX, UINT64_MAX - 4096, std::uint64_t{1} << 62})
        CHECK_THROWS_AS(detail::Buffer{bytes}, std::bad_alloc);
}

TEST_CASE("an arena's pieces are aligned and share nothing") {
    detail::Arena arena;
    std::map<std::uint8_t*, std::size_t> pieces;
    std::size_t total = 0;
    for (const std::size_t bytes : {1u, 63u, 64u, 65u, 5000u, 40u << 20, 40u << 20, 100u << 20, 3u}) {
        std::uint8_t* const piece = arena.allocate(bytes);
        CHECK(reinterpret_cast<std::uintptr_t>(piece) % 64 == 0);
        CHECK(pieces.emplace(piece, bytes).second);
        piece[0] = piece[bytes - 1] = 1;
        total += (bytes + 63) / 64 * 64;
    }
    CHECK(arena.bytes() == total);
    const std::uint8_t* end = nullptr;
    for (const auto& [piece, bytes] : pieces) {
        CHECK(piece >= end);
        end = piece + bytes;
    }
}

TEST_CASE("random numbers are splitmix64's, and fill the unit interval") {
    std::uint64_t state = 1234567;  // the published ones of this seed
    for (const std::uint64_t expected : {6457827717110365317u, 3203168211198807973u, 9817491932198370423u})
        CHECK(detail::next_random(state) == expected);
    double low = 1, high = 0, sum = 0;
    for (int i = 0; i < 100000; ++i) {
        const double x = detail::next_uniform(state);
        low = std::min(low, x), high = std::max(high, x), sum += x;
    }
    CHECK((low >= 0 && low < 1e-3));
    CHECK((high < 1 && high > 0.999));
    CHECK(sum / 100000 == doctest::Approx(0.5).epsilon(0.01));
}

// ---- the pool

TEST_CASE("every item is done once, in ranges no longer than the grain, by a thread of the pool") {
    for (const int threads : {1, 2, 3, 7}) {
        ThreadPool pool(threads);
        CHECK(pool.size() == threads);
        for (const int count : {0, 1, 2, 3, 7, 8, 64, 1000})
            for (const int grain : {-1, 0, 1, 2, 5, 64, 1 << 30}) {
                CAPTURE(threads);
                CAPTURE(count);
                CAPTURE(grain);
                std::vector<std::atomic<int>> done(usize(count));
                std::atomic<int> wrong{0};
                pool.for_ranges(count, grain, [&](int begin, int end, int thread) {
                    const bool good = begin >= 0 && begin < end && end <= count && end - begin <= std::max(1, grain) &&
                                      thread >= 0 && thread < threads;
                    if (!good) ++wrong;
                    else
                        for (int i = begin; i < end; ++i) ++done[usize(i)];
                });
                CHECK(wrong == 0);
                CHECK(std::all_of(done.begin(), done.end(), [](const auto& n) { return n == 1; }));
            }
        std::atomic<int> sum{0};
        pool.for_each(100, [&](int i) { sum += i; });
        CHECK(sum == 4950);
    }
}

TEST_CASE("regions follow each other at once, and what one wrote the next one reads") {
    ThreadPool pool(3);
    std::vector<int> values(300), next(300);
    for (int round = 0; round < 20000 / kThinned; ++round) {
        pool.for_ranges(300, 7, [&](int begin, int end, int) {
            for (int i = begin; i < end; ++i) next[usize(i)] = values[usize((i + 1) % 300)] + 1;
        });
        values.swap(next);
    }
    CHECK(std::all_of(values.begin(), values.end(), [](int v) { return v == 20000 / kThinned; }));
}

TEST_CASE("an exception comes out when nobody is inside any more, and is forgotten then") {
    for (const int threads : {1, 2, 4}) {
        CAPTURE(threads);
        ThreadPool pool(threads);
        for (int round = 0; round < 200; ++round) {
            std::atomic<int> inside{0};
            const auto body = [&](int i) {
                ++inside;
                std::this_thread::yield();
                --inside;
                if (i % 10 == 3) throw std::runtime_error("item");
            };
            CHECK_THROWS_WITH_AS(pool.for_each(40, body), "item", std::runtime_error);
            CHECK(inside == 0);
            std::atomic<int> done{0};
            pool.for_each(40, [&](int) { ++done; });  // throws nothing
            CHECK(done == 40);
        }
        CHECK_THROWS_AS(pool.for_each(1, [](int) { throw 1; }), int);
        CHECK_NOTHROW(pool.for_each(40, [](int) {}));
    }
}

// All threads of a region meet in it: each has one item, and waits until all have come, 20 seconds at the most.
bool meet(std::atomic<int>& here, int threads) {
    ++here;
    for (const std::time_t start = std::time(nullptr); here < threads && std::time(nullptr) - start < 20;)
        for (int i = 0; i < 1000 && here < threads; ++i) i % 100 ? detail::cpu_relax() : std::this_thread::yield();
    return here == threads;
}

TEST_CASE("threads that are inside at the same time have different numbers") {
    for (const int threads : {2, 4}) {
        ThreadPool pool(threads);
        std::atomic<int> here{0}, numbers{0};
        pool.for_ranges(threads, 1, [&](int, int, int thread) {
            numbers |= 1 << thread;
            meet(here, threads);
        });
        CHECK(numbers == (1 << threads) - 1);
    }
}

// A helper that falls asleep just when a region begins must be woken up or see it. It sleeps when a while has passed,
// which the clock makes short here, and the pauses end around that moment.
TEST_CASE("helpers wake up for every region, whenever it begins") {
    ThreadPool pool(2);
    Random random{1};
    std::atomic<bool> all_met{true};
    clock_runs_fast = true;
    for (int round = 0; round < 40000 / kThinned && all_met; ++round) {
        for (int n = round % 64 ? 200 + random.below(160) : random.below(4000); n > 0; --n) detail::cpu_relax();
        std::atomic<int> here{0};
        pool.for_each(2, [&](int) {
            if (!meet(here, 2)) all_met = false;
        });
    }
    clock_runs_fast = false;
    CHECK(all_met);
}

TEST_CASE("a pool that did nothing, or little, ends") {
    for (int i = 0; i < 50; ++i) {
        ThreadPool pool(4);
        if (i % 2) pool.for_each(4, [](int) {});
        if (i % 10 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));  // its helpers sleep
    }
}

TEST_CASE("waiting for helpers is counted where it is asked for") {
    ThreadPool pool(2);
    std::atomic<int> here;
    const auto meet_and_work = [&](int, int, int thread) {
        if (meet(here, 2) && thread == 1) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    };
    here = 0;
    pool.for_ranges(2, 1, meet_and_work);
    CHECK(pool.waited == 0);
    pool.timed = true;
    for (int i = 0; i < 4; ++i) {
        here = 0;
        const double before = pool.waited;
        pool.for_ranges(2, 1, meet_and_work);
        CHECK(pool.waited > before);
    }
}

TEST_CASE("floats are IEEE's inside of a step, and the host program's own arithmetic stays as it was") {
    volatile float small = 1e-30f, one = 1;
    const auto is_flushed = [&] { return small * 1e-10f == 0; };
    const auto rounds_up = [&] { return one + 1e-10f > 1; };
    for (const bool flush : {false, kCanFlush})
        for (const bool up : {false, true}) {
            const HostFloats host(flush, up);
            for (const int threads : {1, 3}) {
                ThreadPool pool(threads);
                std::atomic<int> wrong{0};
                pool.for_each(100, [&](int) { wrong += is_flushed() || rounds_up(); });
                CHECK(wrong == 0);
                CHECK((is_flushed() == flush && rounds_up() == up));
                CHECK_THROWS_AS(pool.for_each(100, [&](int) { throw 1; }), int);
                CHECK((is_flushed() == flush && rounds_up() == up));
            }
            Session session(load(tiny("gemma3-tiny")), 0, 2);
            generated(session, "To be", greedy(2));
            CHECK((is_flushed() == flush && rounds_up() == up));
        }
}

}  // namespace
}  // namespace tests
