// The integer dot of q8 that defines the others.
#pragma once

#include "base/vec_scalar.h"
#include "kernels/linear_q8.h"

namespace foretoken {

template <>
struct Dot<VecScalar> {
    static constexpr int kRows = 1;

    template <int R>
    static FT_INLINE void block(const uint8_t* w, const int8_t* q, int64_t, const int32_t*, int64_t, VecScalar* t) {
        for (int o = 0; o < kPanel; ++o) {
            int32_t dot = 0;
            for (int i = 0; i < kBlock; ++i) dot += (w[(i / 4) * 64 + o * 4 + i % 4] - 128) * q[i];
            t[0].lane[o] = static_cast<float>(dot);
        }
    }
};

}  // namespace foretoken
