// linear, formats q8 and q4: activations quantised per row and block of 32; per output, blocks in order,
// acc = fma(float(t) * d, weight scale, acc) with t the exact integer dot of the block.
//
// DotQ8<V> and DotQ4<V> are the only part written per instruction set (dot_*.h):
//     Panel                                  the block of 16 outputs, which ends with its 16 scales
//     kRows                                  most rows it takes at once
//     kAhead                                 blocks to prefetch ahead: about 3.3 KB for either format
//     kFetchRows                             fewest rows for which it prefetches
//     start(q)                               of a block of 32 int8 activations: see ActivationsQ8
//     kBlockBytes, keep(codes, q)            how that block is kept; ByteActivations: as it is
//     peak(rounds)                           does nothing but its multiply-adds, on registers, and returns how many;
//                                            0 where that can't be told
//     block<R>(w, q, q_stride, start, start_stride, t)
//         w: a panel block; q in bytes, start: row r at + r * stride; t[r] = float of the 16 dots
#pragma once

#include "base/half.h"
#include "base/inline.h"
#include "base/math.h"
#include "formats/q4.h"
#include "formats/q8.h"
#include "kernels/linear_floats.h"
#include "kernels/table.h"

namespace foretoken {

template <class V>
struct DotQ8;
template <class V>
struct DotQ4;

// A dot t that begins here, the zero point times sum(x) below kFloatBits, ends as the bits of the float 1.5 * 2^23 + t,
// |t| < 2^20: one subtraction makes it float(t), exactly, and may run beside the multiplier, where a conversion may
// not.
constexpr int32_t kFloatBits = 0x4b400000;
constexpr float kFloatOffset = 12582912.0f;

struct ByteActivations {
    static constexpr int kFetchRows = 1;
    static constexpr int64_t kBlockBytes = kBlock;
    static FT_INLINE void keep(const int8_t* codes, int8_t* q) { memcpy(q, codes, kBlock); }
};

static inline int32_t sum_of(const int8_t* q) {
    int32_t sum = 0;
    for (int i = 0; i < kBlock; ++i) sum += q[i];
    return sum;
}

static inline int32_t float_start(const int8_t* q, int32_t zero_point) { return kFloatBits - zero_point * sum_of(q); }

template <class V, class Dot>
void quantize_row(const float* x, int64_t k, int8_t* q, float* scale, int32_t* start) {
    const V infinity = V::from_bits(V::int_set1(0x7f800000u));
    for (int64_t at = 0; at < k; at += kBlock, x += kBlock, q += Dot::kBlockBytes, ++scale, ++start) {
        const int64_t left = k - at;
        V a, b;
        if (left >= kBlock) {
            a = V::load(x);
            b = V::load(x + 16);
        } else {
            a = V::load_n(x, left < 16 ? static_cast<int>(left) : 16);
            b = left > 16 ? V::load_n(x + 16, static_cast<int>(left) - 16) : V::zero();
        }
        const V size_a = absolute(a), size_b = absolute(b);
        const bool is_finite = V::all(V::less(size_a, infinity)) && V::all(V::less(size_b, infinity));
        const float amax = V::fold_max(V::max(size_a, size_b));
        const bool is_zero = !(amax >= 0x1p-120f);
        *scale = !is_finite ? float_of(0x7fc00000u) : is_zero ? 0.0f : amax / 127.0f;
        const V inverse = V::set1(is_finite && !is_zero ? 127.0f / amax : 0.0f);
        const V top = V::set1(127.0f), bottom = V::set1(-127.0f);
        // With an argument order in which NaN (only where !is_finite) becomes a bound.
        alignas(32) int8_t codes[kBlock];
        V::max(V::min(a * inverse, top), bottom).store_i8(codes);
        V::max(V::min(b * inverse, top), bottom).store_i8(codes + 16);
        *start = Dot::start(codes);
        Dot::keep(codes, q);
    }
}

// R rows times one panel, which is read once and then serves all rows of the call from the cache.
template <class V, class Dot, int R>
void linear_blocks_tile(const LinearArgs& a, int64_t row, int64_t panel) {
    using Panel = typename Dot::Panel;
    constexpr int64_t block_len = sizeof(Panel), scale_at = block_len - kPanel * 2;
    constexpr int64_t lines = (block_len + 63) / 64, ahead = Dot::kAhead * block_len;
    const int64_t blocks = (a.k + kBlock - 1) / kBlock;
    const uint8_t* w = a.weight + panel * blocks * block_len;
    const int64_t q_stride = blocks * Dot::kBlockBytes;
    const int8_t* q = a.activations.q + row * q_stride;
    const float* scale = a.activations.scale + row * blocks;
    const int32_t* start = a.activations.start + row * blocks;
    V acc[R];
    for (int r = 0; r < R; ++r) acc[r] = V::zero();
    for (int64_t b = 0; b < blocks; ++b, w += block_len, q += Dot::kBlockBytes, ++scale, ++start) {
        // Hardware prefetchers stop at page ends; a prefetch past the end of the weights does nothing. Several panels
        // at once, each a stream of its own, were slower.
        if constexpr (R >= Dot::kFetchRows) {
            for (int64_t line = 0; line < lines; ++line) FT_PREFETCH(w + ahead + line * 64);
        }
        V t[R];
        Dot::template block<R>(w, q, q_stride, start, blocks, t);
        const V weight_scale = V::load_f16(reinterpret_cast<const uint16_t*>(w + scale_at));
        for (int r = 0; r < R; ++r) acc[r] = V::fma(t[r] * V::set1(scale[r * blocks]), weight_scale, acc[r]);
    }
    for (int r = 0; r < R; ++r) store_outputs(acc[r], a, row + r, panel);
}

// Calls the tile of `rows` rows, rows = 1 ... R.
template <class V, class Dot, int R>
FT_INLINE void linear_blocks_rows(const LinearArgs& a, int64_t row, int64_t rows, int64_t panel) {
    if (rows == R) {
        linear_blocks_tile<V, Dot, R>(a, row, panel);
    } else if constexpr (R > 1) {
        linear_blocks_rows<V, Dot, R - 1>(a, row, rows, panel);
    }
}

template <class V, class Dot>
void linear_blocks(const LinearArgs& a, int64_t row, int64_t rows, int64_t panel, int64_t last_panel) {
    constexpr int kRows = Dot::kRows;
    const int64_t groups = (rows + kRows - 1) / kRows;
    for (; panel < last_panel; ++panel) {
        for (int64_t g = 0; g < groups; ++g) {
            const int64_t from = rows * g / groups, to = rows * (g + 1) / groups;
            linear_blocks_rows<V, Dot, kRows>(a, row + from, to - from, panel);
        }
    }
}

template <class V, class ForQ8, class ForQ4>
constexpr BlockKernels block_kernels() {
    return {linear_blocks<V, ForQ8>,
            linear_blocks<V, ForQ4>,
            quantize_row<V, ForQ8>,
            quantize_row<V, ForQ4>,
            ForQ8::kBlockBytes,
            ForQ4::kBlockBytes,
            ForQ8::peak,
            ForQ4::peak};
}

}  // namespace foretoken
