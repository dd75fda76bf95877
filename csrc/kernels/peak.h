// Multiply instructions on registers alone, to see what a processor can do at best.
#pragma once

#include <stdint.h>

#include "base/inline.h"

namespace foretoken {

// Multiply-adds of as many bytes by as many bytes as a register has, `step` each, in eight sums that begin at `zero`.
template <class Register, class Step>
static FT_INLINE int64_t peak_of(int64_t rounds, Register zero, Register weight, Register x, const Step& step) {
    Register a = zero, b = zero, c = zero, d = zero, e = zero, f = zero, g = zero,
             h = zero;  // an array would be memory
    const auto add = [&](Register& sum) {
        FT_RENEW(weight);
        sum = step(sum, weight, x);
        FT_RENEW(sum);
    };
    for (int64_t i = 0; i < rounds; ++i) add(a), add(b), add(c), add(d), add(e), add(f), add(g), add(h);
    return rounds * 8 * static_cast<int64_t>(sizeof(Register));
}

}  // namespace foretoken
