// Norms, rotation, gates and embeddings: one row a call. Rows may be of any length; `out` never overlaps an input
// unless a function says "in place".
#pragma once

#include <math.h>

#include "base/bf16.h"
#include "base/half.h"
#include "base/inline.h"
#include "base/math.h"
#include "kernels/codes.h"
#include "kernels/table.h"

namespace foretoken {

// body(at, len) for every 16 elements of n; len is below 16 only at the end of the row.
template <class F>
FT_INLINE void each_vector(int64_t n, F body) {
    int64_t at = 0;
    for (; at + 16 <= n; at += 16) body(at, int64_t{16});
    if (at < n) body(at, n - at);
}

template <class V>
FT_INLINE V load_some(const float* p, int64_t len) {
    return len == 16 ? V::load(p) : V::load_n(p, static_cast<int>(len));
}

template <class V>
FT_INLINE void store_some(V v, float* p, int64_t len) {
    len == 16 ? v.store(p) : v.store_n(p, static_cast<int>(len));
}

// 1 / sqrt(mean((x * scale)^2) + eps): squares by virtual lane (index mod 16), lanes folded, then plain float steps.
template <class V>
FT_INLINE float inverse_rms(const float* x, float scale, float eps, int64_t d) {
    V sum = V::zero();
    each_vector(d, [&](int64_t at, int64_t len) {
        const V v = load_some<V>(x + at, len) * V::set1(scale);
        sum = V::fma(v, v, sum);
    });
    const float mean = V::fold_add(sum) / static_cast<float>(d);
    return 1.0f / sqrtf(mean + eps);
}

// One vector of (x * inv) * weight; weight may be null.
template <class V>
FT_INLINE V normed(const float* x, float inv, const float* weight, int64_t at, int64_t len) {
    const V v = load_some<V>(x + at, len) * V::set1(inv);
    return weight ? v * load_some<V>(weight + at, len) : v;
}

template <class V>
void rms_norm(const float* x, const float* weight, float eps, int64_t d, float* out) {
    const float inv = inverse_rms<V>(x, 1.0f, eps, d);
    each_vector(d, [&](int64_t at, int64_t len) { store_some(normed<V>(x, inv, weight, at, len), out + at, len); });
}

// residual, in place = (residual + norm) * scale
template <class V>
void norm_add(const float* x, const float* weight, float eps, float scale, int64_t d, float* residual) {
    const float inv = inverse_rms<V>(x, 1.0f, eps, d);
    each_vector(d, [&](int64_t at, int64_t len) {
        const V sum = load_some<V>(residual + at, len) + normed<V>(x, inv, weight, at, len);
        store_some(sum * V::set1(scale), residual + at, len);
    });
}

// gelu = (0.5 * x) * (1 + tanh(0.79788456 * fma(0.044715, (x * x) * x, x))), then * up
// `out` may be gate or up.
template <class V>
void gelu_mul(const float* gate, const float* up, int64_t n, float* out) {
    each_vector(n, [&](int64_t at, int64_t len) {
        const V x = load_some<V>(gate + at, len);
        const V inner = V::fma(V::set1(0.044715f), (x * x) * x, x);
        const V gelu = (V::set1(0.5f) * x) * (V::set1(1.0f) + tanh(V::set1(0.79788456f) * inner));
        store_some(gelu * load_some<V>(up + at, len), out + at, len);
    });
}

// in place: cap * tanh(x / cap)
template <class V>
void softcap(float* x, float cap, int64_t n) {
    each_vector(n, [&](int64_t at, int64_t len) {
        store_some(V::set1(cap) * tanh(load_some<V>(x + at, len) / V::set1(cap)), x + at, len);
    });
}

// One head, in place: norm, then pair i with i + head_len / 2 turned by angle i < pairs (cos, sin: pairs, or null).
template <class V>
void head_norm_rope(float* x, int head_len, const float* weight, float eps, const float* cos, const float* sin,
                    int pairs) {
    const float inv = inverse_rms<V>(x, 1.0f, eps, head_len);
    each_vector(head_len,
                [&](int64_t at, int64_t len) { store_some(normed<V>(x, inv, weight, at, len), x + at, len); });
    if (!cos) return;
    float* y = x + head_len / 2;
    each_vector(pairs, [&](int64_t i, int64_t n) {
        const V a = load_some<V>(x + i, n), b = load_some<V>(y + i, n);
        const V c = load_some<V>(cos + i, n), s = load_some<V>(sin + i, n);
        store_some(V::fma(a, c, negate(b * s)), x + i, n);
        store_some(V::fma(b, c, a * s), y + i, n);
    });
}

// out, in place (it holds the token's row) = ((norm(context * context_scale) * weight) + out) * 2^-1/2
template <class V>
void norm_mix(const float* context, const float* weight, float eps, float context_scale, int64_t d, float* out) {
    const float inv = inverse_rms<V>(context, context_scale, eps, d);
    each_vector(d, [&](int64_t at, int64_t len) {
        const V v = ((load_some<V>(context + at, len) * V::set1(context_scale)) * V::set1(inv)) *
                    load_some<V>(weight + at, len);
        store_some((v + load_some<V>(out + at, len)) * V::set1(0.70710678118654752f), out + at, len);
    });
}

static FT_INLINE float widened(float w) { return w; }
static FT_INLINE float widened(uint16_t w) { return bf16_to_float(w); }

// k weights (float, or bf16 as uint16_t), `step` of them apart -> weight * scale
template <class V, class W>
void embed_floats(const W* row, int64_t step, int64_t k, float scale, float* out) {
    const auto product = [&](int64_t at, int64_t len) {
        float some[16];
        for (int64_t i = 0; i < len; ++i) some[i] = widened(row[(at + i) * step]);
        store_some(load_some<V>(some, len) * V::set1(scale), out + at, len);
    };
    each_vector(k, product);
}

// 32 weights of one block -> (q * weight scale) * scale, `len` of them stored
template <class V>
FT_INLINE void embed_block(const int8_t* q, uint16_t half, float scale, int64_t len, float* out) {
    const V grid = V::set1(half_to_float(half)), factor = V::set1(scale);
    const V a = (V::load_i8(q) * grid) * factor, b = (V::load_i8(q + 16) * grid) * factor;
    store_some(a, out, len < 16 ? len : 16);
    if (len > 16) store_some(b, out + 16, len - 16);
}

template <class V, class Block>
FT_INLINE void embed_blocks(const uint8_t* at, int lane, int64_t k, float scale, float* out) {
    for (int64_t i = 0; i < k; i += kBlock, at += sizeof(Block)) {
        int8_t q[kBlock];
        uint16_t half;
        read_codes(*reinterpret_cast<const Block*>(at), lane, q, &half);
        embed_block<V>(q, half, scale, k - i < kBlock ? k - i : kBlock, out + i);
    }
}

template <class V, class Block>
void embed_row(const uint8_t* row, int64_t k, float scale, float* out) {
    embed_blocks<V, Block>(row, 0, k, scale, out);
}

template <class V, class Block>
void embed_panel(const uint8_t* panel, int lane, int64_t k, float scale, float* out) {
    embed_blocks<V, Block>(panel, lane, k, scale, out);
}

}  // namespace foretoken
