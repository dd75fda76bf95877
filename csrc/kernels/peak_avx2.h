// Multiply instructions on 256-bit registers alone, to see what a processor can do at best.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#include "base/inline.h"

namespace foretoken {

// Multiply-adds of 32 bytes by 32 bytes, `step` each, in eight sums.
template <class Step>
static FT_INLINE int64_t peak_of(int64_t rounds, const Step& step) {
    const __m256i zero = _mm256_setzero_si256(), x = _mm256_set1_epi8(5);
    __m256i weight = _mm256_set1_epi8(3);
    __m256i a = zero, b = zero, c = zero, d = zero, e = zero, f = zero, g = zero, h = zero;  // an array would be memory
    const auto add = [&](__m256i& sum) {
        FT_RENEW(weight);
        sum = step(sum, weight, x);
        FT_RENEW(sum);
    };
    for (int64_t i = 0; i < rounds; ++i) add(a), add(b), add(c), add(d), add(e), add(f), add(g), add(h);
    return rounds * 8 * 32;
}

}  // namespace foretoken
