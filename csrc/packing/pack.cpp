// Float weights to packed formats and back. Runs once at load.
#include <cmath>
#include <cstring>

#include "base/bf16.h"
#include "base/half.h"
#include "base/pool.h"
#include "formats/q4.h"
#include "formats/q8.h"
#include "kernels/codes.h"
#include "ops/ops.h"

namespace foretoken {
namespace {

enum class Fault { none, not_finite, too_large };

// 32 weights (n of them given, the rest 0) -> whole numbers q and scale on a grid of `low` ... `high` steps.
// q8: scale = f16(amax / 127); q4: scale = f16(top / -8), top the first weight of largest magnitude with its sign.
// q = nearest even(w / scale), clipped.
Fault quantize_block(Format format, const float* w, int64_t n, int8_t* q, uint16_t* scale) {
    float top = 0.0f;
    for (int64_t i = 0; i < n; ++i) {
        const float size = std::fabs(w[i]);
        if (!(size <= 3.4028235e38f)) return Fault::not_finite;
        top = size > std::fabs(top) ? w[i] : top;
    }
    const bool is_q8 = format == Format::q8;
    const float low = is_q8 ? -127.0f : -8.0f, high = is_q8 ? 127.0f : 7.0f;
    *scale = half_from_float(is_q8 ? std::fabs(top) / 127.0f : top / -8.0f);
    if ((*scale & 0x7fff) == 0x7c00) return Fault::too_large;
    const float grid = half_to_float(*scale);
    std::memset(q, 0, kBlock);
    if (grid == 0.0f) {
        *scale = 0;  // not -0
        return Fault::none;
    }
    for (int64_t i = 0; i < n; ++i) {
        float ratio = w[i] / grid;
        ratio = ratio < low ? low : ratio > high ? high : ratio;
        q[i] = static_cast<int8_t>((ratio + 12582912.0f) - 12582912.0f);  // 1.5 * 2^23: nearest even
    }
    return Fault::none;
}

// q: 32 whole numbers; `lane` is the output within a panel.
void write_codes(BlockQ8Row& block, int, const int8_t* q, uint16_t scale) {
    std::memcpy(block.w, q, kBlock);
    block.scale = scale;
}

void write_codes(BlockQ8Panel& block, int lane, const int8_t* q, uint16_t scale) {
    for (int i = 0; i < kBlock; ++i) block.w[i / 4][lane][i % 4] = static_cast<uint8_t>(q[i] + 128);
    block.scale[lane] = scale;
}

uint8_t pair_of(const int8_t* q, int i) { return static_cast<uint8_t>((q[i] + 8) | (q[i + kBlock / 2] + 8) << 4); }

void write_codes(BlockQ4Row& block, int, const int8_t* q, uint16_t scale) {
    for (int i = 0; i < kBlock / 2; ++i) block.w[i] = pair_of(q, i);
    block.scale = scale;
}

void write_codes(BlockQ4Panel& block, int lane, const int8_t* q, uint16_t scale) {
    for (int i = 0; i < kBlock / 2; ++i) block.w[i / 4][lane][i % 4] = pair_of(q, i);
    block.scale[lane] = scale;
}

// `lanes` outputs from `first` on, as one row of blocks (lanes = 1) or one panel; outputs past the end are 0.
template <class Block>
Fault pack_blocks(Format format, const FloatRows& w, int64_t first, int lanes, uint8_t* out) {
    for (int64_t at = 0; at < w.cols; at += kBlock, out += sizeof(Block)) {
        Block block;
        const int64_t n = w.cols - at < kBlock ? w.cols - at : kBlock;
        for (int o = 0; o < lanes; ++o) {
            int8_t q[kBlock] = {};
            uint16_t scale = 0;
            if (first + o < w.rows) {
                const Fault fault = quantize_block(format, w.row(first + o) + at, n, q, &scale);
                if (fault != Fault::none) return fault;
            }
            write_codes(block, o, q, scale);
        }
        std::memcpy(out, &block, sizeof block);
    }
    return Fault::none;
}

// Outputs unit * lanes ..., input by input; outputs past the end are 0.
void pack_f32(const FloatRows& w, int64_t unit, int lanes, float* out) {
    for (int64_t o = 0; o < lanes; ++o) {
        const int64_t n = unit * lanes + o;
        for (int64_t k = 0; k < w.cols; ++k) out[k * lanes + o] = n < w.rows ? w.row(n)[k] : 0.0f;
    }
}

Fault pack_bf16(const FloatRows& w, int64_t unit, int lanes, uint16_t* out) {
    for (int64_t o = 0; o < lanes; ++o) {
        const int64_t n = unit * lanes + o;
        for (int64_t k = 0; k < w.cols; ++k) {
            const float value = n < w.rows ? w.row(n)[k] : 0.0f;
            if (!(std::fabs(value) <= 3.4028235e38f)) return Fault::not_finite;
            out[k * lanes + o] = bf16_from_float(value);
            if ((out[k * lanes + o] & 0x7fff) == 0x7f80) return Fault::too_large;
        }
    }
    return Fault::none;
}

Fault pack_unit(const FloatRows& w, Format format, bool is_panels, int64_t i, uint8_t* out) {
    if (format == Format::q8) {
        return is_panels ? pack_blocks<BlockQ8Panel>(format, w, i * kPanel, kPanel, out)
                         : pack_blocks<BlockQ8Row>(format, w, i, 1, out);
    }
    if (format == Format::q4) {
        return is_panels ? pack_blocks<BlockQ4Panel>(format, w, i * kPanel, kPanel, out)
                         : pack_blocks<BlockQ4Row>(format, w, i, 1, out);
    }
    if (format == Format::bf16) return pack_bf16(w, i, is_panels ? kPanel : 1, reinterpret_cast<uint16_t*>(out));
    pack_f32(w, i, is_panels ? kPanel : 1, reinterpret_cast<float*>(out));
    return Fault::none;
}

template <class Block>
void unpack_blocks(const uint8_t* unit, int lane, int64_t k, float* out) {
    for (int64_t at = 0; at < k; at += kBlock, unit += sizeof(Block)) {
        int8_t q[kBlock];
        uint16_t scale;
        read_codes(*reinterpret_cast<const Block*>(unit), lane, q, &scale);
        for (int64_t i = 0; i < kBlock && at + i < k; ++i) {
            out[at + i] = static_cast<float>(q[i]) * half_to_float(scale);
        }
    }
}

void unpack_row(const Weight& w, int64_t n, float* out) {
    const bool is_panels = w.layout == Layout::panels;
    const uint8_t* unit = w.data + (is_panels ? n / kPanel : n) * unit_bytes(w.format, w.layout, w.k);
    const int lane = is_panels ? static_cast<int>(n % kPanel) : 0;
    const int64_t step = is_panels ? kPanel : 1;
    switch (w.format) {
        case Format::f32:
            for (int64_t k = 0; k < w.k; ++k) std::memcpy(out + k, unit + (k * step + lane) * 4, 4);
            return;
        case Format::bf16:
            for (int64_t k = 0; k < w.k; ++k) {
                uint16_t bits;
                std::memcpy(&bits, unit + (k * step + lane) * 2, 2);
                out[k] = bf16_to_float(bits);
            }
            return;
        case Format::q8:
            is_panels ? unpack_blocks<BlockQ8Panel>(unit, lane, w.k, out)
                      : unpack_blocks<BlockQ8Row>(unit, lane, w.k, out);
            return;
        case Format::q4:
            is_panels ? unpack_blocks<BlockQ4Panel>(unit, lane, w.k, out)
                      : unpack_blocks<BlockQ4Row>(unit, lane, w.k, out);
            return;
    }
}

std::string too_large(Format format) {
    const char* rule = format == Format::bf16 ? "bf16"
                       : format == Format::q8 ? "q8: |w| / 127 must fit f16"
                                              : "q4: |w| / 8 must fit f16";
    return std::string("a weight is too large for format ") + rule + "; use format f32";
}

}  // namespace

void pack(FloatRows w, Format format, Layout layout, uint8_t* out) {
    const int64_t unit = unit_bytes(format, layout, w.cols);
    const bool is_panels = layout == Layout::panels;
    std::atomic<Fault> fault{Fault::none};
    std::atomic<int64_t> where{0};
    Session session;
    session.each(is_panels ? ceil_div(w.rows, kPanel) : w.rows, is_panels ? 4 : 64, [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) {
            const Fault found = pack_unit(w, format, is_panels, i, out + i * unit);
            if (found != Fault::none) {
                where = is_panels ? i * kPanel : i;
                fault = found;
            }
        }
    });
    if (fault == Fault::none) return;
    const std::string place =
        is_panels ? " (outputs from " + number(where) + " on)" : " (output " + number(where) + ")";
    throw WeightsError(
        (fault == Fault::not_finite ? "a weight is NaN or infinite: the file is damaged" : too_large(format)) + place);
}

void pack_q4_0(Rows<const uint8_t> blocks, Layout layout, uint8_t* out) {
    constexpr int64_t block_len = sizeof(BlockQ4Row), panel_len = sizeof(BlockQ4Panel);
    const int64_t count = blocks.cols / block_len, lanes = layout == Layout::panels ? kPanel : 1;
    std::atomic<bool> is_damaged{false};
    Session session;
    session.each(ceil_div(blocks.rows, lanes), 64 / lanes, [&](int64_t from, int64_t to) {
        for (int64_t i = from * count; i < to * count; ++i) {  // block by block, in the order of the result
            BlockQ4Panel panel;
            BlockQ4Row row;
            for (int64_t o = 0; o < lanes; ++o) {
                const int64_t n = i / count * lanes + o;
                int8_t q[kBlock] = {};
                uint16_t scale = 0;
                if (n < blocks.rows) {
                    std::memcpy(&row, blocks.row(n) + i % count * block_len, sizeof row);
                    read_codes(row, 0, q, &scale);
                }
                if ((scale & 0x7c00) == 0x7c00) is_damaged = true;
                write_codes(panel, static_cast<int>(o), q, scale);
            }
            if (layout == Layout::panels) {
                std::memcpy(out + i * panel_len, &panel, sizeof panel);
            } else {
                std::memcpy(out + i * block_len, &row, sizeof row);
            }
        }
    });
    if (is_damaged) throw WeightsError("a scale of a Q4_0 block is NaN or infinite: the file is damaged");
}

void unpack(const Weight& w, Rows<float> out) {
    require_shape("out", out, w.n, w.k);
    Session session;
    session.each(w.n, 64, [&](int64_t first, int64_t last) {
        for (int64_t n = first; n < last; ++n) unpack_row(w, n, out.row(n));
    });
}

}  // namespace foretoken
