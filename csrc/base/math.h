// exp, log, log1p and tanh over a vector class: the same float operations on every instruction set.
//
// Errors against the true value, measured in tests/kernels/test_math.py: at most 2 units in the last place. exp keeps
// denormal results (the last multiplication rounds once) and is 0 below -104; log takes denormals. NaN goes through.
// source: polynomials of S. L. Moshier's Cephes library (expf, logf, tanhf), re-associated for fused multiply-add.
#pragma once

#include "base/inline.h"

namespace foretoken {

template <class V>
FT_INLINE V negate(V x) {
    return V::from_bits(V::add(V::bits(x), V::int_set1(0x80000000u)));
}

template <class V>
FT_INLINE V absolute(V x) {
    return V::from_bits(V::bit_and(V::bits(x), V::int_set1(0x7fffffffu)));
}

// exp(x) = part * 2^whole, part in [0.7, 1.42], for x whose power of two fits 23 bits.
template <class V>
struct ExpParts {
    V part;
    typename V::Int whole;
};

template <class V>
FT_INLINE ExpParts<V> exp_parts(V x) {
    // n = round(x / ln 2), found in the low bits of a sum with 1.5 * 2^23; x = n ln 2 + r, |r| <= 0.35.
    const V shifted = V::fma(x, V::set1(1.44269504088896341f), V::set1(12582912.0f));
    const V n = shifted - V::set1(12582912.0f);
    V r = V::fma(n, V::set1(-0.693359375f), x);
    r = V::fma(n, V::set1(2.12194440e-4f), r);
    V p = V::set1(1.9875691500e-4f);
    p = V::fma(p, r, V::set1(1.3981999507e-3f));
    p = V::fma(p, r, V::set1(8.3334519073e-3f));
    p = V::fma(p, r, V::set1(4.1665795894e-2f));
    p = V::fma(p, r, V::set1(1.6666665459e-1f));
    p = V::fma(p, r, V::set1(5.0000001201e-1f));
    return {V::fma(p, r * r, r) + V::set1(1.0f), V::sub(V::bits(shifted), V::int_set1(0x4b400000u))};
}

// 2^n, n in [-126, 127]
template <class V>
FT_INLINE V power_of_two(typename V::Int n) {
    return V::from_bits(V::add(V::template shift_left<23>(n), V::int_set1(0x3f800000u)));
}

template <class V>
FT_INLINE V exp(V x) {
    // The order of arguments keeps a NaN. 2^n is a product of two normal numbers, n in [-150, 128].
    const auto [part, whole] = exp_parts(V::min(V::set1(89.0f), V::max(V::set1(-104.0f), x)));
    const auto half = V::template shift_right<1>(whole);
    return (part * power_of_two<V>(half)) * power_of_two<V>(V::sub(whole, half));
}

template <class V>
FT_INLINE V log(V x) {
    const V smallest = V::set1(0x1p-126f), infinity = V::from_bits(V::int_set1(0x7f800000u));
    const auto is_denormal = V::less(x, smallest);
    const V scaled = V::select(is_denormal, x * V::set1(0x1p23f), x);
    // scaled = 2^e * m with m in [sqrt(1/2), sqrt(2))
    const auto offset = V::sub(V::bits(scaled), V::int_set1(0x3f3504f3u));
    V e = V::to_float(V::template shift_right<23>(offset));
    e = e - V::select(is_denormal, V::set1(23.0f), V::zero());
    const V m = V::from_bits(V::add(V::bit_and(offset, V::int_set1(0x007fffffu)), V::int_set1(0x3f3504f3u)));
    const V f = m - V::set1(1.0f);
    const V z = f * f;
    V p = V::set1(7.0376836292e-2f);
    p = V::fma(p, f, V::set1(-1.1514610310e-1f));
    p = V::fma(p, f, V::set1(1.1676998740e-1f));
    p = V::fma(p, f, V::set1(-1.2420140846e-1f));
    p = V::fma(p, f, V::set1(1.4249322787e-1f));
    p = V::fma(p, f, V::set1(-1.6668057665e-1f));
    p = V::fma(p, f, V::set1(2.0000714765e-1f));
    p = V::fma(p, f, V::set1(-2.4999993993e-1f));
    p = V::fma(p, f, V::set1(3.3333331174e-1f));
    V y = p * (f * z);
    y = V::fma(e, V::set1(-2.12194440e-4f), y);
    y = V::fma(z, V::set1(-0.5f), y);
    V result = V::fma(e, V::set1(0.693359375f), f + y);
    result = V::select(V::less(x, infinity), result, x);  // infinity and NaN
    result = V::select(V::less(x, V::zero()), V::from_bits(V::int_set1(0x7fc00000u)), result);
    return V::select(V::equal(x, V::zero()), V::from_bits(V::int_set1(0xff800000u)), result);
}

// log(1 + x) with full relative accuracy near 0: the rounding of w = 1 + x is put back to first order.
template <class V>
FT_INLINE V log1p(V x) {
    const V one = V::set1(1.0f), w = one + x;
    const V correction = (x - (w - one)) / w;
    const auto is_plain = V::less(V::zero(), w);
    const auto is_finite = V::less(w, V::from_bits(V::int_set1(0x7f800000u)));
    const V added = V::select(is_finite, V::select(is_plain, correction, V::zero()), V::zero());
    return log(w) + added;
}

// Beyond 0.625 by exp(2 |x|); from 20 on it is 1, so that exp needs no care for what a float holds.
template <class V>
FT_INLINE V tanh(V x) {
    const V size = absolute(x), one = V::set1(1.0f);
    const auto is_near = V::less(size, V::set1(0.625f));
    const V z = x * x;
    V p = V::set1(-5.70498872745e-3f);
    p = V::fma(p, z, V::set1(2.06390887954e-2f));
    p = V::fma(p, z, V::set1(-5.37397155531e-2f));
    p = V::fma(p, z, V::set1(1.33314422036e-1f));
    p = V::fma(p, z, V::set1(-3.33332819422e-1f));
    const V near = V::fma(p * z, x, x);
    if (V::all(is_near)) return near;
    const V small = V::min(V::set1(20.0f), size);
    const auto [part, whole] = exp_parts(small + small);
    const V far = one - V::set1(2.0f) / (V::fma(part, power_of_two<V>(whole), one));
    const auto sign = V::bit_and(V::bits(x), V::int_set1(0x80000000u));
    return V::select(is_near, near, V::from_bits(V::bit_or(V::bits(far), sign)));
}

}  // namespace foretoken
