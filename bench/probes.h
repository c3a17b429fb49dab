// The list of what probe.h measures, one entry for each set of kernels. Read before llm.h.

#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace bench {

struct Probe {
    const char* kernels;  // the set's name in llm.h
    void (*read)(const std::uint8_t* p, std::size_t n);
    void (*peak)(int rounds, bool floats);  // rounds of 12 chains
    int lanes;                              // of a vector of i32 or f32
};

inline std::vector<Probe>& probes() {
    static std::vector<Probe> all;
    return all;
}

inline bool list_probe(const Probe& probe) {
    probes().push_back(probe);
    return true;
}

}  // namespace bench
