// Routing probabilities and the sum over a token's experts: one row a call.
#pragma once

#include "base/math.h"
#include "kernels/elementwise.h"

namespace foretoken {

// out = softmax of n scores, the largest of them given: exponentials by virtual lane (index mod 16), lanes folded.
template <class V>
void softmax_row(const float* x, int64_t n, float largest, float* out) {
    V sum = V::zero();
    each_vector(n, [&](int64_t at, int64_t len) {
        store_some(exp(load_some<V>(x + at, len) - V::set1(largest)), out + at, len);
        sum = sum + load_some<V>(out + at, len);  // lanes past the end are 0
    });
    const V total = V::set1(V::fold_add(sum));
    each_vector(n, [&](int64_t at, int64_t len) { store_some(load_some<V>(out + at, len) / total, out + at, len); });
}

// out, in place = fma(weight, x, out)
template <class V>
void add_weighted(const float* x, float weight, int64_t n, float* out) {
    each_vector(n, [&](int64_t at, int64_t len) {
        store_some(V::fma(V::set1(weight), load_some<V>(x + at, len), load_some<V>(out + at, len)), out + at, len);
    });
}

}  // namespace foretoken
