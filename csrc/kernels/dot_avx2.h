// The integer dots with AVX2. q8: 16-bit products of w + 128 and x, pairs added in 32 bits; the dot begins at
// -128 * sum(x). Weights become 16 bits by a mask or a shift, which takes inputs 0 and 2, or 1 and 3, out of every
// four; x is kept in that order, as 16 bits. (Bytes by bytes would need sign and size apart, and the same multiplier
// for both.) q4: codes 0 ... 15 are unsigned as they are. Each of the two 16-bit lanes of an output takes 16 products;
// it begins at -8 times the sum of their x, so it ends within 16 * 8 * 127 = 16256, however often it wraps on the way.
#pragma once

#include "base/vec_avx2.h"
#include "kernels/dot_256.h"
#include "kernels/linear_blocks.h"

namespace foretoken {

template <>
struct DotQ8<VecAvx2> : OnePanel {
    using Panel = BlockQ8Panel;
    using Sum = Sum256;
    static constexpr int kRows = 5;
    static constexpr int64_t kStreamAhead = 1280, kCodeBytes = 2 * kBlock;

    static FT_INLINE int32_t start(const int8_t* q) { return -128 * sum_of(q); }

    static FT_INLINE int8_t* codes_at(int8_t*, int8_t* scratch) { return scratch; }

    static FT_INLINE void keep(const int8_t* codes, int8_t* q) {
        const __m128i order = _mm_setr_epi8(0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15);
        for (int i = 0; i < 2; ++i) {
            const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes) + i);
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(q) + i, _mm256_cvtepi8_epi16(_mm_shuffle_epi8(half, order)));
        }
    }

    static int64_t peak(int64_t rounds) {
        return peak_of(rounds, [](__m256i sum, __m256i weight,
                                  __m256i x) { return _mm256_add_epi32(sum, _mm256_madd_epi16(weight, x)); }) /
               2;
    }

    static FT_INLINE VecAvx2 value(const Sum& dot) { return {_mm256_cvtepi32_ps(dot.lo), _mm256_cvtepi32_ps(dot.hi)}; }

    template <int R, int P>
    static FT_INLINE void block(const uint8_t* w, int64_t, const int8_t* q, Sum* dot) {
        const __m256i low_bytes = _mm256_set1_epi16(255);
        begin_dots<DotQ8<VecAvx2>, R>(q, dot);
        FT_UNROLL(8) for (int g = 0; g < kBlock / 4; ++g) {
            for (int part = 0; part < 2; ++part) {
                __m256i weight[2];
                for (int h = 0; h < 2; ++h) {
                    const __m256i raw = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w + g * 64 + h * 32));
                    weight[h] = part ? _mm256_srli_epi16(raw, 8) : _mm256_and_si256(raw, low_bytes);
                }
                for (int r = 0; r < R; ++r) {
                    const __m256i x = broadcast(q + r * kBlockBytes<DotQ8<VecAvx2>> + g * 8 + part * 4);
                    dot[r].lo = _mm256_add_epi32(dot[r].lo, _mm256_madd_epi16(weight[0], x));
                    FT_PIN(dot[r].lo);
                    dot[r].hi = _mm256_add_epi32(dot[r].hi, _mm256_madd_epi16(weight[1], x));
                    FT_PIN(dot[r].hi);
                }
            }
        }
    }
};

template <>
struct DotQ4<VecAvx2> : ByteActivations {
    using Panel = BlockQ4Panel;
    using Sum = Sum256;
    static constexpr int kRows = 6;
    static constexpr int64_t kStreamAhead = 1280;

    static FT_INLINE int32_t start(const int8_t* q) {
        const __m128i ones = _mm_set1_epi8(1);
        const __m128i* half = reinterpret_cast<const __m128i*>(q);  // see sum_of
        __m128i sum = _mm_add_epi16(_mm_maddubs_epi16(ones, _mm_loadu_si128(half)),
                                    _mm_maddubs_epi16(ones, _mm_loadu_si128(half + 1)));
        sum = _mm_add_epi16(sum, _mm_shuffle_epi32(sum, _MM_SHUFFLE(1, 0, 3, 2)));
        sum = _mm_add_epi16(sum, _mm_shuffle_epi32(sum, _MM_SHUFFLE(2, 3, 0, 1)));
        return _mm_cvtsi128_si32(_mm_sub_epi16(_mm_setzero_si128(), _mm_slli_epi16(sum, 3)));
    }

    static int64_t peak(int64_t rounds) {
        return peak_of(rounds, [](__m256i sum, __m256i weight, __m256i x) {
            return _mm256_add_epi16(sum, _mm256_maddubs_epi16(weight, x));
        });
    }

    static FT_INLINE VecAvx2 value(const Sum& dot) {
        const __m256i ones = _mm256_set1_epi16(1);
        return {_mm256_cvtepi32_ps(_mm256_madd_epi16(dot.lo, ones)),
                _mm256_cvtepi32_ps(_mm256_madd_epi16(dot.hi, ones))};
    }

    template <int R, int P>
    static FT_INLINE void block(const uint8_t* w, int64_t, const int8_t* q, Sum* dot) {
        begin_dots<DotQ4<VecAvx2>, R>(q, dot);
        FT_UNROLL(4) for (int g = 0; g < kBlock / 8; ++g) {
            for (int part = 0; part < 2; ++part) {
                const __m256i codes[2] = {unpack_codes(w, g, 0, part), unpack_codes(w, g, 1, part)};
                for (int r = 0; r < R; ++r) {
                    const __m256i x = broadcast(q + r * kBlockBytes<DotQ4<VecAvx2>> + part * 16 + g * 4);
                    dot[r].lo = _mm256_add_epi16(dot[r].lo, _mm256_maddubs_epi16(codes[0], x));
                    FT_PIN(dot[r].lo);
                    dot[r].hi = _mm256_add_epi16(dot[r].hi, _mm256_maddubs_epi16(codes[1], x));
                    FT_PIN(dot[r].hi);
                }
            }
        }
    }
};

}  // namespace foretoken
