// The integer dots with VNNI on 512 bits: unsigned weights (w + 128, or codes w + 8) times signed activations.
#pragma once

#include "base/vec_avx512.h"
#include "kernels/linear_blocks.h"
#include "kernels/peak.h"

namespace foretoken {

template <int R>
static FT_INLINE void floats_of(const __m512i* dot, VecAvx512* t) {
    const __m512 offset = _mm512_set1_ps(kFloatOffset);
    for (int r = 0; r < R; ++r) t[r].v = _mm512_sub_ps(_mm512_castsi512_ps(dot[r]), offset);
}

static FT_INLINE int64_t vnni_peak(int64_t rounds) {
#ifdef FORETOKEN_SIMDE
    (void)rounds;  // emulated: no registers to multiply on
    return 0;
#else
    return peak_of(rounds, _mm512_setzero_si512(), _mm512_set1_epi8(3), _mm512_set1_epi8(5),
                   [](__m512i sum, __m512i weight, __m512i x) { return _mm512_dpbusd_epi32(sum, weight, x); });
#endif
}

template <>
struct DotQ8<VecAvx512> : ByteActivations {
    using Panel = BlockQ8Panel;
    static constexpr int kRows = 9, kAhead = 6;

    static FT_INLINE int32_t start(const int8_t* q) { return float_start(q, 128); }
    static int64_t peak(int64_t rounds) { return vnni_peak(rounds); }

    template <int R>
    static FT_INLINE void block(const uint8_t* w, const int8_t* q, int64_t q_stride, const int32_t* start,
                                int64_t start_stride, VecAvx512* t) {
        __m512i dot[R];
        for (int r = 0; r < R; ++r) dot[r] = _mm512_set1_epi32(start[r * start_stride]);
        for (int g = 0; g < kBlock / 4; ++g) {
            const __m512i weight = _mm512_loadu_si512(reinterpret_cast<const void*>(w + g * 64));
            for (int r = 0; r < R; ++r) {
                int32_t four;
                memcpy(&four, q + r * q_stride + g * 4, 4);
                dot[r] = _mm512_dpbusd_epi32(dot[r], weight, _mm512_set1_epi32(four));
            }
        }
        floats_of<R>(dot, t);
    }
};

template <>
struct DotQ4<VecAvx512> : ByteActivations {
    using Panel = BlockQ4Panel;
    static constexpr int kRows = 9, kAhead = 12;

    static FT_INLINE int32_t start(const int8_t* q) { return float_start(q, 8); }
    static int64_t peak(int64_t rounds) { return vnni_peak(rounds); }

    template <int R>
    static FT_INLINE void block(const uint8_t* w, const int8_t* q, int64_t q_stride, const int32_t* start,
                                int64_t start_stride, VecAvx512* t) {
        const __m512i low_bits = _mm512_set1_epi8(15);
        __m512i dot[R];
        for (int r = 0; r < R; ++r) dot[r] = _mm512_set1_epi32(start[r * start_stride]);
        for (int g = 0; g < kBlock / 8; ++g) {
            const __m512i pair = _mm512_loadu_si512(reinterpret_cast<const void*>(w + g * 64));
            const __m512i low = _mm512_and_si512(pair, low_bits);
            const __m512i high = _mm512_and_si512(_mm512_srli_epi16(pair, 4), low_bits);
            for (int r = 0; r < R; ++r) {
                int32_t first, second;
                memcpy(&first, q + r * q_stride + g * 4, 4);
                memcpy(&second, q + r * q_stride + 16 + g * 4, 4);
                dot[r] = _mm512_dpbusd_epi32(dot[r], low, _mm512_set1_epi32(first));
                dot[r] = _mm512_dpbusd_epi32(dot[r], high, _mm512_set1_epi32(second));
            }
        }
        floats_of<R>(dot, t);
    }
};

}  // namespace foretoken
