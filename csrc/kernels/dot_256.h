// What the integer dots on 256 bits share.
#pragma once

#include "base/vec_avx2.h"
#include "kernels/peak.h"

namespace foretoken {

// Group g of a q4 panel block, two halves of 8 outputs: codes of the inputs 4g ... 4g + 3, and of 16 + 4g ...
static FT_INLINE void unpack_codes(const uint8_t* w, int g, __m256i* low, __m256i* high) {
    const __m256i low_bits = _mm256_set1_epi8(15);
    for (int h = 0; h < 2; ++h) {
        const __m256i pair = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w + g * 64 + h * 32));
        low[h] = _mm256_and_si256(pair, low_bits);
        high[h] = _mm256_and_si256(_mm256_srli_epi16(pair, 4), low_bits);
    }
}

template <class Step>
static FT_INLINE int64_t peak_of(int64_t rounds, const Step& step) {
    return peak_of(rounds, _mm256_setzero_si256(), _mm256_set1_epi8(3), _mm256_set1_epi8(5), step);
}

}  // namespace foretoken
