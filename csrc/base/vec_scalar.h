// Sixteen float lanes as a plain array: the class that defines what every other vector class must compute.
//
// load_n/store_n touch n < 16 lanes, the rest read as 0. Comparisons are false for NaN. max(a, b) is a > b ? a : b and
// min(a, b) is a < b ? a : b, so with a NaN the second argument comes back. store_i8 rounds to nearest even and needs
// |x| <= 127. fold_* joins lanes i and i + 8, then 4, 2, 1.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/bf16.h"
#include "base/half.h"
#include "base/inline.h"

namespace foretoken {

struct VecScalar {
    float lane[16];

    static constexpr int kRegisters = 2;  // vector registers that hold one; no matter here

    struct Int {
        uint32_t lane[16];
    };
    struct Mask {
        uint32_t lane[16];  // 0 or 1
    };

    template <class F>
    static FT_INLINE VecScalar each(F f) {
        VecScalar v;
        for (int i = 0; i < 16; ++i) v.lane[i] = f(i);
        return v;
    }
    template <class F>
    static FT_INLINE Int each_int(F f) {
        Int v;
        for (int i = 0; i < 16; ++i) v.lane[i] = f(i);
        return v;
    }
    template <class F>
    static FT_INLINE Mask each_mask(F f) {
        Mask v;
        for (int i = 0; i < 16; ++i) v.lane[i] = f(i) ? 1 : 0;
        return v;
    }

    static FT_INLINE VecScalar set1(float x) {
        return each([&](int) { return x; });
    }
    static FT_INLINE VecScalar zero() { return set1(0.0f); }
    static FT_INLINE VecScalar load(const float* p) {
        return each([&](int i) { return p[i]; });
    }
    static FT_INLINE VecScalar load_n(const float* p, int n) {
        return each([&](int i) { return i < n ? p[i] : 0.0f; });
    }
    static FT_INLINE VecScalar load_f16(const uint16_t* p) {
        return each([&](int i) { return half_to_float(p[i]); });
    }
    static FT_INLINE VecScalar load_f16_n(const uint16_t* p, int n) {
        return each([&](int i) { return i < n ? half_to_float(p[i]) : 0.0f; });
    }
    static FT_INLINE VecScalar load_bf16(const uint16_t* p) {
        return each([&](int i) { return bf16_to_float(p[i]); });
    }
    static FT_INLINE VecScalar load_i8(const int8_t* p) {
        return each([&](int i) { return static_cast<float>(p[i]); });
    }
    FT_INLINE void store(float* p) const { memcpy(p, lane, 64); }
    FT_INLINE void store_n(float* p, int n) const {
        for (int i = 0; i < n; ++i) p[i] = lane[i];
    }
    FT_INLINE void store_f16(uint16_t* p) const {
        for (int i = 0; i < 16; ++i) p[i] = half_from_float(lane[i]);
    }
    FT_INLINE void store_i8(int8_t* p) const {
        for (int i = 0; i < 16; ++i) {
            // 1.5 * 2^23: adding it leaves the rounded integer in the low bits.
            p[i] = static_cast<int8_t>(bits_of(lane[i] + 12582912.0f) & 0xff);
        }
    }

    friend FT_INLINE VecScalar operator+(VecScalar a, VecScalar b) {
        return each([&](int i) { return a.lane[i] + b.lane[i]; });
    }
    friend FT_INLINE VecScalar operator-(VecScalar a, VecScalar b) {
        return each([&](int i) { return a.lane[i] - b.lane[i]; });
    }
    friend FT_INLINE VecScalar operator*(VecScalar a, VecScalar b) {
        return each([&](int i) { return a.lane[i] * b.lane[i]; });
    }
    friend FT_INLINE VecScalar operator/(VecScalar a, VecScalar b) {
        return each([&](int i) { return a.lane[i] / b.lane[i]; });
    }
    static FT_INLINE VecScalar fma(VecScalar a, VecScalar b, VecScalar c) {
        return each([&](int i) { return fmaf(a.lane[i], b.lane[i], c.lane[i]); });
    }
    static FT_INLINE VecScalar max(VecScalar a, VecScalar b) {
        return each([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
    }
    static FT_INLINE VecScalar min(VecScalar a, VecScalar b) {
        return each([&](int i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
    }

    static FT_INLINE Mask less(VecScalar a, VecScalar b) {
        return each_mask([&](int i) { return a.lane[i] < b.lane[i]; });
    }
    static FT_INLINE Mask equal(VecScalar a, VecScalar b) {
        return each_mask([&](int i) { return a.lane[i] == b.lane[i]; });
    }
    static FT_INLINE Mask range(int first, int last) {
        return each_mask([&](int i) { return first <= i && i < last; });
    }
    static FT_INLINE VecScalar select(Mask m, VecScalar yes, VecScalar no) {
        return each([&](int i) { return m.lane[i] ? yes.lane[i] : no.lane[i]; });
    }
    static FT_INLINE bool all(Mask m) {
        uint32_t r = 1;
        for (int i = 0; i < 16; ++i) r &= m.lane[i];
        return r != 0;
    }

    static FT_INLINE Int bits(VecScalar v) {
        return each_int([&](int i) { return bits_of(v.lane[i]); });
    }
    static FT_INLINE VecScalar from_bits(Int v) {
        return each([&](int i) { return float_of(v.lane[i]); });
    }
    static FT_INLINE Int int_set1(uint32_t x) {
        return each_int([&](int) { return x; });
    }
    static FT_INLINE Int load_int(const uint32_t* p) {
        return each_int([&](int i) { return p[i]; });
    }
    // 64-bit products: the low halves are returned, the high ones go to *high.
    static FT_INLINE Int mul_wide(Int a, uint32_t factor, Int* high) {
        const Int x = a;
        *high = each_int([&](int i) { return static_cast<uint32_t>(uint64_t{factor} * x.lane[i] >> 32); });
        return each_int([&](int i) { return factor * x.lane[i]; });
    }
    static FT_INLINE Int add(Int a, Int b) {
        return each_int([&](int i) { return a.lane[i] + b.lane[i]; });
    }
    static FT_INLINE Int sub(Int a, Int b) {
        return each_int([&](int i) { return a.lane[i] - b.lane[i]; });
    }
    static FT_INLINE Int bit_and(Int a, Int b) {
        return each_int([&](int i) { return a.lane[i] & b.lane[i]; });
    }
    static FT_INLINE Int bit_or(Int a, Int b) {
        return each_int([&](int i) { return a.lane[i] | b.lane[i]; });
    }
    static FT_INLINE Int bit_xor(Int a, Int b) {
        return each_int([&](int i) { return a.lane[i] ^ b.lane[i]; });
    }
    template <int N>
    static FT_INLINE Int shift_left(Int a) {
        return each_int([&](int i) { return a.lane[i] << N; });
    }
    template <int N>
    static FT_INLINE Int shift_right(Int a) {  // arithmetic
        return each_int([&](int i) { return static_cast<uint32_t>(static_cast<int32_t>(a.lane[i]) >> N); });
    }
    static FT_INLINE VecScalar to_float(Int a) {  // as signed integers
        return each([&](int i) { return static_cast<float>(static_cast<int32_t>(a.lane[i])); });
    }

    static FT_INLINE float fold_add(VecScalar v) {
        for (int step = 8; step; step /= 2) {
            for (int i = 0; i < step; ++i) v.lane[i] = v.lane[i] + v.lane[i + step];
        }
        return v.lane[0];
    }
    static FT_INLINE float fold_max(VecScalar v) {
        for (int step = 8; step; step /= 2) {
            for (int i = 0; i < step; ++i) v.lane[i] = v.lane[i] > v.lane[i + step] ? v.lane[i] : v.lane[i + step];
        }
        return v.lane[0];
    }
};

}  // namespace foretoken
