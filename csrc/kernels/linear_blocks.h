// linear, formats q8 and q4: activations quantised per row and block of 32; per output, blocks in order,
// acc = fma(float(t) * d, weight scale, acc) with t the exact integer dot of the block.
//
// DotQ8<V> and DotQ4<V> are the only part written per instruction set (dot_*.h):
//     Panel                                  the block of 16 outputs, which ends with its 16 scales
//     kRows                                  most rows it takes at once of one panel,
//     kPairRows                              and of two panels; 0 if it never does
//     kManyInputs                            from so many on, more rows than kPairRows take one panel
//     kStreamRows                            up to so many take one panel, where one stream reads fastest,
//     kStreamAhead                           and ask for the first cache so many bytes ahead; 0: for nothing
//     kHalves                                two groups of rows take turns in asking for weights
//     start(q)                               what the dots of 32 int8 activations begin with: see ActivationsQ8
//     kCodeBytes, keep(codes, q)             how the 32 are kept in their block; ByteActivations: as they are
//     codes_at(q, scratch)                   where its codes are written first
//     peak(rounds)                           does nothing but its multiply-adds, on registers, and returns how many;
//                                            0 where that can't be told
//     Sum                                    16 integer dots, as they are summed
//     block<R, P>(w, w_stride, q, dot)
//         w: a block of P panels, panel p at + p * w_stride; q: the blocks of R rows; dot[r * P + p] is a Sum
//     value(dot)                             its floats
#pragma once

#include "base/cpu.h"
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

// A block of activations, of so many bytes of codes, and what lies behind those.
template <class Dot>
constexpr int64_t kBlockBytes = Dot::kCodeBytes + 8;

template <class Dot>
static FT_INLINE float scale_in(const int8_t* block) {
    return *reinterpret_cast<const float*>(block + Dot::kCodeBytes);
}

template <class Dot>
static FT_INLINE int32_t start_in(const int8_t* block) {
    return *reinterpret_cast<const int32_t*>(block + Dot::kCodeBytes + 4);
}

struct OnePanel {
    static constexpr int kPairRows = 0, kStreamRows = 1;
    static constexpr int64_t kStreamAhead = 0;
    static constexpr bool kHalves = false;
};

struct ByteActivations : OnePanel {
    static constexpr int64_t kCodeBytes = kBlock;
    static FT_INLINE int8_t* codes_at(int8_t* q, int8_t*) { return q; }
    static FT_INLINE void keep(const int8_t*, int8_t*) {}
};

template <class V, class Dot>
void quantize_row(const float* x, int64_t k, const ActivationsQ8& to) {
    const V infinity = V::from_bits(V::int_set1(0x7f800000u));
    int8_t* q = to.data;
    for (int64_t at = 0; at < k; at += kBlock, x += kBlock, q += to.rows * kBlockBytes<Dot>) {
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
        const float scale = !is_finite ? float_of(0x7fc00000u) : is_zero ? 0.0f : amax / 127.0f;
        const V inverse = V::set1(is_finite && !is_zero ? 127.0f / amax : 0.0f);
        const V top = V::set1(127.0f), bottom = V::set1(-127.0f);
        // With an argument order in which NaN (only where !is_finite) becomes a bound.
        alignas(32) int8_t scratch[kBlock];
        int8_t* codes = Dot::codes_at(q, scratch);
        V::max(V::min(a * inverse, top), bottom).store_i8(codes);
        V::max(V::min(b * inverse, top), bottom).store_i8(codes + 16);
        const int32_t start = Dot::start(codes);
        memcpy(q + Dot::kCodeBytes, &scale, 4);
        memcpy(q + Dot::kCodeBytes + 4, &start, 4);
        Dot::keep(codes, q);
    }
}

// How far ahead weights are prefetched, all panels of a tile together: what is read while memory takes to answer.
constexpr int64_t kAheadBytes = 8000;

// The second cache takes them: the first has room for few reads in flight, and a loop that waits for one of them
// multiplies nothing.
template <int P, int64_t kBytes>
static FT_INLINE void prefetch_bytes(const uint8_t* w, int64_t stride) {
    for (int p = 0; p < P; ++p) {
        for (int64_t at = 0; at < kBytes; at += 64) FT_PREFETCH_FAR(w + p * stride + at);
    }
}

// The rows of a call take some panels in groups, one group after the other.
struct Group {
    int64_t index;
    bool is_half;    // of two, whose panels nobody takes besides
    bool is_stream;  // few rows, see kStreamAhead
};

// Asks for what is multiplied after block b of P panels, which is at w. Behind its panel a stream goes on at the panels
// after these. What lies past the weights does nothing. Two groups may ask for half as much at a time, and half a panel
// earlier: the second group's panels are in the cache already, so the first alone would ask for everything, and wait
// for memory.
template <int P, int64_t kBlockLen>
static FT_INLINE void prefetch_behind(const uint8_t* w, int64_t b, int64_t blocks, Group group) {
    constexpr int64_t ahead = kAheadBytes / (P * kBlockLen), half = kBlockLen / 2;
    const int64_t stride = blocks * kBlockLen;
    if (P > 1 && group.is_half) {
        const int64_t at = (blocks / 2 + ahead) * kBlockLen + (group.index * blocks + b) * half;
        const uint8_t* panels = w - b * kBlockLen;
        prefetch_bytes<P, half>(panels + at + (at >= stride ? (P - 1) * stride : 0), stride);
    } else {
        prefetch_bytes<P, kBlockLen>(w + ahead * kBlockLen + (b + ahead >= blocks ? (P - 1) * stride : 0), stride);
    }
}

// R rows times P panels, which come from the cache for the later rows of a call.
template <class V, class Dot, int R, int P>
void linear_blocks_tile(const LinearArgs& a, int64_t row, int64_t panel, Group group) {
    using Panel = typename Dot::Panel;
    constexpr int64_t block_len = sizeof(Panel), scale_at = block_len - kPanel * 2;
    const int64_t blocks = (a.k + kBlock - 1) / kBlock, w_stride = blocks * block_len;
    const uint8_t* w = a.weight + panel * w_stride;
    const int64_t q_step = a.activations.rows * kBlockBytes<Dot>;
    const int8_t* q = a.activations.data + row * kBlockBytes<Dot>;
    V acc[R * P];
    for (int i = 0; i < R * P; ++i) acc[i] = V::zero();
    for (int64_t b = 0; b < blocks; ++b, w += block_len, q += q_step) {
        if (R > Dot::kStreamRows || !group.is_stream) {
            prefetch_behind<P, block_len>(w, b, blocks, group);
        } else if (Dot::kStreamAhead > 0) {
            for (int64_t at = 0; at < block_len; at += 64) FT_PREFETCH(w + Dot::kStreamAhead + at);
        }
        typename Dot::Sum dot[R * P];
        Dot::template block<R, P>(w, w_stride, q, dot);
        V weight_scale[P];
        for (int p = 0; p < P; ++p) {
            weight_scale[p] = V::load_f16(reinterpret_cast<const uint16_t*>(w + p * w_stride + scale_at));
        }
        FT_UNROLL(18) for (int r = 0; r < R; ++r) {
            const V own = V::set1(scale_in<Dot>(q + r * kBlockBytes<Dot>));
            for (int p = 0; p < P; ++p) {
                V& sum = acc[r * P + p];
                sum = V::fma(Dot::value(dot[r * P + p]) * own, weight_scale[p], sum);
            }
        }
    }
    for (int r = 0; r < R; ++r) {
        for (int p = 0; p < P; ++p) store_outputs(acc[r * P + p], a, row + r, panel + p);
    }
}

// Calls the tile of `rows` rows, rows = 1 ... R.
template <class V, class Dot, int R, int P>
FT_INLINE void linear_blocks_rows(const LinearArgs& a, int64_t row, int64_t rows, int64_t panel, Group group) {
    if (rows == R) {
        linear_blocks_tile<V, Dot, R, P>(a, row, panel, group);
    } else if constexpr (R > 1) {
        linear_blocks_rows<V, Dot, R - 1, P>(a, row, rows, panel, group);
    }
}

template <class V, class Dot, int R, int P>
FT_INLINE void linear_blocks_panels(const LinearArgs& a, int64_t rows, int64_t panel, bool is_stream) {
    const int64_t groups = (rows + R - 1) / R;
    for (int64_t g = 0; g < groups; ++g) {
        const int64_t from = rows * g / groups, to = rows * (g + 1) / groups;
        for (int64_t t = from; t < to; ++t) {
            for (int p = 0; p < P; ++p) prefetch_outputs(a, t, panel + p);
        }
        linear_blocks_rows<V, Dot, R, P>(a, from, to - from, panel,
                                         {g, Dot::kHalves && groups == 2 && a.is_whole, is_stream});
    }
}

// Rows share what they read of two panels, activations too. Few rows wait for memory, of which two streams are slower
// than one on some processors, and faster on others. Where one is, the core sees by itself where it leads: it is
// fastest when nobody asks ahead (Zen 4), or for little more than a kilobyte (Zen 3). Two panels of many inputs, and
// what is asked for ahead, do not fit the second cache beside the activations of many rows: there a tile takes all rows
// at once, and one panel, which passes by once.
template <class V, class Dot>
void linear_blocks(const LinearArgs& a, int64_t rows, int64_t panel, int64_t last_panel) {
    const bool is_stream = rows <= Dot::kStreamRows && !reads_two_streams();
    if constexpr (Dot::kPairRows > 1) {
        const bool in_pairs = !is_stream && (rows <= Dot::kPairRows || a.k < Dot::kManyInputs);
        for (; in_pairs && panel + 2 <= last_panel; panel += 2) {
            linear_blocks_panels<V, Dot, Dot::kPairRows, 2>(a, rows, panel, false);
        }
    }
    for (; panel < last_panel; ++panel) linear_blocks_panels<V, Dot, Dot::kRows, 1>(a, rows, panel, is_stream);
}

template <class V, class ForQ8, class ForQ4>
constexpr BlockKernels block_kernels() {
    return {linear_blocks<V, ForQ8>,
            linear_blocks<V, ForQ4>,
            quantize_row<V, ForQ8>,
            quantize_row<V, ForQ4>,
            kBlockBytes<ForQ8>,
            kBlockBytes<ForQ4>,
            ForQ8::peak,
            ForQ4::peak};
}

}  // namespace foretoken
