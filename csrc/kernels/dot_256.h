// What the integer dots on 256 bits share.
#pragma once

#include "base/vec_avx2.h"
#include "kernels/dot_x86.h"
#include "kernels/linear_blocks.h"
#include "kernels/peak.h"

namespace foretoken {

// Sums of 16 outputs.
struct Sum256 {
    __m256i lo, hi;
};

template <class Dot, int R>
static FT_INLINE void begin_dots(const int8_t* q, Sum256* dot) {
    for (int r = 0; r < R; ++r) dot[r].lo = dot[r].hi = _mm256_set1_epi32(start_in<Dot>(q + r * kBlockBytes<Dot>));
}

// Four inputs of a row for all outputs.
static FT_INLINE __m256i broadcast(const int8_t* q) { return _mm256_set1_epi32(four_of(q)); }

// Group g of a q4 panel block, outputs 8h ... 8h + 7: codes of the inputs 16 * part + 4g ... 4g + 3. A part is unpacked
// when it is needed: with codes[2], x and a product beside 12 sums, six rows fit the registers.
static FT_INLINE __m256i unpack_codes(const uint8_t* w, int g, int h, int part) {
    const __m256i pair = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w + g * 64 + h * 32));
    return _mm256_and_si256(part ? _mm256_srli_epi16(pair, 4) : pair, _mm256_set1_epi8(15));
}

template <class Step>
static FT_INLINE int64_t peak_of(int64_t rounds, const Step& step) {
    return peak_of(rounds, _mm256_setzero_si256(), _mm256_set1_epi8(3), _mm256_set1_epi8(5), step);
}

}  // namespace foretoken
