// Reading one output's 32 whole numbers and scale out of a block. For embeddings and unpacking; products take blocks
// whole.
#pragma once

#include <string.h>

#include "formats/q4.h"
#include "formats/q8.h"

namespace foretoken {

// q: 32 whole numbers; the weights are q * scale. `lane` is the output within a panel, 0 in layout rows.
static inline void read_codes(const BlockQ8Row& block, int, int8_t* q, uint16_t* scale) {
    memcpy(q, block.w, kBlock);
    *scale = block.scale;
}

static inline void read_codes(const BlockQ8Panel& block, int lane, int8_t* q, uint16_t* scale) {
    for (int i = 0; i < kBlock; ++i) q[i] = static_cast<int8_t>(block.w[i / 4][lane][i % 4] ^ 0x80);
    *scale = block.scale[lane];
}

static inline void read_codes(const BlockQ4Row& block, int, int8_t* q, uint16_t* scale) {
    for (int i = 0; i < kBlock / 2; ++i) {
        q[i] = static_cast<int8_t>((block.w[i] & 15) - 8);
        q[i + 16] = static_cast<int8_t>((block.w[i] >> 4) - 8);
    }
    *scale = block.scale;
}

static inline void read_codes(const BlockQ4Panel& block, int lane, int8_t* q, uint16_t* scale) {
    for (int i = 0; i < kBlock / 2; ++i) {
        const uint8_t pair = block.w[i / 4][lane][i % 4];
        q[i] = static_cast<int8_t>((pair & 15) - 8);
        q[i + 16] = static_cast<int8_t>((pair >> 4) - 8);
    }
    *scale = block.scale[lane];
}

}  // namespace foretoken
