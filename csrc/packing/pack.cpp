// Float weights to packed formats and back. Runs once at load.
#include <cmath>
#include <cstring>

#include "base/half.h"
#include "base/pool.h"
#include "formats/q8.h"
#include "ops/ops.h"

namespace foretoken {
namespace {

enum class Fault { none, not_finite, too_large };

// 32 weights (n of them given, the rest 0) -> grid. scale = f16(amax / 127), q = nearest even(w / scale) in +-127.
Fault quantize_block(const float* w, int64_t n, int8_t* q, uint16_t* scale) {
    float amax = 0.0f;
    for (int64_t i = 0; i < n; ++i) {
        const float size = std::fabs(w[i]);
        if (!(size <= 3.4028235e38f)) return Fault::not_finite;
        amax = size > amax ? size : amax;
    }
    *scale = half_from_float(amax / 127.0f);
    if (*scale == 0x7c00) return Fault::too_large;
    const float grid = half_to_float(*scale);
    std::memset(q, 0, kBlock);
    if (grid == 0.0f) return Fault::none;
    for (int64_t i = 0; i < n; ++i) {
        float ratio = w[i] / grid;
        ratio = ratio < -127.0f ? -127.0f : ratio > 127.0f ? 127.0f : ratio;
        q[i] = static_cast<int8_t>((ratio + 12582912.0f) - 12582912.0f);  // 1.5 * 2^23: nearest even
    }
    return Fault::none;
}

Fault pack_q8_row(const float* w, int64_t k, uint8_t* out) {
    for (int64_t at = 0; at < k; at += kBlock, out += sizeof(BlockQ8Row)) {
        BlockQ8Row block;
        const Fault fault = quantize_block(w + at, k - at < kBlock ? k - at : kBlock, block.w, &block.scale);
        if (fault != Fault::none) return fault;
        std::memcpy(out, &block, sizeof block);
    }
    return Fault::none;
}

// Outputs [first, first + 16) of w into one panel.
Fault pack_q8_panel(const FloatRows& w, int64_t first, uint8_t* out) {
    for (int64_t at = 0; at < w.cols; at += kBlock, out += sizeof(BlockQ8Panel)) {
        BlockQ8Panel block;
        std::memset(block.w, 0x80, sizeof block.w);
        std::memset(block.scale, 0, sizeof block.scale);
        const int64_t n = w.cols - at < kBlock ? w.cols - at : kBlock;
        for (int o = 0; o < kPanel && first + o < w.rows; ++o) {
            int8_t q[kBlock];
            const Fault fault = quantize_block(w.row(first + o) + at, n, q, &block.scale[o]);
            if (fault != Fault::none) return fault;
            for (int i = 0; i < kBlock; ++i) block.w[i / 4][o][i % 4] = static_cast<uint8_t>(q[i] + 128);
        }
        std::memcpy(out, &block, sizeof block);
    }
    return Fault::none;
}

void pack_f32_panel(const FloatRows& w, int64_t first, uint8_t* out) {
    float* panel = reinterpret_cast<float*>(out);
    for (int o = 0; o < kPanel; ++o) {
        const bool is_there = first + o < w.rows;
        for (int64_t k = 0; k < w.cols; ++k) panel[k * kPanel + o] = is_there ? w.row(first + o)[k] : 0.0f;
    }
}

void unpack_row(const Weight& w, int64_t n, float* out) {
    const int64_t bytes = unit_bytes(w.format, w.layout, w.k);
    const bool is_panels = w.layout == Layout::panels;
    const uint8_t* unit = w.data + (is_panels ? n / kPanel : n) * bytes;
    const int64_t lane = n % kPanel;
    for (int64_t k = 0; k < w.k; ++k) {
        if (w.format == Format::f32) {
            std::memcpy(out + k, unit + (is_panels ? k * kPanel + lane : k) * 4, 4);
            continue;
        }
        uint16_t scale;
        int q;
        const int64_t i = k % kBlock;
        if (is_panels) {
            const uint8_t* block = unit + k / kBlock * static_cast<int64_t>(sizeof(BlockQ8Panel));
            std::memcpy(&scale, block + kBlock * kPanel + lane * 2, 2);
            q = block[(i / 4) * 64 + lane * 4 + i % 4] - 128;
        } else {
            const uint8_t* block = unit + k / kBlock * static_cast<int64_t>(sizeof(BlockQ8Row));
            std::memcpy(&scale, block, 2);
            q = static_cast<int8_t>(block[2 + i]);
        }
        out[k] = static_cast<float>(q) * half_to_float(scale);
    }
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
            Fault found = Fault::none;
            uint8_t* to = out + i * unit;
            if (format == Format::q8) {
                found = is_panels ? pack_q8_panel(w, i * kPanel, to) : pack_q8_row(w.row(i), w.cols, to);
            } else if (is_panels) {
                pack_f32_panel(w, i * kPanel, to);
            } else {
                std::memcpy(to, w.row(i), static_cast<size_t>(unit));
            }
            if (found != Fault::none) {
                where = is_panels ? i * kPanel : i;
                fault = found;
            }
        }
    });
    if (fault == Fault::none) return;
    const std::string place =
        is_panels ? " (outputs from " + number(where) + " on)" : " (output " + number(where) + ")";
    throw WeightsError(fault == Fault::not_finite ? "a weight is NaN or infinite" + place + ": the file is damaged"
                                                  : "a weight is too large for format q8" + place +
                                                        ": |w| / 127 must fit f16; use format f32");
}

void unpack(const Weight& w, Rows<float> out) {
    require_shape("out", out, w.n, w.k);
    Session session;
    session.each(w.n, 64, [&](int64_t first, int64_t last) {
        for (int64_t n = first; n < last; ++n) unpack_row(w, n, out.row(n));
    });
}

}  // namespace foretoken
