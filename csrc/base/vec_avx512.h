// Sixteen float lanes as one AVX-512 register; meaning as in vec_scalar.h. Needs AVX-512 F, BW, VL and DQ.
// With FORETOKEN_SIMDE the intrinsics are emulated, so that these kernels can be tested on processors without them.
#pragma once

#ifdef FORETOKEN_SIMDE
#include "base/simde_gaps.h"
#else
#include <immintrin.h>
#endif
#include <stdint.h>
#include <string.h>

#include "base/inline.h"

namespace foretoken {

struct VecAvx512 {
    __m512 v;

    static constexpr int kRegisters = 1;

    struct Int {
        __m512i v;
    };
    struct Mask {
        __mmask16 m;
    };

    static FT_INLINE __mmask16 first_lanes(int n) { return static_cast<__mmask16>((1u << n) - 1); }

    static FT_INLINE VecAvx512 set1(float x) { return {_mm512_set1_ps(x)}; }
    static FT_INLINE VecAvx512 zero() { return {_mm512_setzero_ps()}; }
    static FT_INLINE VecAvx512 load(const float* p) { return {_mm512_loadu_ps(p)}; }
    static FT_INLINE VecAvx512 load_n(const float* p, int n) { return {_mm512_maskz_loadu_ps(first_lanes(n), p)}; }
    static FT_INLINE VecAvx512 load_f16(const uint16_t* p) {
        return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
    }
    static FT_INLINE VecAvx512 load_f16_n(const uint16_t* p, int n) {
        return {_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_lanes(n), p))};
    }
    static FT_INLINE VecAvx512 load_bf16(const uint16_t* p) {
        const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
        return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
    }
    static FT_INLINE VecAvx512 load_i8(const int8_t* p) {
        return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
    }
    FT_INLINE void store(float* p) const { _mm512_storeu_ps(p, v); }
    FT_INLINE void store_n(float* p, int n) const { _mm512_mask_storeu_ps(p, first_lanes(n), v); }
    FT_INLINE void store_f16(uint16_t* p) const {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
    }
    FT_INLINE void store_i8(int8_t* p) const {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v)));
    }

    friend FT_INLINE VecAvx512 operator+(VecAvx512 a, VecAvx512 b) { return {_mm512_add_ps(a.v, b.v)}; }
    friend FT_INLINE VecAvx512 operator-(VecAvx512 a, VecAvx512 b) { return {_mm512_sub_ps(a.v, b.v)}; }
    friend FT_INLINE VecAvx512 operator*(VecAvx512 a, VecAvx512 b) { return {_mm512_mul_ps(a.v, b.v)}; }
    friend FT_INLINE VecAvx512 operator/(VecAvx512 a, VecAvx512 b) { return {_mm512_div_ps(a.v, b.v)}; }
    static FT_INLINE VecAvx512 fma(VecAvx512 a, VecAvx512 b, VecAvx512 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
    static FT_INLINE VecAvx512 max(VecAvx512 a, VecAvx512 b) { return {_mm512_max_ps(a.v, b.v)}; }
    static FT_INLINE VecAvx512 min(VecAvx512 a, VecAvx512 b) { return {_mm512_min_ps(a.v, b.v)}; }

    static FT_INLINE Mask less(VecAvx512 a, VecAvx512 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
    static FT_INLINE Mask equal(VecAvx512 a, VecAvx512 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
    static FT_INLINE Mask range(int first, int last) {
        const int from = first < 0 ? 0 : first > 16 ? 16 : first, to = last < 0 ? 0 : last > 16 ? 16 : last;
        return {static_cast<__mmask16>(first_lanes(to) & ~first_lanes(from))};
    }
    static FT_INLINE VecAvx512 select(Mask m, VecAvx512 yes, VecAvx512 no) {
        return {_mm512_mask_blend_ps(m.m, no.v, yes.v)};
    }
    static FT_INLINE bool all(Mask m) { return m.m == 0xffff; }

    static FT_INLINE Int bits(VecAvx512 v) { return {_mm512_castps_si512(v.v)}; }
    static FT_INLINE VecAvx512 from_bits(Int v) { return {_mm512_castsi512_ps(v.v)}; }
    static FT_INLINE Int int_set1(uint32_t x) { return {_mm512_set1_epi32(static_cast<int>(x))}; }
    static FT_INLINE Int load_int(const uint32_t* p) { return {_mm512_loadu_si512(reinterpret_cast<const void*>(p))}; }
    static FT_INLINE Int mul_wide(Int a, uint32_t factor, Int* high) {
        const __m512i by = _mm512_set1_epi32(static_cast<int>(factor));
        const __m512i even = _mm512_mul_epu32(a.v, by), odd = _mm512_mul_epu32(_mm512_srli_epi64(a.v, 32), by);
        high->v = _mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 32), odd);
        return {_mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64(odd, 32))};
    }
    static FT_INLINE Int add(Int a, Int b) { return {_mm512_add_epi32(a.v, b.v)}; }
    static FT_INLINE Int sub(Int a, Int b) { return {_mm512_sub_epi32(a.v, b.v)}; }
    static FT_INLINE Int bit_and(Int a, Int b) { return {_mm512_and_si512(a.v, b.v)}; }
    static FT_INLINE Int bit_or(Int a, Int b) { return {_mm512_or_si512(a.v, b.v)}; }
    static FT_INLINE Int bit_xor(Int a, Int b) { return {_mm512_xor_si512(a.v, b.v)}; }
    template <int N>
    static FT_INLINE Int shift_left(Int a) {
        return {_mm512_slli_epi32(a.v, N)};
    }
    template <int N>
    static FT_INLINE Int shift_right(Int a) {
        return {_mm512_srai_epi32(a.v, N)};
    }
    static FT_INLINE VecAvx512 to_float(Int a) { return {_mm512_cvtepi32_ps(a.v)}; }

    static FT_INLINE __m256 lower(VecAvx512 v) { return _mm512_castps512_ps256(v.v); }
    static FT_INLINE __m256 upper(VecAvx512 v) { return _mm512_extractf32x8_ps(v.v, 1); }
    static FT_INLINE float fold_add(VecAvx512 v) {
        const __m256 eight = _mm256_add_ps(lower(v), upper(v));
        const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
        const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
    }
    static FT_INLINE float fold_max(VecAvx512 v) {
        const __m256 eight = _mm256_max_ps(lower(v), upper(v));
        const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
        const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
    }
};

}  // namespace foretoken
