// Scans over a row of logits. numerics.md, "From logits to a token".
#pragma once

#include <string.h>

#include "base/inline.h"
#include "base/math.h"
#include "kernels/elementwise.h"
#include "kernels/table.h"

namespace foretoken {

template <class V>
bool all_finite(const float* x, int64_t n) {
    const V infinity = V::from_bits(V::int_set1(0x7f800000u));
    int64_t at = 0;
    for (; at + 16 <= n; at += 16) {
        if (!V::all(V::less(absolute(V::load(x + at)), infinity))) return false;
    }
    return at == n || V::all(V::less(absolute(V::load_n(x + at, static_cast<int>(n - at))), infinity));
}

// n >= 1. False if there is a NaN; else *value is the largest entry.
template <class V>
bool largest(const float* x, int64_t n, float* value) {
    V top[4];
    for (V& one : top) one = V::set1(x[0]);
    bool is_ok = true;  // only a NaN differs from itself
    int64_t at = 0;
    for (; at + 64 <= n; at += 64) {
        for (int i = 0; i < 4; ++i) {
            const V v = V::load(x + at + 16 * i);
            is_ok &= V::all(V::equal(v, v));
            top[i] = V::max(top[i], v);
        }
    }
    for (; at < n; ++at) {
        const V v = V::set1(x[at]);
        is_ok &= V::all(V::equal(v, v));
        top[0] = V::max(top[0], v);
    }
    *value = V::fold_max(V::max(V::max(top[0], top[1]), V::max(top[2], top[3])));
    return is_ok;
}

template <class V>
void scores(const float* x, int64_t n, float largest, float temperature, float* out) {
    each_vector(n, [&](int64_t at, int64_t len) {
        store_some((load_some<V>(x + at, len) - V::set1(largest)) / V::set1(temperature), out + at, len);
    });
}

// 32-bit words k -> k + 1/2, rounded once.
template <class V>
FT_INLINE V halfway(typename V::Int words) {
    const auto low_bits = V::int_set1(0xffff);
    const V high = V::to_float(V::bit_and(V::template shift_right<16>(words), low_bits));
    const V low = V::to_float(V::bit_and(words, low_bits)) + V::set1(0.5f);  // exact: 17 bits
    return V::fma(high, V::set1(65536.0f), low);
}

// 32-bit words k -> g = -log(-log1p(-u)), u = (k + 1/2) * 2^-32 rounded to float32 and at most 1 - 2^-24.
// Small u wins, and there float32 is fine: u = 2^-33 gives 22.87.
template <class V>
FT_INLINE V noise_of(typename V::Int words) {
    const V u = V::min(V::set1(0.99999994f), halfway<V>(words) * V::set1(0x1p-32f));
    return negate(log(negate(log1p(negate(u)))));
}

// At least the noise of a word k, given k + 1/2: g <= -log(u), and a float's bits, read as a number, are no more than
// its logarithm. The margin covers the rounding of g and of sums with it.
static FT_INLINE float most_noise(float k) {
    return 0.6931472f * (32.0f + 127.0f - static_cast<float>(bits_of(k)) * 0x1p-23f) + 0.001f;
}

template <class V>
void noise(const uint32_t* words, int64_t n, float* out) {
    each_vector(n, [&](int64_t at, int64_t len) {
        uint32_t some[16] = {};
        memcpy(some, words + at, static_cast<size_t>(len) * sizeof(uint32_t));
        store_some(noise_of<V>(V::load_int(some)), out + at, len);
    });
}

// Philox4x32-10 for 16 counters (position, first_quad + i, 0), a lane each: word j of them goes to words[j].
// source: J. K. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC11.
template <class V>
FT_INLINE void philox_words(const uint32_t* key, const uint32_t* position, uint32_t first_quad,
                            typename V::Int* words) {
    constexpr uint32_t lanes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    auto c0 = V::int_set1(position[0]), c1 = V::int_set1(position[1]);
    auto c2 = V::add(V::int_set1(first_quad), V::load_int(lanes)), c3 = V::int_set1(0);
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; ++round) {
        typename V::Int high_a, high_b;
        const auto low_a = V::mul_wide(c0, 0xD2511F53u, &high_a), low_b = V::mul_wide(c2, 0xCD9E8D57u, &high_b);
        c0 = V::bit_xor(V::bit_xor(high_b, c1), V::int_set1(k0));
        c1 = low_b;
        c2 = V::bit_xor(V::bit_xor(high_a, c3), V::int_set1(k1));
        c3 = low_a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    words[0] = c0;
    words[1] = c1;
    words[2] = c2;
    words[3] = c3;
}

// out[i] = score[i] + noise of token 4 * first_quad + i, i < 64; returns the largest. Where none of that noise reaches
// `least`, minus infinity and out as it was: two logarithms each take longer than the words.
template <class V>
float noisy_scores(const float* score, const uint32_t* key, const uint32_t* position, uint32_t first_quad, float least,
                   float* out) {
    typename V::Int words[4];
    philox_words<V>(key, position, first_quad, words);
    V smallest = halfway<V>(words[0]);
    for (int j = 1; j < 4; ++j) smallest = V::min(smallest, halfway<V>(words[j]));
    if (most_noise(-V::fold_max(negate(smallest))) < least) return float_of(0xff800000u);
    float g[4][16];
    for (int j = 0; j < 4; ++j) noise_of<V>(words[j]).store(g[j]);
    for (int i = 0; i < 16; ++i) {
        for (int j = 0; j < 4; ++j) out[4 * i + j] = score[4 * i + j] + g[j][i];
    }
    V top = V::load(out);
    for (int i = 16; i < 64; i += 16) top = V::max(top, V::load(out + i));
    return V::fold_max(top);
}

template <class V>
void exp_row(const float* x, int64_t n, float* out) {
    each_vector(n, [&](int64_t at, int64_t len) { store_some(exp(load_some<V>(x + at, len)), out + at, len); });
}

template <class V>
bool math(const char* name, const float* x, int64_t n, float* out) {
    using Function = V (*)(V);
    Function f = nullptr;
    if (!strcmp(name, "exp")) f = [](V v) { return exp(v); };
    if (!strcmp(name, "log")) f = [](V v) { return log(v); };
    if (!strcmp(name, "log1p")) f = [](V v) { return log1p(v); };
    if (!strcmp(name, "tanh")) f = [](V v) { return tanh(v); };
    if (!f) return false;
    each_vector(n, [&](int64_t at, int64_t len) { store_some(f(load_some<V>(x + at, len)), out + at, len); });
    return true;
}

}  // namespace foretoken
