// What repeated measurements say together.

#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace bench {

using Samples = std::vector<double>;

inline double sum(const Samples& x) { return std::accumulate(x.begin(), x.end(), 0.0); }
inline double mean(const Samples& x) { return sum(x) / double(x.size()); }

inline double deviation(const Samples& x) {
    double squares = 0;
    for (const double v : x) squares += (v - mean(x)) * (v - mean(x));
    return x.size() > 1 ? std::sqrt(squares / double(x.size() - 1)) : 0;
}

inline double quantile(Samples x, double q) {
    const auto at = x.begin() + std::min(std::ptrdiff_t(q * double(x.size())), std::ptrdiff_t(x.size()) - 1);
    std::nth_element(x.begin(), at, x.end());
    return *at;
}
inline double median(const Samples& x) { return quantile(x, 0.5); }

// How far runs lie apart, relative to their mean; not known from a single one.
inline double spread(const Samples& x) { return x.size() > 1 ? deviation(x) / mean(x) : NAN; }

}  // namespace bench
