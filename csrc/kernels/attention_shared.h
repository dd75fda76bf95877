// Attention over one chunk of keys for several rows, and the choice between that and attention.h. The same bits: every
// query's chains are those of attention.h, in the same order.
//
// A query is one query head of a row, as if it were a row of one head. Keys and values are widened to floats once for
// all queries, so much at a time that the nearest caches hold it: widening takes as many instructions as multiplying by
// two queries. That is worth its stores where the same units do both (base/cpu.h, `widens_at_a_cost`).
#pragma once

#include "kernels/attention.h"

namespace foretoken {

constexpr int kWideSlabs = 2;    // vectors that are widened together: of values, by all keys of the chunk,
constexpr int kWideDepth = 128;  // or of keys, for so many numbers of the head width
constexpr int kWideOutputs = kWideSlabs * kSlab;
static_assert(kWideDepth <= kChunk, "keys have room where values have");
static_assert(kPageSlabs % kWideSlabs == 0, "slabs that are widened together lie in one page");

// Rows that a call may have. With 16 registers, two to a vector, too few chains go side by side to win by it.
template <class V>
constexpr int kSharingRows = V::kRegisters == 1 ? kAttentionRows : 1;

// Keys of S slabs of a page from number `at` of the head width on, n of them -> [n][S][16].
template <class V, int S>
FT_INLINE void widen_keys(const AttentionArgs& a, int slab, int at, int n, float* wide) {
    const int64_t slab_len = static_cast<int64_t>(a.head_len) * kSlab;
    const uint16_t* keys = a.keys[slab / kPageSlabs] + (slab % kPageSlabs) * slab_len + at * kSlab;
    for (int d = 0; d < n; ++d) {
        for (int s = 0; s < S; ++s) V::load_f16(keys + s * slab_len + d * kSlab).store(wide + (d * S + s) * kSlab);
    }
}

// Asks for what is coming, as much as numbers [from, to) of S slabs are.
template <int S>
static FT_INLINE void ask_for(const AttentionArgs& a, Coming coming, int slab, int from, int to) {
    const int64_t offset = static_cast<int64_t>(slab % kPageSlabs) * a.head_len * kSlab;
    for (int d = from; d < to; ++d) {
        FT_PREFETCH_FAR(coming.keys + offset + d * kSlab * S);
        FT_PREFETCH_FAR(coming.values + offset + d * kSlab * S);
    }
}

// Goes on with the scores of H queries against S slabs by n numbers of the head width; masked when they are whole.
template <class V, int H, int S>
FT_INLINE void score_wide(const AttentionRow* query, const float* wide, int slab, int at, int n, bool is_last,
                          float* scores) {
    V acc[H][S];
    const float* q[H];
    for (int h = 0; h < H; ++h) {
        q[h] = query[h].q + at;
        for (int s = 0; s < S; ++s) acc[h][s] = at ? V::load(scores + h * kChunk + (slab + s) * kSlab) : V::zero();
    }
    for (int d = 0; d < n; ++d, wide += S * kSlab) {
        V key[S];
        for (int s = 0; s < S; ++s) key[s] = V::load(wide + s * kSlab);
        for (int h = 0; h < H; ++h) {
            const V x = V::set1(q[h][d]);
            for (int s = 0; s < S; ++s) acc[h][s] = V::fma(x, key[s], acc[h][s]);
        }
    }
    const V hidden = V::from_bits(V::int_set1(0xff800000u));
    for (int h = 0; h < H; ++h) {
        for (int s = 0; s < S; ++s) {
            const int start = (slab + s) * kSlab;
            const auto visible = V::range(query[h].first - start, query[h].last - start);
            (is_last ? V::select(visible, acc[h][s], hidden) : acc[h][s]).store(scores + h * kChunk + start);
        }
    }
}

// D vectors of the values of keys [first, last) from number `at` on, n numbers in the last one -> [key][D][16].
template <class V, int D>
FT_INLINE void widen_values(const AttentionArgs& a, int first, int last, int at, int n, float* wide) {
    for (int key = first; key < last; ++key) {
        if (!a.values[key / kPage]) continue;
        const uint16_t* row = a.values[key / kPage] + static_cast<int64_t>(key % kPage) * a.head_len + at;
        float* to = wide + static_cast<int64_t>(key - first) * D * kSlab;
        for (int d = 0; d < D; ++d) (n < 16 ? V::load_f16_n(row, n) : V::load_f16(row + d * 16)).store(to + d * kSlab);
    }
}

// Goes on with those D vectors of the outputs of H queries by keys [from, to), or begins with them. wide: as widened,
// from key `first` on.
template <class V, int H, int D>
FT_INLINE void weigh_keys(const AttentionRow* query, const float* wide, int first, int from, int to,
                          const float* weights, int at, int n, bool begins) {
    V acc[H][D];
    for (int h = 0; h < H; ++h) {
        for (int d = 0; d < D; ++d) {
            const float* old = query[h].part + at + d * 16;
            acc[h][d] = begins ? V::zero() : n < 16 ? V::load_n(old, n) : V::load(old);
        }
    }
    wide += static_cast<int64_t>(from - first) * D * kSlab;
    for (int key = from; key < to; ++key, wide += D * kSlab) {
        V value[D];
        for (int d = 0; d < D; ++d) value[d] = V::load(wide + d * kSlab);
        for (int h = 0; h < H; ++h) {
            const V weight = V::set1(weights[h * kChunk + key]);
            for (int d = 0; d < D; ++d) acc[h][d] = V::fma(weight, value[d], acc[h][d]);
        }
    }
    for (int h = 0; h < H; ++h) {
        for (int d = 0; d < D; ++d) {
            float* out = query[h].part + at + d * 16;
            n < 16 ? acc[h][d].store_n(out, n) : acc[h][d].store(out);
        }
    }
}

// The whole sums by all keys that the queries see. A key that only some of them see is left out by the others: what
// lies there may be anything.
template <class V, int H, int D>
FT_INLINE void weigh_wide(const AttentionRow* query, const float* wide, int first, const float* weights, int at,
                          int n) {
    int from = query[0].first, to = query[0].last, least = from, most = to;
    for (int h = 1; h < H; ++h) {
        from = larger(from, query[h].first), least = smaller(least, query[h].first);
        to = smaller(to, query[h].last), most = larger(most, query[h].last);
    }
    to = larger(from, to);
    const bool is_same = least == from && most == to;
    for (int h = 0; h < H && !is_same; ++h) {
        const int end = smaller(from, query[h].last);
        weigh_keys<V, 1, D>(query + h, wide, first, query[h].first, end, weights + h * kChunk, at, n, true);
    }
    weigh_keys<V, H, D>(query, wide, first, from, to, weights, at, n, is_same);
    for (int h = 0; h < H && !is_same; ++h) {
        weigh_keys<V, 1, D>(query + h, wide, first, to, query[h].last, weights + h * kChunk, at, n, false);
    }
}

// Calls one<H>(i) for groups of H queries. With two vectors of each, eight queries read ten times for 16 multiply-adds.
template <class One>
static FT_INLINE void in_queries(int count, const One& one) {
    int i = 0;
    for (; i + 8 <= count; i += 8) one.template operator()<8>(i);
    for (; i + 4 <= count; i += 4) one.template operator()<4>(i);
    for (; i + 2 <= count; i += 2) one.template operator()<2>(i);
    for (; i < count; ++i) one.template operator()<1>(i);
}

// All queries' scores against S slabs of one page.
template <class V, int S>
FT_INLINE void score_all(const AttentionArgs& a, const AttentionRow* query, int count, int slab, Coming coming,
                         float* wide, float* scores) {
    for (int at = 0; at < a.head_len; at += kWideDepth) {
        const int n = smaller(a.head_len - at, kWideDepth);
        widen_keys<V, S>(a, slab, at, n, wide);
        in_queries(count, [&]<int H>(int i) {
            ask_for<S>(a, coming, slab, at + n * i / count, at + n * (i + H) / count);
            score_wide<V, H, S>(query + i, wide, slab, at, n, at + n == a.head_len, scores + i * kChunk);
        });
    }
}

// D vectors of outputs from `at` on, n numbers in the last one, of all queries by keys of [first, last).
template <class V, int D>
FT_INLINE void weigh_all(const AttentionArgs& a, const AttentionRow* query, int count, int first, int last, int at,
                         int n, const float* weights, float* wide) {
    widen_values<V, D>(a, first, last, at, n, wide);
    in_queries(count, [&]<int H>(int i) { weigh_wide<V, H, D>(query + i, wide, first, weights + i * kChunk, at, n); });
}

// All heads of at least two rows.
template <class V>
void attention_rows(const AttentionArgs& a) {
    AttentionRow query[kAttentionQueries];
    int count = 0;
    for (int r = 0; r < a.rows; ++r) {
        const AttentionRow& row = a.row[r];
        for (int64_t h = 0; h < a.heads; ++h) {
            query[count++] = {row.q + h * a.head_len, row.part + h * (a.head_len + 2), row.first, row.last};
        }
    }
    alignas(64) float scores[kAttentionQueries * kChunk];
    alignas(64) float wide[kChunk * kWideOutputs];
    int first = query[0].first, last = query[0].last;
    for (int i = 1; i < count; ++i) {
        first = smaller(first, query[i].first);
        last = larger(last, query[i].last);
    }
    const int last_slab = (last + kSlab - 1) / kSlab, last_page = (last - 1) / kPage;
    for (int slab = first / kSlab; slab < last_slab;) {
        const int page = slab / kPageSlabs;
        if (!a.keys[page]) {  // between what two rows see
            slab = (page + 1) * kPageSlabs;
            continue;
        }
        const Coming coming{a.keys[page < last_page && a.keys[page + 1] ? page + 1 : page], a.values[page]};
        if (slab % kWideSlabs == 0 && slab + kWideSlabs <= last_slab) {
            score_all<V, kWideSlabs>(a, query, count, slab, coming, wide, scores);
            slab += kWideSlabs;
        } else {
            score_all<V, 1>(a, query, count, slab, coming, wide, scores);
            slab += 1;
        }
    }
    for (int i = 0; i < count; ++i) {
        const AttentionRow& own = query[i];
        float* result = own.part + a.head_len;
        soften<V>(scores + i * kChunk, own.first / kSlab, (own.last + kSlab - 1) / kSlab, result, result + 1);
    }
    int at = 0;
    for (; at + kWideOutputs <= a.head_len; at += kWideOutputs) {
        weigh_all<V, kWideSlabs>(a, query, count, first, last, at, 16, scores, wide);
    }
    for (; at < a.head_len; at += 16) {
        weigh_all<V, 1>(a, query, count, first, last, at, smaller(a.head_len - at, 16), scores, wide);
    }
}

template <class V>
void attention_chunk(const AttentionArgs& a) {
    if constexpr (kSharingRows<V> > 1) {
        if (a.rows > 1) return attention_rows<V>(a);
    }
    for (int r = 0; r < a.rows; ++r) {
        for (int head = 0; head < a.heads; head += kMostHeads) {
            attention_heads<V>(a, a.row[r], head, smaller(a.heads - head, kMostHeads));
        }
    }
}

}  // namespace foretoken
