// linear, format q8: activations quantised per row and block of 32; per output, blocks in order,
// acc = fma(float(t) * d, weight scale, acc) with t the exact integer dot of the block.
//
// Dot<V> is the only part written per instruction set (dot_*.h):
//     Dot<V>::kRows                                  most rows it takes at once
//     Dot<V>::block<R>(w, q, q_stride, sum, sum_stride, t)
//         w: 512 weight bytes of a panel block; q, sum: row r at + r * stride; t[r] = float of the 16 dots
#pragma once

#include "base/half.h"
#include "base/inline.h"
#include "base/math.h"
#include "formats/q8.h"
#include "kernels/linear_f32.h"
#include "kernels/table.h"

namespace foretoken {

template <class V>
struct Dot;

// x: k floats -> q: ceil(k / 32) * 32, scale and sum: ceil(k / 32). A block that is not finite makes NaN outputs.
template <class V>
void quantize_row(const float* x, int64_t k, int8_t* q, float* scale, int32_t* sum) {
    const V infinity = V::from_bits(V::int_set1(0x7f800000u));
    for (int64_t at = 0; at < k; at += kBlock, x += kBlock, q += kBlock, ++scale, ++sum) {
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
        V::max(V::min(a * inverse, top), bottom).store_i8(q);
        V::max(V::min(b * inverse, top), bottom).store_i8(q + 16);
        int32_t total = 0;
        for (int i = 0; i < kBlock; ++i) total += q[i];
        *sum = total;
    }
}

constexpr int kBlockLines = (sizeof(BlockQ8Panel) + 63) / 64;
constexpr int kAhead = 6 * sizeof(BlockQ8Panel);

// R rows times P panels. Several panels give a single row several streams from memory at once; one panel is read once
// and then serves all rows of the call from the cache.
template <class V, int R, int P>
void linear_q8_tile(const LinearArgs& a, int64_t row, int64_t panel) {
    const int64_t blocks = (a.k + kBlock - 1) / kBlock;
    const int64_t panel_len = blocks * static_cast<int64_t>(sizeof(BlockQ8Panel));
    const uint8_t* w = a.weight + panel * panel_len;
    const int8_t* q = a.activations.q + row * blocks * kBlock;
    const float* scale = a.activations.scale + row * blocks;
    const int32_t* sum = a.activations.sum + row * blocks;
    V acc[P][R];
    for (int p = 0; p < P; ++p) {
        for (int r = 0; r < R; ++r) acc[p][r] = V::zero();
    }
    for (int64_t b = 0; b < blocks; ++b, w += sizeof(BlockQ8Panel), q += kBlock, ++scale, ++sum) {
        for (int p = 0; p < P; ++p) {
            const uint8_t* block = w + p * panel_len;
            // Hardware prefetchers stop at page ends; a prefetch past the end of the weights does nothing.
            for (int line = 0; line < kBlockLines; ++line) FT_PREFETCH(block + kAhead + line * 64);
            V t[R];
            Dot<V>::template block<R>(block, q, blocks * kBlock, sum, blocks, t);
            const V weight_scale = V::load_f16(reinterpret_cast<const uint16_t*>(block + kBlock * kPanel));
            for (int r = 0; r < R; ++r) acc[p][r] = V::fma(t[r] * V::set1(scale[r * blocks]), weight_scale, acc[p][r]);
        }
    }
    for (int p = 0; p < P; ++p) {
        for (int r = 0; r < R; ++r) store_outputs(acc[p][r], a, row + r, panel + p);
    }
}

// Calls tile<rows> for rows = 1 ... R.
template <class V, int R>
FT_INLINE void linear_q8_rows(const LinearArgs& a, int64_t row, int64_t rows, int64_t panel) {
    if (rows == R) {
        linear_q8_tile<V, R, 1>(a, row, panel);
    } else if constexpr (R > 1) {
        linear_q8_rows<V, R - 1>(a, row, rows, panel);
    }
}

template <class V>
void linear_q8(const LinearArgs& a, int64_t row, int64_t rows, int64_t panel, int64_t last_panel) {
    constexpr int kRows = Dot<V>::kRows;
    if (rows == 1) {
        for (; panel + 4 <= last_panel; panel += 4) linear_q8_tile<V, 1, 4>(a, row, panel);
    }
    if constexpr (kRows >= 2) {
        if (rows == 2) {
            for (; panel + 2 <= last_panel; panel += 2) linear_q8_tile<V, 2, 2>(a, row, panel);
        }
    }
    const int64_t groups = (rows + kRows - 1) / kRows;
    for (; panel < last_panel; ++panel) {
        for (int64_t g = 0; g < groups; ++g) {
            const int64_t from = rows * g / groups, to = rows * (g + 1) / groups;
            linear_q8_rows<V, kRows>(a, row + from, to - from, panel);
        }
    }
}

}  // namespace foretoken
