// Attention over one chunk of keys, and the merge of chunks. numerics.md, "attention", defines the order.
//
// Keys come transposed, [page][position / 16][head_len][16], so a vector lane is a key and a score is one chain over
// the head width. Values are [page][position][head_len]; lanes are outputs and the chain runs over the keys.
#pragma once

#include <string.h>

#include "base/inline.h"
#include "base/math.h"
#include "kernels/elementwise.h"
#include "kernels/table.h"

namespace foretoken {

constexpr int kChunk = 256;
constexpr int kPage = 64;
constexpr int kSlab = 16;  // keys per vector
constexpr int kPageSlabs = kPage / kSlab;
constexpr int kMostHeads = 16;  // that share a pass over a chunk

static FT_INLINE int smaller(int a, int b) { return a < b ? a : b; }
static FT_INLINE int larger(int a, int b) { return a > b ? a : b; }

// Pages that are read later: asked for while others are multiplied, as much of each as was multiplied. Asking for what
// is in the cache does nothing.
struct Coming {
    const uint16_t *keys, *values;
};

// Scores of H heads (from q) against S slabs of one page, masked where the row sees nothing; scores: H rows of 256.
template <class V, int H, int S>
FT_INLINE void score_slabs(const AttentionArgs& a, const AttentionRow& own, const float* q, int slab, Coming coming,
                           float* scores) {
    static_assert(kPageSlabs % S == 0, "all slabs lie in one page");
    const int64_t slab_len = static_cast<int64_t>(a.head_len) * kSlab;
    const int64_t offset = (slab % kPageSlabs) * slab_len;
    const uint16_t* keys = a.keys[slab / kPageSlabs] + offset;
    V acc[H][S];
    for (int h = 0; h < H; ++h) {
        for (int s = 0; s < S; ++s) acc[h][s] = V::zero();
    }
    for (int d = 0; d < a.head_len; ++d) {
        V key[S];
        for (int i = 0; i < S; i += 2) {
            FT_PREFETCH_FAR(coming.keys + offset + d * kSlab * S + i * kSlab);
            FT_PREFETCH_FAR(coming.values + offset + d * kSlab * S + i * kSlab);
        }
        for (int s = 0; s < S; ++s) key[s] = V::load_f16(keys + s * slab_len + d * kSlab);
        for (int h = 0; h < H; ++h) {
            const V query = V::set1(q[h * a.head_len + d]);
            for (int s = 0; s < S; ++s) acc[h][s] = V::fma(query, key[s], acc[h][s]);
        }
    }
    const V hidden = V::from_bits(V::int_set1(0xff800000u));
    for (int s = 0; s < S; ++s) {
        const int start = (slab + s) * kSlab;
        const auto visible = V::range(own.first - start, own.last - start);
        for (int h = 0; h < H; ++h) V::select(visible, acc[h][s], hidden).store(scores + h * kChunk + start);
    }
}

// One head's scores -> weights in place; returns the largest score and the sum of weights by absolute lane.
template <class V>
FT_INLINE void soften(float* scores, int first_slab, int last_slab, float* largest, float* sum) {
    V top = V::from_bits(V::int_set1(0xff800000u));
    for (int s = first_slab; s < last_slab; ++s) top = V::max(top, V::load(scores + s * kSlab));
    *largest = V::fold_max(top);
    const V offset = V::set1(*largest);
    V total = V::zero();
    for (int s = first_slab; s < last_slab; ++s) {
        const V p = exp(V::load(scores + s * kSlab) - offset);  // a masked lane is exp(-infinity) = 0
        p.store(scores + s * kSlab);
        total = total + p;
    }
    *sum = V::fold_add(total);
}

// The D * 16 outputs from `at` (n of them in the last vector) of H heads: the weighted values of all keys, ascending.
template <class V, int H, int D>
FT_INLINE void weigh_values(const AttentionArgs& a, const AttentionRow& own, const float* weights, int at, int n,
                            float* part) {
    const int64_t part_len = a.head_len + 2;
    V acc[H][D];
    for (int h = 0; h < H; ++h) {
        for (int d = 0; d < D; ++d) acc[h][d] = V::zero();
    }
    for (int key = own.first; key < own.last;) {
        const int end = smaller((key / kPage + 1) * kPage, own.last);
        const uint16_t* row = a.values[key / kPage] + static_cast<int64_t>(key % kPage) * a.head_len + at;
        for (; key < end; ++key, row += a.head_len) {
            V value[D];
            for (int d = 0; d < D; d += 2) FT_PREFETCH(row + kSlab * a.head_len + d * 16);  // harmless past the page
            for (int d = 0; d < D; ++d) value[d] = n < 16 ? V::load_f16_n(row, n) : V::load_f16(row + d * 16);
            for (int h = 0; h < H; ++h) {
                const V weight = V::set1(weights[h * kChunk + key]);
                for (int d = 0; d < D; ++d) acc[h][d] = V::fma(weight, value[d], acc[h][d]);
            }
        }
    }
    for (int h = 0; h < H; ++h) {
        for (int d = 0; d < D; ++d) {
            float* to = part + h * part_len + at + d * 16;
            n < 16 ? acc[h][d].store_n(to, n) : acc[h][d].store(to);
        }
    }
}

// Scores of H heads against slabs [first, last) of one page, S at a time where they begin at a multiple of it.
template <class V, int H, int S>
FT_INLINE void score_page(const AttentionArgs& a, const AttentionRow& own, const float* q, int first, int last,
                          Coming coming, float* scores) {
    for (int slab = first; slab < last;) {
        if (S > 1 && slab % S == 0 && slab + S <= last) {
            score_slabs<V, H, S>(a, own, q, slab, coming, scores);
            slab += S;
        } else {
            score_slabs<V, H, 1>(a, own, q, slab, coming, scores);
            slab += 1;
        }
    }
}

template <class V, int H, int D>
FT_INLINE void weigh_heads(const AttentionArgs& a, const AttentionRow& own, const float* weights, float* part) {
    int at = 0;
    for (; at + D * 16 <= a.head_len; at += D * 16) weigh_values<V, H, D>(a, own, weights, at, 16, part);
    for (; at + 16 <= a.head_len; at += 16) weigh_values<V, H, 1>(a, own, weights, at, 16, part);
    if (at < a.head_len) weigh_values<V, H, 1>(a, own, weights, at, a.head_len - at, part);
}

// Calls one<H, N>(head) for groups of H heads, N vectors of each at once: eight registers of chains or more in flight,
// as many as two multiply-adds a cycle need, and as few as leave room for what they share. Of 16 chains, four heads by
// four vectors have the fewest to read.
template <class V, class One>
FT_INLINE void in_groups(int heads, const One& one) {
    constexpr int n = 4 / V::kRegisters;
    int h = 0;
    if constexpr (V::kRegisters == 1) {  // AVX-512, which has 32 of them
        for (; h + 4 <= heads; h += 4) one.template operator()<4, n>(h);
    } else {
        for (; h + 6 <= heads; h += 6) one.template operator()<6, n / 2>(h);
        for (; h + 4 <= heads; h += 4) one.template operator()<4, n / 2>(h);
    }
    for (; h + 2 <= heads; h += 2) one.template operator()<2, n>(h);
    for (; h < heads; ++h) one.template operator()<1, 4>(h);
}

// At most kMostHeads heads. A page of keys stays in the nearest caches until all of them have read it.
template <class V>
void attention_heads(const AttentionArgs& a, const AttentionRow& own, int head, int heads) {
    float scores[kMostHeads * kChunk];
    const float* q = own.q + static_cast<int64_t>(head) * a.head_len;
    const int64_t part_len = a.head_len + 2;
    float* part = own.part + head * part_len;
    const int first_slab = own.first / kSlab, last_slab = (own.last + kSlab - 1) / kSlab;
    for (int slab = first_slab; slab < last_slab;) {
        const int end = smaller((slab / kPageSlabs + 1) * kPageSlabs, last_slab);
        const int page = slab / kPageSlabs;
        const Coming same{a.keys[page], a.keys[page]}, next{a.keys[end < last_slab ? page + 1 : page], a.values[page]};
        in_groups<V>(heads, [&]<int H, int N>(int h) {
            score_page<V, H, N>(a, own, q + static_cast<int64_t>(h) * a.head_len, slab, end, head + h > 0 ? same : next,
                                scores + h * kChunk);
        });
        slab = end;
    }
    for (int h = 0; h < heads; ++h) {
        float* result = part + h * part_len + a.head_len;
        soften<V>(scores + h * kChunk, first_slab, last_slab, result, result + 1);
    }
    in_groups<V>(heads,
                 [&]<int H, int N>(int h) { weigh_heads<V, H, N>(a, own, scores + h * kChunk, part + h * part_len); });
}

// parts: `count` >= 1 chunk results of one head in ascending order, part_stride floats apart; out: head_len floats.
template <class V>
void attention_merge(const float* parts, int64_t part_stride, int count, int head_len, float* out) {
    float largest = parts[head_len], sum = parts[head_len + 1];
    memcpy(out, parts, static_cast<size_t>(head_len) * sizeof(float));
    for (int c = 1; c < count; ++c) {
        const float* part = parts + c * part_stride;
        const float top = part[head_len] > largest ? part[head_len] : largest;
        float lane[16];
        exp(V::set1(largest - top)).store(lane);
        const float a = lane[0];
        exp(V::set1(part[head_len] - top)).store(lane);
        const float b = lane[0];
        V::fma(V::set1(sum), V::set1(a), V::set1(part[head_len + 1] * b)).store(lane);
        sum = lane[0];
        largest = top;
        each_vector(head_len, [&](int64_t at, int64_t len) {
            const V old = load_some<V>(out + at, len), more = load_some<V>(part + at, len) * V::set1(b);
            store_some(V::fma(old, V::set1(a), more), out + at, len);
        });
    }
    each_vector(head_len, [&](int64_t at, int64_t len) {
        store_some(load_some<V>(out + at, len) / V::set1(sum), out + at, len);
    });
}

// k and v of one row and KV head (head_len floats) -> slot 0..63 of the page's keys and values, rounded to f16.
template <class V>
void append_row(const float* k, const float* v, int head_len, int slot, uint16_t* keys, uint16_t* values) {
    uint16_t* column = keys + (slot / kSlab) * static_cast<int64_t>(head_len) * kSlab + slot % kSlab;
    uint16_t* row = values + static_cast<int64_t>(slot) * head_len;
    each_vector(head_len, [&](int64_t at, int64_t len) {
        uint16_t half[16];
        load_some<V>(k + at, len).store_f16(half);
        for (int64_t i = 0; i < len; ++i) column[(at + i) * kSlab] = half[i];
        load_some<V>(v + at, len).store_f16(half);
        memcpy(row + at, half, static_cast<size_t>(len) * sizeof(uint16_t));
    });
}

}  // namespace foretoken
