// Ops that treat every row by itself. Short calls stay on the caller's thread.
#include <cstring>

#include "base/angle.h"
#include "base/pool.h"
#include "ops/dispatch.h"
#include "ops/ops.h"

namespace foretoken {
namespace {

constexpr int64_t kSmallLen = 1 << 14;  // elements below which one thread is enough

// body(row) for every row of (rows, cols), on several threads if there is enough to do.
template <class Body>
void each_row(int64_t rows, int64_t cols, const Body& body) {
    const auto run = [&](int64_t first, int64_t last) {
        for (int64_t t = first; t < last; ++t) body(t);
    };
    if (rows * cols <= kSmallLen || rows == 1) {
        const FloatEnvironment environment;
        run(0, rows);
        return;
    }
    Session session;
    session.each(rows, ceil_div(rows, 4 * static_cast<int64_t>(session.threads())), run);
}

void require_ids(const Ids& ids, int64_t n) {
    for (int64_t t = 0; t < ids.len; ++t) {
        require(ids.data[t] >= 0 && ids.data[t] < n, [&] {
            return "ids[" + number(t) + "] is " + number(ids.data[t]) + ", expected 0 to " + number(n - 1);
        });
    }
}

void require_weight(const Floats& weight, int64_t len) {
    if (weight.data) require_len("weight", weight, len);
}

void embed_row(const Weight& w, int64_t id, float scale, float* out) {
    const int64_t unit = unit_bytes(w.format, w.layout, w.k);
    const bool is_panels = w.layout == Layout::panels;
    const uint8_t* at = w.data + (is_panels ? id / kPanel : id) * unit;
    const int lane = static_cast<int>(id % kPanel);
    if (w.format == Format::f32) {
        const float* row = reinterpret_cast<const float*>(at) + (is_panels ? lane : 0);
        kernels().embed_f32(row, is_panels ? kPanel : 1, w.k, scale, out);
    } else if (w.format == Format::bf16) {
        const uint16_t* row = reinterpret_cast<const uint16_t*>(at) + (is_panels ? lane : 0);
        kernels().embed_bf16(row, is_panels ? kPanel : 1, w.k, scale, out);
    } else if (is_panels) {
        (w.format == Format::q8 ? kernels().embed_q8_panel : kernels().embed_q4_panel)(at, lane, w.k, scale, out);
    } else {
        (w.format == Format::q8 ? kernels().embed_q8_row : kernels().embed_q4_row)(at, w.k, scale, out);
    }
}

}  // namespace

void embed(Ids ids, const Weight& w, float scale, Rows<float> out) {
    require_shape("out", out, ids.len, w.k);
    require_ids(ids, w.n);
    each_row(ids.len, w.k, [&](int64_t t) { embed_row(w, ids.data[t], scale, out.row(t)); });
}

void per_layer(FloatRows context, Ids ids, const Weight& table, Floats weight, float eps, float context_scale,
               float token_scale, Rows<float> out) {
    require_shape("context", context, ids.len, table.k);
    require_shape("out", out, ids.len, table.k);
    require(weight.len > 0 && table.k % weight.len == 0, [&] {
        return "weight: length " + number(weight.len) + ", expected a divisor of the table's width " + number(table.k);
    });
    require_ids(ids, table.n);
    each_row(ids.len, table.k, [&](int64_t t) {
        embed_row(table, ids.data[t], token_scale, out.row(t));
        for (int64_t at = 0; at < table.k; at += weight.len) {
            kernels().norm_mix(context.row(t) + at, weight.data, eps, context_scale, weight.len, out.row(t) + at);
        }
    });
}

void rms_norm(FloatRows x, Floats weight, float eps, Rows<float> out) {
    require_shape("out", out, x.rows, x.cols);
    require_weight(weight, x.cols);
    each_row(x.rows, x.cols, [&](int64_t t) { kernels().rms_norm(x.row(t), weight.data, eps, x.cols, out.row(t)); });
}

void norm_add(FloatRows x, Floats weight, float eps, float scale, Rows<float> residual) {
    require_shape("residual", residual, x.rows, x.cols);
    require_weight(weight, x.cols);
    each_row(x.rows, x.cols,
             [&](int64_t t) { kernels().norm_add(x.row(t), weight.data, eps, scale, x.cols, residual.row(t)); });
}

void gelu_mul(FloatRows gate, FloatRows up, Rows<float> out) {
    require_shape("up", up, gate.rows, gate.cols);
    require_shape("out", out, gate.rows, gate.cols);
    each_row(gate.rows, gate.cols,
             [&](int64_t t) { kernels().gelu_mul(gate.row(t), up.row(t), gate.cols, out.row(t)); });
}

void copy(FloatRows x, Rows<float> out) {
    require_shape("out", out, x.rows, x.cols);
    for (int64_t t = 0; t < x.rows; ++t)
        std::memmove(out.row(t), x.row(t), static_cast<size_t>(x.cols) * sizeof(float));
}

template <class T>
void take_rows(Rows<const T> x, Ids rows, Rows<T> out) {
    require_shape("out", out, rows.len, x.cols);
    for (int64_t i = 0; i < rows.len; ++i) {
        require(rows.data[i] >= 0 && rows.data[i] < x.rows, [&] {
            return "rows[" + number(i) + "] is " + number(rows.data[i]) + ", expected 0 to " + number(x.rows - 1);
        });
        std::memcpy(out.row(i), x.row(rows.data[i]), static_cast<size_t>(x.cols) * sizeof(T));
    }
}
template void take_rows(Rows<const float> x, Ids rows, Rows<float> out);
template void take_rows(Rows<const int32_t> x, Ids rows, Rows<int32_t> out);

void rope_rows(Ids positions, Floats inv_freq, Rows<float> cos, Rows<float> sin) {
    require_shape("cos", cos, positions.len, inv_freq.len);
    require_shape("sin", sin, positions.len, inv_freq.len);
    for (int64_t t = 0; t < positions.len; ++t) {
        require(positions.data[t] >= 0 && positions.data[t] <= (1 << 20), [&] {
            return "positions[" + number(t) + "] is " + number(positions.data[t]) + ", expected 0 to 2^20";
        });
    }
    for (int64_t i = 0; i < inv_freq.len; ++i) {
        require(inv_freq.data[i] >= 0.0f && inv_freq.data[i] <= 1.0f,
                [&] { return "inv_freq[" + number(i) + "]: expected 0 to 1"; });
    }
    each_row(positions.len, inv_freq.len, [&](int64_t t) {
        const float position = static_cast<float>(positions.data[t]);
        for (int64_t i = 0; i < inv_freq.len; ++i) {
            sin_cos(position * inv_freq.data[i], sin.row(t) + i, cos.row(t) + i);
        }
    });
}

void head_norm_rope(Rows<float> x, int64_t head_len, Floats weight, float eps, FloatRows cos, FloatRows sin) {
    require(head_len > 0 && head_len <= (1 << 16) && x.cols % head_len == 0, [&] {
        return "head_len: " + number(head_len) + ", expected a divisor of the row width " + number(x.cols);
    });
    require_weight(weight, head_len);
    require((cos.data == nullptr) == (sin.data == nullptr),
            [] { return std::string("cos and sin: give both or neither"); });
    int64_t pairs = 0;
    if (cos.data) {
        pairs = cos.cols;
        require_shape("cos", cos, x.rows, pairs);
        require_shape("sin", sin, x.rows, pairs);
        require(head_len % 2 == 0 && pairs <= head_len / 2, [&] {
            return "cos: " + number(pairs) + " pairs, expected at most half of an even head width " + number(head_len);
        });
    }
    each_row(x.rows, x.cols, [&](int64_t t) {
        const float* c = cos.data ? cos.row(t) : nullptr;
        const float* s = sin.data ? sin.row(t) : nullptr;
        for (int64_t at = 0; at < x.cols; at += head_len) {
            kernels().head_norm_rope(x.row(t) + at, static_cast<int>(head_len), weight.data, eps, c, s,
                                     static_cast<int>(pairs));
        }
    });
}

bool finite(Floats x) {
    const FloatEnvironment environment;
    return kernels().all_finite(x.data, x.len);
}

}  // namespace foretoken
