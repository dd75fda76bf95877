// Format bf16: weights as bfloat16, the upper 16 bits of a float32; float32 weights are rounded to nearest even.
//
// Layout "rows":   [N][K] bf16
// Layout "panels": [ceil(N/16)][K][16] bf16; output n, input k is element (n div 16 * K + k) * 16 + n mod 16
// Missing outputs are 0. Widened exactly when read: bits << 16.
#pragma once

#include <cstdint>

namespace foretoken {

using Bf16 = uint16_t;
static_assert(sizeof(Bf16) == 2, "16 bits a weight");

}  // namespace foretoken
