// Intrinsics that SIMDe 0.7 lacks, those of AVX-512 as two AVX2 halves. For tests only (CMake option
// FORETOKEN_SIMDE_AVX512).
#pragma once

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#include <simde/x86/f16c.h>
#include <string.h>

namespace foretoken {

template <class Whole, class Half>
static inline Whole joined(Half low, Half high) {
    const Half halves[2] = {low, high};
    Whole whole;
    static_assert(sizeof whole == sizeof halves, "two halves");
    memcpy(&whole, halves, sizeof whole);
    return whole;
}

template <class Half, class Whole>
static inline Half half_of(Whole whole, int index) {
    Half half;
    memcpy(&half, reinterpret_cast<const char*>(&whole) + index * sizeof half, sizeof half);
    return half;
}

static inline __m512 emulated_cvtepi32_ps(__m512i a) {
    return joined<__m512>(_mm256_cvtepi32_ps(half_of<__m256i>(a, 0)), _mm256_cvtepi32_ps(half_of<__m256i>(a, 1)));
}

static inline __m512i emulated_cvtps_epi32(__m512 a) {
    return joined<__m512i>(_mm256_cvtps_epi32(half_of<__m256>(a, 0)), _mm256_cvtps_epi32(half_of<__m256>(a, 1)));
}

static inline __m512i emulated_cvtepi8_epi32(__m128i a) {
    return joined<__m512i>(_mm256_cvtepi8_epi32(a), _mm256_cvtepi8_epi32(_mm_unpackhi_epi64(a, a)));
}

static inline __m512i emulated_cvtepu16_epi32(__m256i a) {
    return joined<__m512i>(_mm256_cvtepu16_epi32(half_of<__m128i>(a, 0)),
                           _mm256_cvtepu16_epi32(half_of<__m128i>(a, 1)));
}

static inline __m128i emulated_cvtepi32_epi8(__m512i a) {
    int wide[16];
    signed char narrow[16];
    memcpy(wide, &a, sizeof a);
    for (int i = 0; i < 16; ++i) narrow[i] = static_cast<signed char>(wide[i]);
    __m128i result;
    memcpy(&result, narrow, sizeof result);
    return result;
}

template <int N>
static inline __m512i emulated_srai_epi32(__m512i a) {
    return joined<__m512i>(_mm256_srai_epi32(half_of<__m256i>(a, 0), N), _mm256_srai_epi32(half_of<__m256i>(a, 1), N));
}

// Masks name the first lanes only.
template <class Whole, class Lane>
static inline Whole emulated_maskz_loadu(unsigned mask, const void* p) {
    Lane lane[16] = {};
    memcpy(lane, p, sizeof(Lane) * static_cast<unsigned>(__builtin_popcount(mask)));
    Whole whole;
    static_assert(sizeof whole == sizeof lane, "sixteen lanes");
    memcpy(&whole, lane, sizeof whole);
    return whole;
}

static inline void emulated_mask_storeu_ps(void* p, unsigned mask, __m512 a) {
    memcpy(p, &a, sizeof(float) * static_cast<unsigned>(__builtin_popcount(mask)));
}

static inline __m512 emulated_cvtph_ps(__m256i a) {
    return joined<__m512>(_mm256_cvtph_ps(half_of<__m128i>(a, 0)), _mm256_cvtph_ps(half_of<__m128i>(a, 1)));
}

static inline __m256i emulated_cvtps_ph(__m512 a) {
    return joined<__m256i>(_mm256_cvtps_ph(half_of<__m256>(a, 0), _MM_FROUND_TO_NEAREST_INT),
                           _mm256_cvtps_ph(half_of<__m256>(a, 1), _MM_FROUND_TO_NEAREST_INT));
}

// The instruction is a > b ? a : b in every lane; emulations treat NaN and signed zero otherwise.
static inline __m512 emulated_max_ps(__m512 a, __m512 b) {
    return joined<__m512>(_mm256_max_ps(half_of<__m256>(a, 0), half_of<__m256>(b, 0)),
                          _mm256_max_ps(half_of<__m256>(a, 1), half_of<__m256>(b, 1)));
}

static inline __m512 emulated_min_ps(__m512 a, __m512 b) {
    return joined<__m512>(_mm256_min_ps(half_of<__m256>(a, 0), half_of<__m256>(b, 0)),
                          _mm256_min_ps(half_of<__m256>(a, 1), half_of<__m256>(b, 1)));
}

static inline __m256i emulated_dpbusd_256(__m256i sum, __m256i a, __m256i b) {
    int total[8];
    unsigned char unsigned_bytes[32];
    signed char signed_bytes[32];
    memcpy(total, &sum, sizeof sum);
    memcpy(unsigned_bytes, &a, sizeof a);
    memcpy(signed_bytes, &b, sizeof b);
    for (int i = 0; i < 32; ++i) total[i / 4] += unsigned_bytes[i] * signed_bytes[i];
    memcpy(&sum, total, sizeof sum);
    return sum;
}

}  // namespace foretoken

#undef _mm512_max_ps
#undef _mm512_min_ps
#define _mm512_cvtepi32_ps emulated_cvtepi32_ps
#define _mm512_cvtps_epi32 emulated_cvtps_epi32
#define _mm512_cvtepi8_epi32 emulated_cvtepi8_epi32
#define _mm512_cvtepu16_epi32 emulated_cvtepu16_epi32
#define _mm512_cvtepi32_epi8 emulated_cvtepi32_epi8
#define _mm512_srai_epi32(a, n) emulated_srai_epi32<n>(a)
#define _mm512_cvtph_ps emulated_cvtph_ps
#define _mm512_cvtps_ph(a, rounding) emulated_cvtps_ph(a)
#define _mm512_maskz_loadu_ps emulated_maskz_loadu<__m512, float>
#define _mm256_maskz_loadu_epi16 emulated_maskz_loadu<__m256i, short>
#define _mm512_mask_storeu_ps emulated_mask_storeu_ps
#define _mm512_extractf32x8_ps(a, i) half_of<__m256>(a, i)
#define _mm512_max_ps emulated_max_ps
#define _mm512_min_ps emulated_min_ps
#define _mm256_dpbusd_avx_epi32 emulated_dpbusd_256
