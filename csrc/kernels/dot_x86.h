// What the integer dots of all x86 instruction sets share.
#pragma once

#include <emmintrin.h>
#include <stdint.h>
#include <string.h>

#include "base/inline.h"
#include "formats/q8.h"

namespace foretoken {

// A dot t that begins here, the zero point times sum(x) below kFloatBits, ends as the bits of the float 1.5 * 2^23 + t,
// |t| < 2^20: one subtraction makes it float(t), exactly, and may run beside the multiplier, where a conversion may
// not.
constexpr int32_t kFloatBits = 0x4b400000;
constexpr float kFloatOffset = 12582912.0f;

// Of a block of activations. They are read in halves, as they were stored: a load over two stores would wait for both.
static FT_INLINE int32_t sum_of(const int8_t* q) {
    // psadbw adds unsigned bytes, so each is made 128 more.
    const __m128i zero = _mm_setzero_si128(), flip = _mm_set1_epi8(-128);
    const __m128i low = _mm_xor_si128(_mm_loadu_si128(reinterpret_cast<const __m128i*>(q)), flip);
    const __m128i high = _mm_xor_si128(_mm_loadu_si128(reinterpret_cast<const __m128i*>(q + 16)), flip);
    const __m128i sums = _mm_add_epi64(_mm_sad_epu8(low, zero), _mm_sad_epu8(high, zero));
    return _mm_cvtsi128_si32(_mm_add_epi64(sums, _mm_unpackhi_epi64(sums, sums))) - 128 * kBlock;
}

static FT_INLINE int32_t float_start(const int8_t* q, int32_t zero_point) {
    return kFloatBits - zero_point * sum_of(q);
}

// Four inputs of a row as one number.
static FT_INLINE int32_t four_of(const int8_t* q) {
    int32_t four;
    memcpy(&four, q, 4);
    return four;
}

}  // namespace foretoken
