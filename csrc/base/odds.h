// A drafter's confidence as odds. These are figures for planning and never decide a token, so the library's functions,
// which differ between machines, may be used.
#pragma once

#include <cmath>

namespace foretoken {

// Of a chance, within what a confidence can be trusted to say; the least for a NaN.
inline double log_odds(double chance) {
    return chance >= 0.989 ? 4.5 : chance > 0.018 ? std::log(chance / (1.0 - chance)) : -4.0;
}

inline double logistic(double x) { return 1.0 / (1.0 + std::exp(-x)); }

}  // namespace foretoken
