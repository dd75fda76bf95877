// Round to nearest even, denormals kept: numerics.md, "Environment". Restores what the caller had.
#pragma once

#include <cfenv>
#include <cstdint>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace foretoken {

class FloatEnvironment {
  public:
#if defined(__x86_64__) || defined(_M_X64)
    FloatEnvironment() : saved_(_mm_getcsr()) { _mm_setcsr(0x1f80); }  // all exceptions masked, RN, no FTZ, no DAZ
    ~FloatEnvironment() { _mm_setcsr(saved_); }
#elif defined(__aarch64__) && defined(__GNUC__)
    FloatEnvironment() {
        asm volatile("mrs %0, fpcr" : "=r"(saved_));
        asm volatile("msr fpcr, %0" : : "r"(uint64_t{0}));
    }
    ~FloatEnvironment() { asm volatile("msr fpcr, %0" : : "r"(saved_)); }
#else
    FloatEnvironment() {
        std::fegetenv(&saved_);
        std::fesetenv(FE_DFL_ENV);
    }
    ~FloatEnvironment() { std::fesetenv(&saved_); }
#endif
    FloatEnvironment(const FloatEnvironment&) = delete;
    FloatEnvironment& operator=(const FloatEnvironment&) = delete;

  private:
#if defined(__x86_64__) || defined(_M_X64)
    unsigned saved_;
#elif defined(__aarch64__) && defined(__GNUC__)
    uint64_t saved_ = 0;
#else
    std::fenv_t saved_;
#endif
};

}  // namespace foretoken
