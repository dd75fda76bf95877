// The integer dot of q8 with VNNI: unsigned weights (w + 128) times signed activations, begun at -128 * sum(x).
#pragma once

#include "base/vec_avx512.h"
#include "kernels/linear_q8.h"

namespace foretoken {

template <>
struct Dot<VecAvx512> {
    static constexpr int kRows = 8;

    template <int R>
    static FT_INLINE void block(const uint8_t* w, const int8_t* q, int64_t q_stride, const int32_t* sum,
                                int64_t sum_stride, VecAvx512* t) {
        __m512i dot[R];
        for (int r = 0; r < R; ++r) dot[r] = _mm512_set1_epi32(-128 * sum[r * sum_stride]);
        for (int g = 0; g < kBlock / 4; ++g) {
            const __m512i weight = _mm512_loadu_si512(reinterpret_cast<const void*>(w + g * 64));
            for (int r = 0; r < R; ++r) {
                int32_t four;
                memcpy(&four, q + r * q_stride + g * 4, 4);
                dot[r] = _mm512_dpbusd_epi32(dot[r], weight, _mm512_set1_epi32(four));
            }
        }
        for (int r = 0; r < R; ++r) t[r].v = _mm512_cvtepi32_ps(dot[r]);
    }
};

}  // namespace foretoken
