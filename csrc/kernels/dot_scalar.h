// The integer dots of q8 and q4 that define the others.
#pragma once

#include "base/vec_scalar.h"
#include "kernels/linear_blocks.h"

namespace foretoken {

template <>
struct DotQ8<VecScalar> : ByteActivations {
    using Panel = BlockQ8Panel;
    using Sum = VecScalar::Int;
    static constexpr int kRows = 1;

    static FT_INLINE int32_t start(const int8_t*) { return 0; }
    static int64_t peak(int64_t) { return 0; }
    static FT_INLINE VecScalar value(const Sum& dot) { return VecScalar::to_float(dot); }

    template <int R, int P>
    static FT_INLINE void block(const uint8_t* w, int64_t, const int8_t* q, Sum* dot) {
        for (int o = 0; o < kPanel; ++o) {
            int32_t sum = 0;
            for (int i = 0; i < kBlock; ++i) sum += (w[(i / 4) * 64 + o * 4 + i % 4] - 128) * q[i];
            dot[0].lane[o] = static_cast<uint32_t>(sum);
        }
    }
};

template <>
struct DotQ4<VecScalar> : ByteActivations {
    using Panel = BlockQ4Panel;
    using Sum = VecScalar::Int;
    static constexpr int kRows = 1;

    static FT_INLINE int32_t start(const int8_t*) { return 0; }
    static int64_t peak(int64_t) { return 0; }
    static FT_INLINE VecScalar value(const Sum& dot) { return VecScalar::to_float(dot); }

    template <int R, int P>
    static FT_INLINE void block(const uint8_t* w, int64_t, const int8_t* q, Sum* dot) {
        for (int o = 0; o < kPanel; ++o) {
            int32_t sum = 0;
            for (int i = 0; i < kBlock / 2; ++i) {
                const int pair = w[(i / 4) * 64 + o * 4 + i % 4];
                sum += ((pair & 15) - 8) * q[i] + ((pair >> 4) - 8) * q[i + 16];
            }
            dot[0].lane[o] = static_cast<uint32_t>(sum);
        }
    }
};

}  // namespace foretoken
