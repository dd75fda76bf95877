// Mixture of experts: which experts a row takes, and their products. A weight is read once for all rows that take it.
#include <algorithm>
#include <cstring>
#include <numeric>

#include "ops/products.h"

namespace foretoken {
namespace {

constexpr int64_t kWavePairs = 1024;  // pairs (row, expert) in memory at a time, or one expert's if it has more

// One expert that is taken by rows: its pairs are [first, first + count) in the order of experts.
struct Group {
    int64_t expert, first, count;
};

// The pairs (row, slot) of a call, sorted by expert, then row.
struct Pairs {
    std::vector<int64_t> row;       // of each pair
    std::vector<int64_t> position;  // of row t's slot j: entry t * slots + j
    std::vector<Group> groups;      // ascending experts
};

Pairs sort_pairs(const Rows<const int32_t>& ids, int64_t num_experts) {
    Pairs pairs;
    std::vector<int64_t> next(static_cast<size_t>(num_experts) + 1, 0);
    for (int64_t t = 0; t < ids.rows; ++t) {
        for (int64_t j = 0; j < ids.cols; ++j) ++next[static_cast<size_t>(ids.row(t)[j]) + 1];
    }
    for (size_t e = 0; e < static_cast<size_t>(num_experts); ++e) {
        if (next[e + 1]) pairs.groups.push_back({static_cast<int64_t>(e), next[e], next[e + 1]});
        next[e + 1] += next[e];
    }
    pairs.row.resize(static_cast<size_t>(ids.rows * ids.cols));
    for (int64_t t = 0; t < ids.rows; ++t) {
        for (int64_t j = 0; j < ids.cols; ++j) {
            const int64_t at = next[static_cast<size_t>(ids.row(t)[j])]++;
            pairs.row[static_cast<size_t>(at)] = t;
            pairs.position.push_back(at);
        }
    }
    return pairs;
}

// Groups that are worked on together: their pairs are [first, first + rows).
struct Wave {
    const Group* groups;
    int64_t count, first, rows;
};

// Never cuts a group, so the pairs of one wave are at most kWavePairs or the rows of one expert.
std::vector<Wave> cut_waves(const std::vector<Group>& groups) {
    std::vector<Wave> waves;
    for (const Group& group : groups) {
        if (waves.empty() || waves.back().rows + group.count > kWavePairs) waves.push_back({&group, 0, group.first, 0});
        ++waves.back().count;
        waves.back().rows += group.count;
    }
    return waves;
}

// Where the wave's pair `i` lies: its group's rows are those of one product.
ActivationsQ8 place(const Wave& wave, const Activations& a, int64_t i) {
    const auto is_before = [](int64_t pair, const Group& group) { return pair < group.first; };
    const Group& group = *(std::upper_bound(wave.groups, wave.groups + wave.count, wave.first + i, is_before) - 1);
    const int64_t first = group.first - wave.first;
    return a.from_row(first).row(Tiles(group.count), i - first);
}

void copy_blocks(const ActivationsQ8& from, const ActivationsQ8& to, int64_t blocks) {
    for (int64_t b = 0; b < blocks; ++b) {
        std::memcpy(to.data + b * to.rows * to.block_bytes, from.data + b * from.rows * from.block_bytes,
                    static_cast<size_t>(to.block_bytes));
    }
}

// body(group, first, last) for parts of `parts` of every group, on all threads.
template <class Body>
void each_group(Session& session, const Wave& wave, int64_t parts, int64_t grain, const Body& body) {
    session.each(parts * wave.count, grain, [&](int64_t from, int64_t to) {
        while (from < to) {
            const int64_t first = from % parts, last = std::min(parts, first + to - from);
            body(wave.groups[from / parts], first, last);
            from += last - first;
        }
    });
}

// For each group of the wave, its input rows through the expert's gate -> inputs of down
void gate_groups(Session& session, const Wave& wave, const Inputs& in, const Weight& w, const Inputs& to) {
    const int64_t f = to.k, blocks = ceil_div(f, kBlock), unit = unit_bytes(w.format, w.layout, w.k);
    each_group(session, wave, blocks, block_grain(session, blocks * wave.count, unit),
               [&](const Group& group, int64_t first, int64_t last) {
                   const int64_t at = group.first - wave.first;
                   Weight own = w;
                   own.data += group.expert * (2 * f / kPanel) * unit;
                   multiply_gated(in.from_row(at), own, group.count, to.from_row(at), first, last);
               });
}

// For each group of the wave, its input rows times the expert's n outputs of w -> out (pairs of the wave, n).
void multiply_groups(Session& session, const Wave& wave, const Inputs& in, const Weight& w, int64_t n, float* out) {
    const int64_t panels = n / kPanel, unit = unit_bytes(w.format, w.layout, w.k);
    const LinearKernel kernel = linear_kernel(w.format);
    each_group(session, wave, panels, panel_grain(session, panels * wave.count, unit),
               [&](const Group& group, int64_t first, int64_t last) {
                   const int64_t at = group.first - wave.first;
                   const Inputs own = in.from_row(at);
                   const uint8_t* data = w.data + group.expert * panels * unit;
                   const LinearArgs args{own.x, own.x_stride, {}, data, w.k, 0, n, out + at * n, n};
                   multiply(kernel, args, own.activations, unit, group.count, first, last);
               });
}

// A call's memory: tokens as q8 blocks, and for the pairs of one wave the inputs and results of both products.
struct Buffers {
    Activations tokens;
    Inputs inputs, gated;
    float* result;  // (pairs, D)
};

Buffers lay_out(Session& session, int64_t rows, int64_t pairs, const Weight& gate_up, const Weight& down) {
    const size_t parts[] = {quantized_bytes(gate_up, rows), Inputs::bytes(gate_up, pairs), Inputs::bytes(down, pairs),
                            static_cast<size_t>(pairs * gate_up.k) * sizeof(float)};
    size_t start[5] = {};
    for (int i = 0; i < 4; ++i) start[i + 1] = start[i] + (parts[i] + 63) / 64 * 64;
    unsigned char* memory = session.scratch(start[4]);
    return {activations_at(memory, gate_up.k, gate_up.format), Inputs(gate_up, memory + start[1]),
            Inputs(down, memory + start[2]), reinterpret_cast<float*>(memory + start[3])};
}

// Runs of rows that a thread takes at a time.
int64_t row_grain(const Session& session, int64_t rows) {
    return ceil_div(rows, 4 * static_cast<int64_t>(session.threads()));
}

void gather(Session& session, const Wave& wave, const Pairs& pairs, const FloatRows& x, const Buffers& to) {
    const Tiles tiles(x.rows);
    session.each(wave.rows, row_grain(session, wave.rows), [&](int64_t from, int64_t last) {
        for (int64_t i = from; i < last; ++i) {
            const int64_t t = pairs.row[static_cast<size_t>(wave.first + i)];
            if (to.inputs.has_blocks()) {
                copy_blocks(to.tokens.row(tiles, t), place(wave, to.inputs.activations, i), to.tokens.blocks);
            } else {
                std::memcpy(to.inputs.x + i * x.cols, x.row(t), static_cast<size_t>(x.cols) * 4);
            }
        }
    });
}

// Adds the wave's results to the rows. Waves and slots both ascend by expert, so each row's sum does, too.
void combine(Session& session, const Wave& wave, const Pairs& pairs, const FloatRows& weights, const float* result,
             const Rows<float>& out) {
    session.each(out.rows, row_grain(session, out.rows), [&](int64_t from, int64_t last) {
        for (int64_t t = from; t < last; ++t) {
            for (int64_t j = 0; j < weights.cols; ++j) {
                const int64_t at = pairs.position[static_cast<size_t>(t * weights.cols + j)] - wave.first;
                if (at < 0 || at >= wave.rows) continue;
                kernels().add_weighted(result + at * out.cols, weights.row(t)[j], out.cols, out.row(t));
            }
        }
    });
}

void require_experts(const FloatRows& x, const Rows<const int32_t>& ids, const FloatRows& weights,
                     const Weight& gate_up, const Weight& down, int64_t num_experts, const Rows<float>& out) {
    require_panels("gate_up", gate_up);
    require_panels("down", down);
    require_shape("x", x, x.rows, gate_up.k);
    require_shape("out", out, x.rows, x.cols);
    require_shape("ids", ids, x.rows, ids.cols);
    require_shape("weights", weights, x.rows, ids.cols);
    const int64_t d = x.cols, f = down.k;
    require(
        num_experts > 0 && num_experts <= gate_up.n && gate_up.n == num_experts * 2 * f && down.n == num_experts * d,
        [&] {
            return "num_experts: " + number(num_experts) + " with gate_up " + number(gate_up.n) + " x " +
                   number(gate_up.k) + " and down " + number(down.n) + " x " + number(down.k) +
                   ", expected (E * 2F, D) and (E * D, F)";
        });
    require(d % kPanel == 0 && 2 * f % kPanel == 0, [&] {
        return "experts: D " + number(d) + " and 2F " + number(2 * f) +
               ", expected multiples of 16, so that experts begin at panels";
    });
    for (int64_t t = 0; t < ids.rows; ++t) {
        for (int64_t j = 0; j < ids.cols; ++j) {
            const int64_t id = ids.row(t)[j], least = j ? ids.row(t)[j - 1] + int64_t{1} : 0;
            require(least <= id && id < num_experts, [&] {
                return "ids[" + number(t) + ", " + number(j) + "] is " + number(id) +
                       ", expected ascending ids from 0 to " + number(num_experts - 1);
            });
        }
    }
}

}  // namespace

void route(FloatRows scores, Floats scale, Rows<int32_t> ids, Rows<float> weights) {
    const int64_t count = ids.cols;
    require_shape("ids", ids, scores.rows, count);
    require_shape("weights", weights, scores.rows, count);
    require_len("scale", scale, scores.cols);
    require(count <= scores.cols, [&] { return "count: " + number(count) + ", expected 0 to " + number(scores.cols); });
    if (count == 0 || scores.rows == 0) return;
    std::vector<float> largest(static_cast<size_t>(scores.rows));
    for (int64_t t = 0; t < scores.rows; ++t) {
        float* top = &largest[static_cast<size_t>(t)];
        require(kernels().largest(scores.row(t), scores.cols, top) && *top - *top == 0.0f,
                [&] { return "scores: row " + number(t) + " has a NaN, or its largest is infinite"; });
    }
    Session session;
    const int64_t cells = scores.rows * scores.cols;
    float* const shares = reinterpret_cast<float*>(session.scratch(static_cast<size_t>(cells) * 8));
    int32_t* const orders = reinterpret_cast<int32_t*>(shares + cells);
    session.each(scores.rows, 16, [&](int64_t from, int64_t to) {
        for (int64_t t = from; t < to; ++t) {
            const float* score = scores.row(t);
            float* share = shares + t * scores.cols;
            int32_t *order = orders + t * scores.cols, *end = order + scores.cols;
            kernels().softmax_row(score, scores.cols, largest[static_cast<size_t>(t)], share);
            std::iota(order, end, 0);
            std::nth_element(order, order + (count - 1), end,
                             [&](int32_t a, int32_t b) { return score[a] != score[b] ? score[a] > score[b] : a < b; });
            std::sort(order, order + count);
            float total = 0.0f;
            for (int64_t j = 0; j < count; ++j) total += share[order[j]];
            for (int64_t j = 0; j < count; ++j) {
                ids.row(t)[j] = order[j];
                weights.row(t)[j] = share[order[j]] / total * scale.data[order[j]];
            }
        }
    });
}

void experts(FloatRows x, Rows<const int32_t> ids, FloatRows weights, const Weight& gate_up, const Weight& down,
             int64_t num_experts, Rows<float> out) {
    require_experts(x, ids, weights, gate_up, down, num_experts, out);
    if (x.rows == 0) return;
    for (int64_t t = 0; t < out.rows; ++t) std::memset(out.row(t), 0, static_cast<size_t>(out.cols) * 4);
    const Pairs pairs = sort_pairs(ids, num_experts);
    const std::vector<Wave> waves = cut_waves(pairs.groups);
    int64_t most = 0;
    for (const Wave& wave : waves) most = std::max(most, wave.rows);

    Session session;
    const Buffers b = lay_out(session, x.rows, most, gate_up, down);
    if (b.inputs.has_blocks()) quantize_into(session, x, b.inputs.weights, b.tokens);
    for (const Wave& wave : waves) {
        gather(session, wave, pairs, x, b);
        gate_groups(session, wave, b.inputs, gate_up, b.gated);
        multiply_groups(session, wave, b.gated, down, out.cols, b.result);
        combine(session, wave, pairs, weights, b.result, out);
    }
}

}  // namespace foretoken
