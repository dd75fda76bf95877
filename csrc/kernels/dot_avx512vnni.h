// The integer dots with VNNI on 512 bits: unsigned weights (w + 128, or codes w + 8) times signed activations.
#pragma once

#include "base/vec_avx512.h"
#include "kernels/dot_x86.h"
#include "kernels/linear_blocks.h"
#include "kernels/peak.h"

namespace foretoken {

template <int R, int P>
static FT_INLINE void begin_dots(const int8_t* q, __m512i* dot) {
    for (int r = 0; r < R; ++r) {
        const __m512i start = _mm512_set1_epi32(start_in<ByteActivations>(q + r * kBlockBytes<ByteActivations>));
        for (int p = 0; p < P; ++p) dot[r * P + p] = start;
    }
}

// Four inputs of a row for all outputs.
static FT_INLINE __m512i broadcast(const int8_t* q) { return _mm512_set1_epi32(four_of(q)); }

// weight: four inputs of 16 outputs, of P panels
template <int P>
static FT_INLINE void add_dots(const __m512i* weight, __m512i x, __m512i* dot) {
    for (int p = 0; p < P; ++p) dot[p] = _mm512_dpbusd_epi32(dot[p], weight[p], x);
}

static FT_INLINE VecAvx512 floats_of(__m512i dot) {
    return {_mm512_sub_ps(_mm512_castsi512_ps(dot), _mm512_set1_ps(kFloatOffset))};
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
    using Sum = __m512i;
    static constexpr int kRows = 18, kPairRows = 9, kStreamRows = 3;
    static constexpr int64_t kManyInputs = 4096;
    static constexpr bool kHalves = true;

    static FT_INLINE int32_t start(const int8_t* q) { return float_start(q, 128); }
    static int64_t peak(int64_t rounds) { return vnni_peak(rounds); }
    static FT_INLINE VecAvx512 value(Sum dot) { return floats_of(dot); }

    template <int R, int P>
    static FT_INLINE void block(const uint8_t* w, int64_t w_stride, const int8_t* q, Sum* dot) {
        begin_dots<R, P>(q, dot);
        FT_UNROLL(8) for (int g = 0; g < kBlock / 4; ++g) {
            __m512i weight[P];
            for (int p = 0; p < P; ++p) {
                weight[p] = _mm512_loadu_si512(reinterpret_cast<const void*>(w + p * w_stride + g * 64));
            }
            FT_UNROLL(18)
            for (int r = 0; r < R; ++r)
                add_dots<P>(weight, broadcast(q + r * kBlockBytes<ByteActivations> + g * 4), dot + r * P);
        }
    }
};

template <>
struct DotQ4<VecAvx512> : ByteActivations {
    using Panel = BlockQ4Panel;
    using Sum = __m512i;
    static constexpr int kRows = 9, kPairRows = 9, kStreamRows = 2;
    static constexpr int64_t kManyInputs = INT64_MAX;  // half the bytes

    static FT_INLINE int32_t start(const int8_t* q) { return float_start(q, 8); }
    static int64_t peak(int64_t rounds) { return vnni_peak(rounds); }
    static FT_INLINE VecAvx512 value(Sum dot) { return floats_of(dot); }

    template <int R, int P>
    static FT_INLINE void block(const uint8_t* w, int64_t w_stride, const int8_t* q, Sum* dot) {
        const __m512i low_bits = _mm512_set1_epi8(15);
        begin_dots<R, P>(q, dot);
        FT_UNROLL(4) for (int g = 0; g < kBlock / 8; ++g) {
            __m512i low[P], high[P];
            for (int p = 0; p < P; ++p) {
                const __m512i pair = _mm512_loadu_si512(reinterpret_cast<const void*>(w + p * w_stride + g * 64));
                low[p] = _mm512_and_si512(pair, low_bits);
                high[p] = _mm512_and_si512(_mm512_srli_epi16(pair, 4), low_bits);
            }
            FT_UNROLL(18) for (int r = 0; r < R; ++r) {
                const __m512i first = broadcast(q + r * kBlockBytes<ByteActivations> + g * 4);
                const __m512i second = broadcast(q + r * kBlockBytes<ByteActivations> + 16 + g * 4);
                add_dots<P>(low, first, dot + r * P);
                add_dots<P>(high, second, dot + r * P);
            }
        }
    }
};

}  // namespace foretoken
