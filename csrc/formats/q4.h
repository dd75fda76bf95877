// Format q4: 4-bit weights in blocks of 32 inputs with one f16 scale, 4.5 bits a weight: the values of GGUF's Q4_0.
// A weight is (code - 8) * scale, code 0 ... 15; the scale may be negative. docs/formats.md has the grid.
//
// Layout "rows", output n, block b (18 bytes, as in a GGUF file):  scale f16 | 16 bytes, byte j: w[j] + 16 * w[j + 16]
// Layout "panels", 16 outputs p*16 + o, block b (288 bytes), inputs b*32 + ...:
//     group g = 0..3:  o=0: 4 bytes | o=1: 4 bytes | ... | o=15      64 bytes; byte i of an output is its byte 4g + i
//     above then the 16 scales, f16, o = 0..15
// So the low halves of group g are inputs 4g ... 4g + 3 and the high halves 16 + 4g ...: one mask, and one shift and
// mask, make two operands in the order of q8's groups g and g + 4.
// Example: output 18, input 37 is panel 1, block 1, o = 2, input 5 of the block, g = 1, i = 1: the low half of byte
// 1*64 + 2*4 + 1 of that block; input 53 is its high half.
// Missing outputs and inputs are code 8; scale of a missing output is 0.
#pragma once

#include <cstdint>

#include "formats/q8.h"

namespace foretoken {

struct BlockQ4Row {
    uint16_t scale;
    uint8_t w[kBlock / 2];
};
static_assert(sizeof(BlockQ4Row) == 18, "layout rows");

struct BlockQ4Panel {
    uint8_t w[kBlock / 8][kPanel][4];
    uint16_t scale[kPanel];
};
static_assert(sizeof(BlockQ4Panel) == 288, "layout panels");

}  // namespace foretoken
