// Sixteen float lanes as two AVX2 registers; meaning as in vec_scalar.h. Needs AVX2, FMA and F16C.
#pragma once

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "base/inline.h"

namespace foretoken {

struct VecAvx2 {
    __m256 lo, hi;

    static constexpr int kRegisters = 2;

    struct Int {
        __m256i lo, hi;
    };
    struct Mask {
        __m256 lo, hi;
    };

    static FT_INLINE VecAvx2 set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
    static FT_INLINE VecAvx2 zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
    static FT_INLINE VecAvx2 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
    static FT_INLINE VecAvx2 load_n(const float* p, int n) {
        alignas(32) float buffer[16] = {};
        memcpy(buffer, p, static_cast<size_t>(n) * sizeof(float));
        return load(buffer);
    }
    static FT_INLINE VecAvx2 load_f16(const uint16_t* p) {
        return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
                _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)))};
    }
    static FT_INLINE VecAvx2 load_f16_n(const uint16_t* p, int n) {
        alignas(32) uint16_t buffer[16] = {};
        memcpy(buffer, p, static_cast<size_t>(n) * sizeof(uint16_t));
        return load_f16(buffer);
    }
    static FT_INLINE VecAvx2 load_bf16(const uint16_t* p) {
        const __m256i low = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
        const __m256i high = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8)));
        return {_mm256_castsi256_ps(_mm256_slli_epi32(low, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(high, 16))};
    }
    static FT_INLINE VecAvx2 load_i8(const int8_t* p) {
        const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
        return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(b)),
                _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(b, b)))};
    }
    FT_INLINE void store(float* p) const {
        _mm256_storeu_ps(p, lo);
        _mm256_storeu_ps(p + 8, hi);
    }
    FT_INLINE void store_n(float* p, int n) const {
        alignas(32) float buffer[16];
        store(buffer);
        memcpy(p, buffer, static_cast<size_t>(n) * sizeof(float));
    }
    FT_INLINE void store_f16(uint16_t* p) const {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(lo, _MM_FROUND_TO_NEAREST_INT));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8), _mm256_cvtps_ph(hi, _MM_FROUND_TO_NEAREST_INT));
    }
    FT_INLINE void store_i8(int8_t* p) const {
        const __m256i a = _mm256_cvtps_epi32(lo), b = _mm256_cvtps_epi32(hi);
        const __m128i a16 = _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
        const __m128i b16 = _mm_packs_epi32(_mm256_castsi256_si128(b), _mm256_extracti128_si256(b, 1));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(a16, b16));
    }

    friend FT_INLINE VecAvx2 operator+(VecAvx2 a, VecAvx2 b) {
        return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
    }
    friend FT_INLINE VecAvx2 operator-(VecAvx2 a, VecAvx2 b) {
        return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
    }
    friend FT_INLINE VecAvx2 operator*(VecAvx2 a, VecAvx2 b) {
        return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
    }
    friend FT_INLINE VecAvx2 operator/(VecAvx2 a, VecAvx2 b) {
        return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
    }
    static FT_INLINE VecAvx2 fma(VecAvx2 a, VecAvx2 b, VecAvx2 c) {
        return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
    }
    static FT_INLINE VecAvx2 max(VecAvx2 a, VecAvx2 b) {
        return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
    }
    static FT_INLINE VecAvx2 min(VecAvx2 a, VecAvx2 b) {
        return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
    }

    static FT_INLINE Mask less(VecAvx2 a, VecAvx2 b) {
        return {_mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ)};
    }
    static FT_INLINE Mask equal(VecAvx2 a, VecAvx2 b) {
        return {_mm256_cmp_ps(a.lo, b.lo, _CMP_EQ_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_EQ_OQ)};
    }
    static FT_INLINE Mask range(int first, int last) {
        const __m256i low = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7),
                      high = _mm256_add_epi32(low, _mm256_set1_epi32(8));
        const __m256i from = _mm256_set1_epi32(first - 1), to = _mm256_set1_epi32(last);
        return {_mm256_castsi256_ps(_mm256_and_si256(_mm256_cmpgt_epi32(low, from), _mm256_cmpgt_epi32(to, low))),
                _mm256_castsi256_ps(_mm256_and_si256(_mm256_cmpgt_epi32(high, from), _mm256_cmpgt_epi32(to, high)))};
    }
    static FT_INLINE VecAvx2 select(Mask m, VecAvx2 yes, VecAvx2 no) {
        return {_mm256_blendv_ps(no.lo, yes.lo, m.lo), _mm256_blendv_ps(no.hi, yes.hi, m.hi)};
    }
    static FT_INLINE bool all(Mask m) { return _mm256_movemask_ps(_mm256_and_ps(m.lo, m.hi)) == 0xff; }

    static FT_INLINE Int bits(VecAvx2 v) { return {_mm256_castps_si256(v.lo), _mm256_castps_si256(v.hi)}; }
    static FT_INLINE VecAvx2 from_bits(Int v) { return {_mm256_castsi256_ps(v.lo), _mm256_castsi256_ps(v.hi)}; }
    static FT_INLINE Int int_set1(uint32_t x) {
        return {_mm256_set1_epi32(static_cast<int>(x)), _mm256_set1_epi32(static_cast<int>(x))};
    }
    static FT_INLINE Int load_int(const uint32_t* p) {
        return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
                _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 8))};
    }
    static FT_INLINE __m256i mul_wide_half(__m256i a, __m256i factor, __m256i* high) {
        const __m256i even = _mm256_mul_epu32(a, factor), odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), factor);
        *high = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
        return _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
    }
    static FT_INLINE Int mul_wide(Int a, uint32_t factor, Int* high) {
        const __m256i by = _mm256_set1_epi32(static_cast<int>(factor));
        Int low;
        low.lo = mul_wide_half(a.lo, by, &high->lo);
        low.hi = mul_wide_half(a.hi, by, &high->hi);
        return low;
    }
    static FT_INLINE Int add(Int a, Int b) { return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)}; }
    static FT_INLINE Int sub(Int a, Int b) { return {_mm256_sub_epi32(a.lo, b.lo), _mm256_sub_epi32(a.hi, b.hi)}; }
    static FT_INLINE Int bit_and(Int a, Int b) { return {_mm256_and_si256(a.lo, b.lo), _mm256_and_si256(a.hi, b.hi)}; }
    static FT_INLINE Int bit_or(Int a, Int b) { return {_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)}; }
    static FT_INLINE Int bit_xor(Int a, Int b) { return {_mm256_xor_si256(a.lo, b.lo), _mm256_xor_si256(a.hi, b.hi)}; }
    template <int N>
    static FT_INLINE Int shift_left(Int a) {
        return {_mm256_slli_epi32(a.lo, N), _mm256_slli_epi32(a.hi, N)};
    }
    template <int N>
    static FT_INLINE Int shift_right(Int a) {
        return {_mm256_srai_epi32(a.lo, N), _mm256_srai_epi32(a.hi, N)};
    }
    static FT_INLINE VecAvx2 to_float(Int a) { return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }

    static FT_INLINE float fold_add(VecAvx2 v) {
        const __m256 eight = _mm256_add_ps(v.lo, v.hi);
        const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
        const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
    }
    static FT_INLINE float fold_max(VecAvx2 v) {
        const __m256 eight = _mm256_max_ps(v.lo, v.hi);
        const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
        const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
    }
};

}  // namespace foretoken
