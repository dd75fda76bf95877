// Matrix products, and the pieces of ops/products.h.
#include <algorithm>
#include <atomic>

#include "ops/products.h"

namespace foretoken {
namespace {

constexpr int64_t kSmallCount = 1 << 13;  // numbers whose quantising takes no longer than waking threads
constexpr int64_t kRowTile = 16;          // rows of a tile, where there are more than one can have
constexpr int64_t kManyRows = 8;          // from so many on, whole rows are quantised,
constexpr int64_t kColumn = 8 * kBlock;   // else so many inputs of each row at a time
constexpr int64_t kPanelsInCache = 512 << 10;
constexpr int64_t kRunBytes = 96 << 10;  // of weights in a run, or more: each run is begun anew
constexpr int64_t kMostRuns = 64;        // of a thread; of gated products, which alternate between two places, fewer
constexpr int64_t kMostGatedRuns = 16;

// Runs are short: where a thread lags behind, as one does that shares its core, the others wait for its last one.
int64_t grain_of(const Session& session, int64_t items, int64_t item_bytes, int64_t most_runs) {
    const int64_t threads = session.threads();
    return ceil_div(items, std::clamp<int64_t>(items * item_bytes / (kRunBytes * threads), 1, most_runs) * threads);
}

int64_t activation_block_bytes(Format weights) {
    const BlockKernels& blocks = kernels().blocks;
    return weights == Format::q4 ? blocks.block_bytes_for_q4 : blocks.block_bytes_for_q8;
}

}  // namespace

LinearKernel linear_kernel(Format format) {
    switch (format) {
        case Format::f32:
            return kernels().linear_f32;
        case Format::bf16:
            return kernels().linear_bf16;
        case Format::q8:
            return kernels().blocks.linear_q8;
        case Format::q4:
            return kernels().blocks.linear_q4;
    }
    return nullptr;
}

void require_panels(const char* name, const Weight& w) {
    require(w.layout == Layout::panels,
            [&] { return std::string(name) + ": layout rows, expected panels; pack it with layout=\"panels\""; });
}

Tiles::Tiles(int64_t rows) : rows_(rows), count_(rows <= kMostRows ? 1 : ceil_div(rows, kRowTile)) {}

ActivationsQ8 Activations::tile(const Tiles& tiles, int64_t index) const {
    const int64_t first = tiles.first(index);
    return {from_row(first).data, block_bytes, tiles.first(index + 1) - first};
}

ActivationsQ8 Activations::row(const Tiles& tiles, int64_t row, int64_t at) const {
    const int64_t index = tiles.of(row);
    ActivationsQ8 own = tile(tiles, index);
    own.data += (at / kBlock * own.rows + row - tiles.first(index)) * block_bytes;
    return own;
}

Activations Activations::from_row(int64_t row) const {
    return {data + row * blocks * block_bytes, block_bytes, blocks};
}

size_t activation_bytes(int64_t rows, int64_t k, Format weights) {
    return static_cast<size_t>(rows * ceil_div(k, kBlock) * activation_block_bytes(weights));
}

size_t Inputs::bytes(const Weight& w, int64_t rows) {
    return foretoken::has_blocks(w.format) ? activation_bytes(rows, w.k, w.format)
                                           : static_cast<size_t>(rows * w.k) * sizeof(float);
}

Inputs::Inputs(const Weight& w, unsigned char* memory) : weights(w.format), k(w.k) {
    if (has_blocks()) {
        activations = activations_at(memory, w.k, w.format);
    } else {
        x = reinterpret_cast<float*>(memory);
        x_stride = k;
    }
}

Inputs Inputs::from_row(int64_t row) const {
    Inputs own = *this;
    if (has_blocks()) {
        own.activations = activations.from_row(row);
    } else {
        own.x += row * x_stride;
    }
    return own;
}

Activations activations_at(unsigned char* memory, int64_t k, Format weights) {
    return {reinterpret_cast<int8_t*>(memory), activation_block_bytes(weights), ceil_div(k, kBlock)};
}

QuantizeKernel quantize_kernel(Format weights) {
    return weights == Format::q4 ? kernels().blocks.quantize_for_q4 : kernels().blocks.quantize_for_q8;
}

// Threads that wrote to the same lines would wait for each other, and rows lie side by side: few rows are cut into
// columns. Of many, neighbours mostly go to one thread, which often is the one that wrote them.
void quantize_into(Session& session, const FloatRows& x, Format weights, const Activations& a) {
    const QuantizeKernel quantize_row = quantize_kernel(weights);
    const Tiles tiles(x.rows);
    const bool is_small = x.rows * x.cols < kSmallCount, is_cut = x.rows < kManyRows;
    const int64_t width = is_cut ? kColumn : x.cols, columns = ceil_div(x.cols, width), parts = columns * x.rows;
    const int64_t runs = 8 * static_cast<int64_t>(session.threads());
    const int64_t cut = is_cut ? x.rows * ceil_div(columns, runs) : ceil_div(x.rows, runs);
    session.each(parts, is_small ? parts : cut, [&](int64_t part, int64_t last) {
        for (; part < last; ++part) {
            const int64_t row = part % x.rows, at = part / x.rows * width;
            quantize_row(x.row(row) + at, std::min(width, x.cols - at), a.row(tiles, row, at));
        }
    });
}

int64_t panels_in_cache(int64_t panel_bytes) { return 2 * ceil_div(kPanelsInCache / 2, panel_bytes); }

void multiply(LinearKernel kernel, const LinearArgs& args, const Activations& a, int64_t panel_bytes, int64_t rows,
              int64_t first, int64_t last) {
    const Tiles tiles(rows);
    const int64_t near = tiles.count() > 1 ? panels_in_cache(panel_bytes) : last - first;
    LinearArgs own = args;
    own.is_whole = tiles.count() == 1;
    for (; first < last; first += near) {
        for (int64_t t = 0; t < tiles.count(); ++t) {
            const int64_t from = tiles.first(t);
            own.activations = a.tile(tiles, t);
            own.x = args.x + from * args.x_stride;
            own.out = args.out + from * args.out_stride;
            kernel(own, tiles.first(t + 1) - from, first, std::min(first + near, last));
        }
    }
}

int64_t panel_grain(const Session& session, int64_t panels, int64_t panel_bytes) {
    const int64_t threads = session.threads(), grain = grain_of(session, panels, panel_bytes, kMostRuns);
    return panels < 4 * threads ? grain : grain + grain % 2;  // kernels like pairs, but no thread shall go without
}

int64_t block_grain(const Session& session, int64_t blocks, int64_t panel_bytes) {
    return grain_of(session, blocks, 2 * kBlock / kPanel * panel_bytes, kMostGatedRuns);
}

size_t quantized_bytes(const Weight& w, int64_t rows) {
    return has_blocks(w.format) ? (activation_bytes(rows, w.k, w.format) + 63) / 64 * 64 : 0;
}

Inputs inputs_of(Session& session, const FloatRows& x, const Weight& w, unsigned char* memory) {
    Inputs in(w, memory);
    if (in.has_blocks()) {
        quantize_into(session, x, w.format, in.activations);
    } else {
        in.x = const_cast<float*>(x.data);
        in.x_stride = x.stride;
    }
    return in;
}

void multiply_all(Session& session, const Inputs& x, const Weight& w, int64_t rows, std::optional<float> cap,
                  Rows<float> out) {
    const LinearArgs args{x.x, x.x_stride, {}, w.data, w.k, 0, w.n, out.data, out.stride};
    const LinearKernel kernel = linear_kernel(w.format);
    const int64_t panels = ceil_div(w.n, kPanel);
    const bool is_small = rows * w.k * panels * kPanel < kSmallWork;
    const int64_t panel_bytes = unit_bytes(w.format, w.layout, w.k);
    session.each(panels, is_small ? panels : panel_grain(session, panels, panel_bytes),
                 [&](int64_t first, int64_t last) {
                     multiply(kernel, args, x.activations, panel_bytes, rows, first, last);
                     if (!cap) return;
                     const int64_t from = first * kPanel, to = std::min(last * kPanel, w.n);  // still in the cache
                     for (int64_t t = 0; t < rows; ++t) kernels().softcap(out.row(t) + from, *cap, to - from);
                 });
}

void linear(FloatRows x, const Weight& w, std::optional<float> cap, Rows<float> out) {
    require(!cap || *cap > 0.0f, [] { return std::string("cap: expected a positive number"); });
    require_panels("weight", w);
    require_shape("x", x, x.rows, w.k);
    require_shape("out", out, x.rows, w.n);
    if (x.rows == 0) return;
    Session session;
    multiply_all(session, inputs_of(session, x, w, session.scratch(quantized_bytes(w, x.rows))), w, x.rows, cap, out);
}

int64_t multiply_peak(Format format, int64_t rounds) {
    require(rounds >= 0 && rounds <= int64_t{1} << 32,
            [&] { return "rounds: " + number(rounds) + ", expected 0 to 2^32"; });
    if (!has_blocks(format)) return 0;
    const auto peak = format == Format::q4 ? kernels().blocks.peak_q4 : kernels().blocks.peak_q8;
    std::atomic<int64_t> total{0};
    Session session;
    session.each(session.threads(), 1, [&](int64_t first, int64_t last) {
        for (int64_t i = first; i < last; ++i) total += peak(rounds);
    });
    return total;
}

void cluster_logits(Floats z, const Weight& w, Ids clusters, int64_t cluster_len, Vector<float> out) {
    require_panels("weight", w);
    require_len("z", z, w.k);
    require(cluster_len > 0 && cluster_len <= w.n,
            [&] { return "cluster_len: " + number(cluster_len) + ", expected 1 to " + number(w.n); });
    require_len("out", out, clusters.len * cluster_len);
    for (int64_t i = 0; i < clusters.len; ++i) {
        require(clusters.data[i] >= 0 && (clusters.data[i] + int64_t{1}) * cluster_len <= w.n, [&] {
            return "clusters[" + number(i) + "] is " + number(clusters.data[i]) + ", expected 0 to " +
                   number(w.n / cluster_len - 1);
        });
    }
    if (clusters.len == 0) return;
    Session session;
    ActivationsQ8 activations{};
    if (has_blocks(w.format)) {
        const FloatRows row{z.data, 1, z.len, z.len};
        activations = inputs_of(session, row, w, session.scratch(quantized_bytes(w, 1))).activations.tile(Tiles(1), 0);
    }
    const LinearKernel kernel = linear_kernel(w.format);
    const int64_t grain = ceil_div(clusters.len, 4 * static_cast<int64_t>(session.threads()));
    session.each(clusters.len, grain, [&](int64_t from, int64_t to) {
        for (int64_t i = from; i < to; ++i) {
            const int64_t first = clusters.data[i] * cluster_len, last = first + cluster_len;
            const LinearArgs args{z.data, z.len, activations, w.data, w.k, first, last, out.data + i * cluster_len, 0};
            kernel(args, 1, first / kPanel, ceil_div(last, kPanel));
        }
    });
}

}  // namespace foretoken
