// linear, formats f32 and bf16 (W: float, or the bits as uint16_t, widened exactly): per output one chain over k in
// order, acc = fma(x, w, acc) from 0. Lanes are outputs.
#pragma once

#include "base/inline.h"
#include "formats/q8.h"
#include "kernels/table.h"

namespace foretoken {

static FT_INLINE float* outputs(const LinearArgs& a, int64_t row, int64_t panel) {
    return a.out + row * a.out_stride + (panel * kPanel - a.first_output);
}

// Early, for writing: a store that waits for its line holds up all stores behind it, spilled sums too.
static FT_INLINE void prefetch_outputs(const LinearArgs& a, int64_t row, int64_t panel) {
    FT_PREFETCH_WRITE(outputs(a, row, panel));
}

template <class V>
FT_INLINE void store_outputs(V v, const LinearArgs& a, int64_t row, int64_t panel) {
    const int64_t first = panel * kPanel;
    float* out = outputs(a, row, panel);
    if (first >= a.first_output && first + kPanel <= a.last_output) {
        v.store(out);
        return;
    }
    float lane[kPanel];
    v.store(lane);
    for (int i = 0; i < kPanel; ++i) {
        if (first + i >= a.first_output && first + i < a.last_output) out[i] = lane[i];
    }
}

template <class V>
FT_INLINE V load_weights(const float* p) {
    return V::load(p);
}

template <class V>
FT_INLINE V load_weights(const uint16_t* p) {
    return V::load_bf16(p);
}

// R rows times P panels: R * P chains in flight hide the latency of the multiply-add.
template <class V, class W, int R, int P>
void linear_floats_tile(const LinearArgs& a, int64_t row, int64_t panel) {
    constexpr int64_t kAhead = 128 / sizeof(W);
    const int64_t panel_len = a.k * kPanel;
    const W* w = reinterpret_cast<const W*>(a.weight) + panel * panel_len;
    const float* x = a.x + row * a.x_stride;
    V acc[R][P];
    for (int r = 0; r < R; ++r) {
        for (int p = 0; p < P; ++p) acc[r][p] = V::zero();
    }
    for (int64_t k = 0; k < a.k; ++k) {
        V weight[P];
        for (int p = 0; p < P; ++p) {
            FT_PREFETCH(w + p * panel_len + (k + kAhead) * kPanel);
            weight[p] = load_weights<V>(w + p * panel_len + k * kPanel);
        }
        for (int r = 0; r < R; ++r) {
            const V input = V::set1(x[r * a.x_stride + k]);
            for (int p = 0; p < P; ++p) acc[r][p] = V::fma(input, weight[p], acc[r][p]);
        }
    }
    for (int r = 0; r < R; ++r) {
        for (int p = 0; p < P; ++p) store_outputs(acc[r][p], a, row + r, panel + p);
    }
}

template <class V, class W, int R, int P>
void linear_floats_panels(const LinearArgs& a, int64_t row, int64_t panel, int64_t last_panel) {
    for (; panel + P <= last_panel; panel += P) linear_floats_tile<V, W, R, P>(a, row, panel);
    for (; panel < last_panel; ++panel) linear_floats_tile<V, W, R, 1>(a, row, panel);
}

// Up to six rows go over a panel at once; more rows are cut into even groups that take turns on one panel, which
// then comes from the cache. Called with at most 18 rows, so that these stay there too.
template <class V, class W>
void linear_floats(const LinearArgs& a, int64_t rows, int64_t panel, int64_t last_panel) {
    using Tile = void (*)(const LinearArgs&, int64_t, int64_t, int64_t);
    // Weights that must be widened take registers of their own, so fewer panels fit.
    constexpr int two = sizeof(W) == 2 ? 2 : 3, three = sizeof(W) == 2 ? 1 : 2;
    static constexpr Tile wide[] = {nullptr,
                                    linear_floats_panels<V, W, 1, 4>,
                                    linear_floats_panels<V, W, 2, two>,
                                    linear_floats_panels<V, W, 3, three>,
                                    linear_floats_panels<V, W, 4, 1>,
                                    linear_floats_panels<V, W, 5, 1>,
                                    linear_floats_panels<V, W, 6, 1>};
    const int64_t groups = (rows + 5) / 6;
    if (groups == 1) {
        wide[rows](a, 0, panel, last_panel);
        return;
    }
    for (; panel < last_panel; ++panel) {
        for (int64_t g = 0; g < groups; ++g) {
            const int64_t from = rows * g / groups, to = rows * (g + 1) / groups;
            wide[to - from](a, from, panel, panel + 1);
        }
    }
}

}  // namespace foretoken
