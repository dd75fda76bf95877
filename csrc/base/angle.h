// Sine and cosine of a float32 angle, computed in double and rounded once; good to |angle| <= 2^20.
#pragma once

namespace foretoken {

// sin and cos are one float each. The same code serves every instruction set.
void sin_cos(float angle, float* sin, float* cos);

}  // namespace foretoken
