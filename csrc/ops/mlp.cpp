// The feed-forward block. What comes out of gate and up stays with the thread that made it, and goes on as inputs of
// down: written out for others to read, and quantised by them, it took 1 to 4 % of a pass longer.
#include <algorithm>
#include <cstring>
#include <optional>

#include "ops/products.h"

namespace foretoken {
namespace {

constexpr int64_t kMostWidth = 512;  // outputs of gate that a tile makes at once, and as many of up

// Outputs [first, first + n) of `weight` for the rows of a tile -> out, args.out_stride apart
void multiply_tile(const LinearArgs& args, const Weight& weight, int64_t rows, int64_t first, int64_t n, float* out) {
    LinearArgs own = args;
    own.first_output = first;
    own.last_output = first + n;
    own.out = out;
    linear_kernel(weight.format)(own, rows, first / kPanel, ceil_div(first + n, kPanel));
}

// n gated outputs of row t, from `at` on -> where they lie among the inputs of the next product
void hand_on(const float* gated, int64_t n, const Inputs& to, const Tiles& tiles, int64_t t, int64_t at) {
    if (!to.has_blocks()) {
        std::memcpy(to.x + t * to.x_stride + at, gated, static_cast<size_t>(n) * sizeof(float));
        return;
    }
    quantize_kernel(to.weights)(gated, n, to.activations.row(tiles, t, at));
}

// Gated outputs that are made at a time, a multiple of a block: as many as there is room for, and of several tiles so
// many that the panels of gate and up stay in the cache.
int64_t step_of(const Tiles& tiles, int64_t panel_bytes) {
    if (tiles.count() == 1) return kMostWidth;
    return std::clamp<int64_t>(panels_in_cache(panel_bytes) / 2 * kPanel / kBlock, 1, kMostWidth / kBlock) * kBlock;
}

}  // namespace

void multiply_gated(const Inputs& x, const Weight& weight, int64_t rows, const Inputs& to, int64_t first,
                    int64_t last) {
    alignas(64) float gate[Tiles::kMostRows * kMostWidth], up[Tiles::kMostRows * kMostWidth];  // 74 KB
    const Tiles tiles(rows);
    const int64_t end = std::min(last * kBlock, to.k);
    const int64_t step = step_of(tiles, unit_bytes(weight.format, weight.layout, weight.k));
    LinearArgs args{nullptr, x.x_stride, {}, weight.data, weight.k, 0, 0, nullptr, step, tiles.count() == 1};
    for (int64_t at = first * kBlock; at < end; at += step) {
        const int64_t n = std::min(step, end - at);
        for (int64_t i = 0; i < tiles.count(); ++i) {
            const int64_t row = tiles.first(i), tile_rows = tiles.first(i + 1) - row;
            args.activations = x.activations.tile(tiles, i);
            args.x = x.x + row * x.x_stride;
            multiply_tile(args, weight, tile_rows, at, n, gate);
            multiply_tile(args, weight, tile_rows, to.k + at, n, up);
            for (int64_t t = 0; t < tile_rows; ++t) {
                float* own = gate + t * step;
                kernels().gelu_mul(own, up + t * step, n, own);
                hand_on(own, n, to, tiles, row + t, at);
            }
        }
    }
}

void mlp(FloatRows x, const Weight& gate_up, const Weight& down, Rows<float> out) {
    require_panels("gate_up", gate_up);
    require_panels("down", down);
    require_shape("x", x, x.rows, gate_up.k);
    require_shape("out", out, x.rows, down.n);
    require(gate_up.n == 2 * down.k, [&] {
        return "gate_up: " + number(gate_up.n) + " outputs, expected twice the " + number(down.k) + " inputs of down";
    });
    if (x.rows == 0) return;
    Session session;
    const size_t input_bytes = quantized_bytes(gate_up, x.rows);
    unsigned char* memory = session.scratch(input_bytes + Inputs::bytes(down, x.rows));
    const Inputs in = inputs_of(session, x, gate_up, memory), gated(down, memory + input_bytes);
    const int64_t blocks = ceil_div(down.k, kBlock);
    const int64_t panel_bytes = unit_bytes(gate_up.format, gate_up.layout, gate_up.k);
    const bool is_small = x.rows * gate_up.k * gate_up.n < kSmallWork;
    session.each(blocks, is_small ? blocks : block_grain(session, blocks, panel_bytes),
                 [&](int64_t first, int64_t last) { multiply_gated(in, gate_up, x.rows, gated, first, last); });
    multiply_all(session, gated, down, x.rows, std::nullopt, out);
}

}  // namespace foretoken
