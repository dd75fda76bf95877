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

// Ends of the waves, as indices into the groups. A wave never cuts a group.
std::vector<size_t> wave_ends(const std::vector<Group>& groups, int64_t* most_pairs) {
    std::vector<size_t> ends;
    int64_t pairs = 0;
    *most_pairs = 0;
    for (size_t g = 0; g < groups.size(); ++g) {
        if (pairs && pairs + groups[g].count > kWavePairs) {
            ends.push_back(g);
            pairs = 0;
        }
        pairs += groups[g].count;
        *most_pairs = std::max(*most_pairs, pairs);
    }
    ends.push_back(groups.size());
    return ends;
}

// Input rows of one product, in floats or as q8 blocks, whichever the weight takes.
struct Inputs {
    float* x = nullptr;
    ActivationsQ8 activations{};
    bool has_blocks;
    int64_t k;

    static size_t bytes(const Weight& w, int64_t rows) {
        return foretoken::has_blocks(w.format) ? activation_bytes(rows, w.k) : static_cast<size_t>(rows * w.k) * 4;
    }
    Inputs(const Weight& w, unsigned char* memory, int64_t rows) : has_blocks(foretoken::has_blocks(w.format)), k(w.k) {
        if (has_blocks) {
            activations = activations_at(memory, rows, w.k);
        } else {
            x = reinterpret_cast<float*>(memory);
        }
    }
    void copy(int64_t to, const ActivationsQ8& from, int64_t row) const {
        const ActivationsQ8 target = from_row(activations, to, k), source = from_row(from, row, k);
        const size_t blocks = static_cast<size_t>(ceil_div(k, kBlock));
        std::memcpy(target.q, source.q, blocks * kBlock);
        std::memcpy(target.scale, source.scale, blocks * 4);
        std::memcpy(target.sum, source.sum, blocks * 4);
    }
};

// For each group, its input rows times the expert's n outputs of w -> out (pairs of the wave, n).
void multiply_groups(Session& session, const Inputs& in, const Weight& w, int64_t n, const Group* groups, size_t count,
                     float* out) {
    const int64_t panels = n / kPanel, unit = unit_bytes(w.format, w.layout, w.k);
    const int64_t all = panels * static_cast<int64_t>(count);
    const LinearKernel kernel = linear_kernel(w.format);
    session.each(all, panel_grain(session, all), [&](int64_t from, int64_t to) {
        while (from < to) {
            const Group& group = groups[from / panels];
            const int64_t first = from % panels, last = std::min(panels, first + to - from);
            const int64_t at = group.first - groups[0].first;
            const LinearArgs args{in.x ? in.x + at * w.k : nullptr,
                                  w.k,
                                  in.has_blocks ? from_row(in.activations, at, w.k) : ActivationsQ8{},
                                  w.data + group.expert * panels * unit,
                                  w.k,
                                  0,
                                  n,
                                  out + at * n,
                                  n};
            multiply(kernel, args, group.count, first, last);
            from += last - first;
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
    const int64_t d = x.cols, f = down.k;
    const Pairs pairs = sort_pairs(ids, num_experts);
    int64_t most;
    const std::vector<size_t> ends = wave_ends(pairs.groups, &most);

    const auto rounded = [](size_t bytes) { return (bytes + 63) / 64 * 64; };
    const bool has_x_blocks = has_blocks(gate_up.format);
    const size_t tokens_bytes = rounded(has_x_blocks ? activation_bytes(x.rows, d) : 0);
    const size_t inputs_bytes = rounded(Inputs::bytes(gate_up, most)), gated_bytes = rounded(Inputs::bytes(down, most));
    const size_t hidden_bytes = rounded(static_cast<size_t>(most * 2 * f) * 4);
    const size_t gelu_bytes = rounded(static_cast<size_t>(most * f) * 4);
    const size_t result_bytes = static_cast<size_t>(most * d) * 4;

    Session session;
    unsigned char* memory =
        session.scratch(tokens_bytes + inputs_bytes + gated_bytes + hidden_bytes + gelu_bytes + result_bytes);
    const ActivationsQ8 tokens = activations_at(memory, x.rows, d);
    const Inputs inputs(gate_up, memory += tokens_bytes, most), gated(down, memory += inputs_bytes, most);
    float* hidden = reinterpret_cast<float*>(memory += gated_bytes);
    float* gelu = reinterpret_cast<float*>(memory += hidden_bytes);
    float* result = reinterpret_cast<float*>(memory += gelu_bytes);

    if (has_x_blocks) quantize_into(session, x, tokens);
    for (int64_t t = 0; t < out.rows; ++t) std::memset(out.row(t), 0, static_cast<size_t>(d) * 4);
    size_t group = 0;
    for (const size_t end : ends) {
        if (group == end) break;
        const Group* groups = &pairs.groups[group];
        const int64_t first = groups->first, last = pairs.groups[end - 1].first + pairs.groups[end - 1].count;
        const int64_t rows = last - first, grain = ceil_div(rows, 4 * static_cast<int64_t>(session.threads()));
        session.each(rows, grain, [&](int64_t from, int64_t to) {
            for (int64_t i = from; i < to; ++i) {
                const int64_t t = pairs.row[static_cast<size_t>(first + i)];
                if (has_x_blocks) {
                    inputs.copy(i, tokens, t);
                } else {
                    std::memcpy(inputs.x + i * d, x.row(t), static_cast<size_t>(d) * 4);
                }
            }
        });
        multiply_groups(session, inputs, gate_up, 2 * f, groups, end - group, hidden);  // [gate; up]
        session.each(rows, grain, [&](int64_t from, int64_t to) {
            for (int64_t i = from; i < to; ++i) {
                float* to_row = gated.has_blocks ? gelu + i * f : gated.x + i * f;
                kernels().gelu_mul(hidden + i * 2 * f, hidden + i * 2 * f + f, f, to_row);
                if (!gated.has_blocks) continue;
                const ActivationsQ8 a = from_row(gated.activations, i, f);
                kernels().quantize_row(to_row, f, a.q, a.scale, a.sum);
            }
        });
        multiply_groups(session, gated, down, d, groups, end - group, result);
        session.each(x.rows, ceil_div(x.rows, 4 * static_cast<int64_t>(session.threads())),
                     [&](int64_t from, int64_t to) {
                         for (int64_t t = from; t < to; ++t) {
                             for (int64_t j = 0; j < ids.cols; ++j) {
                                 const int64_t at = pairs.position[static_cast<size_t>(t * ids.cols + j)] - first;
                                 if (at < 0 || at >= rows)
                                     continue;  // another wave's; waves and slots both ascend by expert
                                 kernels().add_weighted(result + at * d, weights.row(t)[j], d, out.row(t));
                             }
                         }
                     });
        group = end;
    }
}

}  // namespace foretoken
