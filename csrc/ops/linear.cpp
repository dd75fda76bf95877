// Matrix products. Work is split over panels of outputs, never over the inner dimension.
#include "base/pool.h"
#include "ops/dispatch.h"
#include "ops/ops.h"

namespace foretoken {
namespace {

constexpr int64_t kRowTile = 32;         // rows that a thread keeps in its cache beside one panel
constexpr int64_t kSmallWork = 1 << 16;  // multiply-adds below which waking threads costs more than it saves

// Rows of x as q8 blocks in the session's scratch.
ActivationsQ8 quantize(Session& session, const FloatRows& x) {
    const int64_t blocks = ceil_div(x.cols, kBlock);
    unsigned char* memory = session.scratch(static_cast<size_t>(x.rows * blocks * (kBlock + 8)));
    ActivationsQ8 a;
    a.q = reinterpret_cast<int8_t*>(memory);
    a.scale = reinterpret_cast<float*>(memory + x.rows * blocks * kBlock);
    a.sum = reinterpret_cast<int32_t*>(a.scale + x.rows * blocks);
    session.each(x.rows, x.rows >= 16 ? 4 : x.rows, [&](int64_t first, int64_t last) {
        for (int64_t t = first; t < last; ++t) {
            kernels().quantize_row(x.row(t), x.cols, a.q + t * blocks * kBlock, a.scale + t * blocks,
                                   a.sum + t * blocks);
        }
    });
    return a;
}

LinearKernel kernel_for(Format format) {
    switch (format) {
        case Format::f32:
            return kernels().linear_f32;
        case Format::bf16:
            return kernels().linear_bf16;
        case Format::q8:
            return kernels().linear_q8;
        case Format::q4:
            return kernels().linear_q4;
    }
    return nullptr;
}

void run_panels(Session& session, const LinearArgs& args, Format format, int64_t rows, int64_t panel, int64_t panels) {
    const LinearKernel kernel = kernel_for(format);
    const bool is_small = rows * args.k * panels * kPanel < kSmallWork;
    // Runs of panels are multiples of 4, so that kernels can take several at once.
    const int64_t share = ceil_div(panels, 8 * static_cast<int64_t>(session.threads()));
    const int64_t grain = is_small ? panels : ceil_div(share, 4) * 4;
    session.each(panels, grain, [&](int64_t first, int64_t last) {
        for (int64_t row = 0; row < rows; row += kRowTile) {
            const int64_t tile = rows - row < kRowTile ? rows - row : kRowTile;
            kernel(args, row, tile, panel + first, panel + last);
        }
    });
}

void require_panels(const Weight& w) {
    require(w.layout == Layout::panels,
            [] { return std::string("weight: layout rows, expected panels; pack it with layout=\"panels\""); });
}

}  // namespace

void linear(FloatRows x, const Weight& w, Rows<float> out) {
    require_panels(w);
    require_shape("x", x, x.rows, w.k);
    require_shape("out", out, x.rows, w.n);
    if (x.rows == 0) return;
    Session session;
    LinearArgs args{x.data, x.stride, {}, w.data, w.k, 0, w.n, out.data, out.stride};
    if (has_blocks(w.format)) args.activations = quantize(session, x);
    run_panels(session, args, w.format, x.rows, 0, ceil_div(w.n, kPanel));
}

void cluster_logits(Floats z, const Weight& w, Ids clusters, int64_t cluster_len, Vector<float> out) {
    require_panels(w);
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
    if (has_blocks(w.format)) activations = quantize(session, {z.data, 1, z.len, z.len});
    const LinearKernel kernel = kernel_for(w.format);
    const int64_t grain = ceil_div(clusters.len, 4 * static_cast<int64_t>(session.threads()));
    session.each(clusters.len, grain, [&](int64_t from, int64_t to) {
        for (int64_t i = from; i < to; ++i) {
            const int64_t first = clusters.data[i] * cluster_len, last = first + cluster_len;
            const LinearArgs args{z.data, z.len, activations, w.data, w.k, first, last, out.data + i * cluster_len, 0};
            kernel(args, 0, 1, first / kPanel, ceil_div(last, kPanel));
        }
    });
}

}  // namespace foretoken
