// The integer dots of q8 and q4 that define the others.
#pragma once

#include "base/vec_scalar.h"
#include "kernels/linear_blocks.h"

namespace foretoken {

template <>
struct DotQ8<VecScalar> : ByteActivations {
    using Panel = BlockQ8Panel;
    static constexpr int kRows = 1, kAhead = 6;

    static FT_INLINE int32_t start(const int8_t*) { return 0; }
    static int64_t peak(int64_t) { return 0; }

    template <int R>
    static FT_INLINE void block(const uint8_t* w, const int8_t* q, int64_t, const int32_t*, int64_t, VecScalar* t) {
        for (int o = 0; o < kPanel; ++o) {
            int32_t dot = 0;
            for (int i = 0; i < kBlock; ++i) dot += (w[(i / 4) * 64 + o * 4 + i % 4] - 128) * q[i];
            t[0].lane[o] = static_cast<float>(dot);
        }
    }
};

template <>
struct DotQ4<VecScalar> : ByteActivations {
    using Panel = BlockQ4Panel;
    static constexpr int kRows = 1, kAhead = 12;

    static FT_INLINE int32_t start(const int8_t*) { return 0; }
    static int64_t peak(int64_t) { return 0; }

    template <int R>
    static FT_INLINE void block(const uint8_t* w, const int8_t* q, int64_t, const int32_t*, int64_t, VecScalar* t) {
        for (int o = 0; o < kPanel; ++o) {
            int32_t dot = 0;
            for (int i = 0; i < kBlock / 2; ++i) {
                const int pair = w[(i / 4) * 64 + o * 4 + i % 4];
                dot += ((pair & 15) - 8) * q[i] + ((pair >> 4) - 8) * q[i + 16];
            }
            t[0].lane[o] = static_cast<float>(dot);
        }
    }
};

}  // namespace foretoken
