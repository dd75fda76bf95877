// Format q8: 8-bit weights in blocks of 32 inputs with one f16 scale, 8.5 bits a weight. docs/formats.md has the grid.
//
// Layout "rows", output n, block b (34 bytes):         scale f16 | w[0] ... w[31] int8
// Layout "panels", 16 outputs p*16 + o, block b (544 bytes), inputs b*32 + 4*g + i:
//     group g = 0..7:  o=0: w[4g] w[4g+1] w[4g+2] w[4g+3] | o=1: ... | o=15: ...     64 bytes, each w + 128 as uint8
//     then the 16 scales, f16, o = 0..15
// Example: output 18, input 37 is panel 1, block 1, o = 2, g = 1, i = 1: byte 1*64 + 2*4 + 1 of that block.
// The offset of 128 lets VNNI take weights as its unsigned operand; 128 * sum(x) is taken off again.
// Missing outputs and inputs are weight 0; scale of a missing output is 0.
#pragma once

#include <cstdint>

namespace foretoken {

constexpr int kBlock = 32;  // inputs under one scale
constexpr int kPanel = 16;  // outputs interleaved

struct BlockQ8Row {
    uint16_t scale;
    int8_t w[kBlock];
};
static_assert(sizeof(BlockQ8Row) == 34, "layout rows");

struct BlockQ8Panel {
    uint8_t w[kBlock / 4][kPanel][4];
    uint16_t scale[kPanel];
};
static_assert(sizeof(BlockQ8Panel) == 544, "layout panels");

}  // namespace foretoken
