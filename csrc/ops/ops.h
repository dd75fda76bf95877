// The op list in C++. Contracts as in src/foretoken/ops/__init__.py; an op checks its arguments, throws ShapeError, and
// needs no lock of the caller's. An optional array has data == nullptr.
#pragma once

#include <optional>

#include "ops/arrays.h"

namespace foretoken {

using Floats = Vector<const float>;
using FloatRows = Rows<const float>;
using Ids = Vector<const int32_t>;

void linear(FloatRows x, const Weight& w, std::optional<float> cap, Rows<float> out);
void mlp(FloatRows x, const Weight& gate_up, const Weight& down, Rows<float> out);
void cluster_logits(Floats z, const Weight& w, Ids clusters, int64_t cluster_len, Vector<float> out);

void embed(Ids ids, const Weight& w, float scale, Rows<float> out);
void per_layer(FloatRows context, Ids ids, const Weight& table, Floats weight, float eps, float context_scale,
               float token_scale, Rows<float> out);

void route(FloatRows scores, Floats scale, Rows<int32_t> ids, Rows<float> weights);
void experts(FloatRows x, Rows<const int32_t> ids, FloatRows weights, const Weight& gate_up, const Weight& down,
             int64_t num_experts, Rows<float> out);

void rms_norm(FloatRows x, Floats weight, float eps, Rows<float> out);
void norm_add(FloatRows x, Floats weight, float eps, float scale, Rows<float> residual);
void gelu_mul(FloatRows gate, FloatRows up, Rows<float> out);
void rope_rows(Ids positions, Floats inv_freq, Rows<float> cos, Rows<float> sin);
void copy(FloatRows x, Rows<float> out);
template <class T>
void take_rows(Rows<const T> x, Ids rows, Rows<T> out);  // T is float or int32_t
void head_norm_rope(Rows<float> x, int64_t head_len, Floats weight, float eps, FloatRows cos, FloatRows sin);

// One layer's cache: keys (pages, kv_heads, 4, head_len, 16) and values (pages, kv_heads, 64, head_len), f16.
struct Cache {
    uint16_t* keys;
    uint16_t* values;
    int64_t pages, kv_heads, head_len;
    Rows<const int32_t> tables;
    Ids row_segment;
};

void append_kv(FloatRows k, FloatRows v, const Cache& cache, Ids positions);
void attention(FloatRows q, const Cache& cache, Ids begin, Ids end, Rows<float> out);

void top_clusters(Floats scores, Vector<int32_t> out);
bool finite(Floats x);

struct Sampling {
    double temperature;
    int64_t top_k;
    double top_p, min_p;
    uint64_t seed, position;
};

int32_t sample_row(Floats logits, Ids ids, const Sampling& how);

// One sequence's draws in memory: the bytes of foretoken.ops.DRAW.
struct Draw {
    double temperature, top_p, min_p;
    int64_t top_k;
    uint64_t seed, position;
    int64_t count;                                      // drawn so far
    int64_t depth;                                      // tokens of the draft so far
    double least, constant, odds_weight, depth_weight;  // foretoken.ops.Stop
    double survival;                                    // chance that the target keeps all of them

    bool is_over() const { return survival < least; }
};
static_assert(sizeof(Draw) == 104);

// Draws at how->position, writes the token to `token` and, with its softmax among all candidates, to entry how->count
// of `drawn` and `chances`; then the three counters grow by one, and survival is what it is with this token.
void draw(Floats logits, Ids ids, Draw* how, int32_t* token, Vector<int32_t> drawn, Vector<float> chances);
void philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

// `rounds` of multiply-adds on every thread, without a load or a store: how many were done, 0 where that can't be told.
int64_t multiply_peak(Format format, int64_t rounds);

// Float weights (w) -> format and layout at `out`, which has packed_bytes(); and back, exactly.
void pack(FloatRows w, Format format, Layout layout, uint8_t* out);
void unpack(const Weight& w, Rows<float> out);

// The bytes of a GGUF Q4_0 tensor, cols a multiple of 18, to a layout of q4 with the values that they have.
void pack_q4_0(Rows<const uint8_t> blocks, Layout layout, uint8_t* out);

}  // namespace foretoken
