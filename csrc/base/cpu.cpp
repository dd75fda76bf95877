#include "base/cpu.h"

#include <atomic>
#include <cstdint>

#if defined(__x86_64__) && defined(__GNUC__)
#include <cpuid.h>
#define FT_CPUID 1
#endif

namespace foretoken {

#ifdef FT_CPUID
namespace {

struct Features {
    uint32_t leaf1_ecx = 0, leaf7_ebx = 0, leaf7_ecx = 0, leaf7_1_eax = 0, saved_state = 0;
};

Features read_features() {
    Features f;
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return f;
    f.leaf1_ecx = c;
    if (c & bit_OSXSAVE) {
        uint32_t low, high;
        asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        f.saved_state = low;
    }
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        f.leaf7_ebx = b;
        f.leaf7_ecx = c;
        if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) f.leaf7_1_eax = a;
    }
    return f;
}

bool has(uint32_t value, uint32_t bits) { return (value & bits) == bits; }

bool made_by_intel() {
    uint32_t a, b, c, d;
    return __get_cpuid(0, &a, &b, &c, &d) && b == signature_INTEL_ebx && c == signature_INTEL_ecx &&
           d == signature_INTEL_edx;
}

}  // namespace

bool has_avx2() {
    const Features f = read_features();
    const uint32_t fma = 1u << 12, f16c = 1u << 29, avx2 = 1u << 5;
    return has(f.saved_state, 0x6) && has(f.leaf1_ecx, fma | f16c) && has(f.leaf7_ebx, avx2);
}

bool has_avxvnni() {
#ifdef FORETOKEN_SIMDE
    return has_avx2();  // emulated, for tests
#else
    return has_avx2() && has(read_features().leaf7_1_eax, 1u << 4);
#endif
}

bool has_avx512vnni() {
#ifdef FORETOKEN_SIMDE
    return has_avx2();  // emulated, for tests
#else
    const Features f = read_features();
    const uint32_t foundation = 1u << 16, dq = 1u << 17, bw = 1u << 30, vl = 1u << 31, vnni = 1u << 11;
    return has_avx2() && has(f.saved_state, 0xe6) && has(f.leaf7_ebx, foundation | dq | bw | vl) &&
           has(f.leaf7_ecx, vnni);
#endif
}
#else
static bool made_by_intel() { return false; }
bool has_avx2() { return false; }
bool has_avxvnni() { return false; }
bool has_avx512vnni() { return false; }
#endif

static std::atomic<bool>& intel() {
    static std::atomic<bool> is_one{made_by_intel()};
    return is_one;
}

bool is_intel() { return intel().load(std::memory_order_relaxed); }
void take_for_intel(bool is_one) { intel() = is_one; }
bool reads_two_streams() { return is_intel(); }
bool widens_at_a_cost() { return is_intel(); }

}  // namespace foretoken
