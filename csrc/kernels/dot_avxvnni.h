// The integer dots with VNNI on 256 bits, for processors that have it without AVX-512. As dot_avx512vnni.h, in halves.
#pragma once

#include "base/vec_avx2.h"
#include "kernels/dot_256.h"
#include "kernels/linear_blocks.h"

namespace foretoken {

// weight: four inputs of 16 outputs; q: the four inputs of R rows
template <int R>
static FT_INLINE void add_dots(const __m256i* weight, const int8_t* q, Sum256* dot) {
    for (int r = 0; r < R; ++r) {
        const __m256i x = broadcast(q + r * kBlockBytes<ByteActivations>);
        dot[r].lo = _mm256_dpbusd_avx_epi32(dot[r].lo, weight[0], x);
        dot[r].hi = _mm256_dpbusd_avx_epi32(dot[r].hi, weight[1], x);
    }
}

static FT_INLINE VecAvx2 floats_of(const Sum256& dot) {
    const __m256 offset = _mm256_set1_ps(kFloatOffset);
    return {_mm256_sub_ps(_mm256_castsi256_ps(dot.lo), offset), _mm256_sub_ps(_mm256_castsi256_ps(dot.hi), offset)};
}

static FT_INLINE int64_t vnni_peak(int64_t rounds) {
    return peak_of(rounds,
                   [](__m256i sum, __m256i weight, __m256i x) { return _mm256_dpbusd_avx_epi32(sum, weight, x); });
}

struct DotQ8AvxVnni : ByteActivations {
    using Panel = BlockQ8Panel;
    using Sum = Sum256;
    static constexpr int kRows = 6;

    static FT_INLINE int32_t start(const int8_t* q) { return float_start(q, 128); }
    static int64_t peak(int64_t rounds) { return vnni_peak(rounds); }
    static FT_INLINE VecAvx2 value(const Sum& dot) { return floats_of(dot); }

    template <int R, int P>
    static FT_INLINE void block(const uint8_t* w, int64_t, const int8_t* q, Sum* dot) {
        begin_dots<ByteActivations, R>(q, dot);
        for (int g = 0; g < kBlock / 4; ++g) {
            const __m256i* at = reinterpret_cast<const __m256i*>(w + g * 64);
            const __m256i weight[2] = {_mm256_loadu_si256(at), _mm256_loadu_si256(at + 1)};
            add_dots<R>(weight, q + g * 4, dot);
        }
    }
};

struct DotQ4AvxVnni : ByteActivations {
    using Panel = BlockQ4Panel;
    using Sum = Sum256;
    static constexpr int kRows = 6;

    static FT_INLINE int32_t start(const int8_t* q) { return float_start(q, 8); }
    static int64_t peak(int64_t rounds) { return vnni_peak(rounds); }
    static FT_INLINE VecAvx2 value(const Sum& dot) { return floats_of(dot); }

    template <int R, int P>
    static FT_INLINE void block(const uint8_t* w, int64_t, const int8_t* q, Sum* dot) {
        begin_dots<ByteActivations, R>(q, dot);
        FT_UNROLL(4) for (int g = 0; g < kBlock / 8; ++g) {
            for (int part = 0; part < 2; ++part) {
                const __m256i codes[2] = {unpack_codes(w, g, 0, part), unpack_codes(w, g, 1, part)};
                add_dots<R>(codes, q + part * 16 + g * 4, dot);
            }
        }
    }
};

}  // namespace foretoken
