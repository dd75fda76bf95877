// Multiply instructions on registers alone, to see what a processor can do at best.
#pragma once

#include <stdint.h>

#include "base/inline.h"

namespace foretoken {

// Multiply-adds of as many bytes by as many bytes as a register has, `step` each, in twelve sums that begin at `zero`:
// some processors begin two a cycle and take five for each.
template <class Register, class Step>
static FT_INLINE int64_t peak_of(int64_t rounds, Register zero, Register weight, Register x, const Step& step) {
    Register a = zero, b = zero, c = zero, d = zero, e = zero, f = zero;  // an array would be memory
    Register g = zero, h = zero, i = zero, j = zero, k = zero, l = zero;
    const auto add = [&](Register& sum) {
        FT_RENEW(weight);
        sum = step(sum, weight, x);
        FT_RENEW(sum);
    };
    for (int64_t round = 0; round < rounds; ++round) {
        add(a), add(b), add(c), add(d), add(e), add(f), add(g), add(h), add(i), add(j), add(k), add(l);
    }
    return rounds * 12 * static_cast<int64_t>(sizeof(Register));
}

}  // namespace foretoken
