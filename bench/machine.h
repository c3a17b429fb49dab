// What memory and the cores can do at most, by the instructions that llm.h's kernels use: the roofs under which a model
// runs. Each set of kernels brings its probe, see probe.h.

#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "../llm.h"
#include "probes.h"
#include "statistics.h"
#include "system.h"

namespace bench {

using llm::detail::seconds_since;
using llm::detail::ThreadPool;
using llm::detail::usize;
using Clock = std::chrono::steady_clock;

// The row of the kernels that run.
inline const Probe& find_probe() {
    const std::string kernels = llm::detail::choose_kernels().name;
    for (const Probe& probe : probes())
        if (probe.kernels == kernels) return probe;
    throw llm::Error("no probe for these kernels: " + kernels + ": define LLM_KERNEL_PROBE before llm.h is read");
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
        const auto peak = [&](bool floats) {  // a lane of two dot products does 16 operations, one of a multiply-add 2
            const Samples found = rates(12.0 * kRounds * probe_.lanes * (floats ? 2 : 16) * threads * 4, [&] {
                pool.for_each(threads * 4, [&](int) { probe_.peak(kRounds, floats); });
            });
            return *std::max_element(found.begin(), found.end());
        };
        measured_.push_back({threads, {median(read), peak(false), peak(true)}, median(copy), spread(read)});
    }

    const Probe& probe_ = find_probe();
    llm::detail::Buffer buffer_;
    std::vector<Measured> measured_;
};

}  // namespace bench
