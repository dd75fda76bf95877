// bfloat16, the upper half of a float32, by integer operations. Rounds to nearest even.
#pragma once

#include <stdint.h>

#include "base/half.h"

namespace foretoken {

static inline float bf16_to_float(uint16_t h) { return float_of(static_cast<uint32_t>(h) << 16); }

// x is finite; what rounds past the largest bfloat16 becomes infinite.
static inline uint16_t bf16_from_float(float x) {
    const uint32_t u = bits_of(x);
    return static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1)) >> 16);
}

}  // namespace foretoken
