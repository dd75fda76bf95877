// The dispatch table: one row per instruction set, one column per kernel. docs of each kernel are in its header.
//
// A kernel is a free function on pointers and sizes: no allocation, no threads, no exceptions.
#pragma once

#include <cstdint>

namespace foretoken {

// Activation rows that are multiplied together, as q8 blocks for weights in q8 or q4. Block b of row t is the one at
// b * rows + t, so that one pointer passes over them all. A block: 32 int8, or what else the instruction set multiplies
// (dot_*.h); its scale, float; and what its integer dots begin with, int32, so that they end without the weights' zero
// point. The form of that belongs to the instruction set and to the format of the weights.
struct ActivationsQ8 {
    int8_t* data;
    int64_t block_bytes, rows;
};

// One linear call. x: row t at x + t * x_stride (f32 and bf16 only). weight: panels. Output n of row t goes to
// out[t * out_stride + n - first_output], for first_output <= n < last_output.
struct LinearArgs {
    const float* x;
    int64_t x_stride;
    ActivationsQ8 activations;
    const uint8_t* weight;
    int64_t k;  // inputs before padding
    int64_t first_output, last_output;
    float* out;
    int64_t out_stride;
    bool is_whole = true;  // no other call takes the same panels for more rows
};

// One chunk of at most 256 keys of one KV head, for the `heads` query heads of one row, or of several of a sequence,
// then kAttentionQueries heads at most. keys[i], values[i]: page i of the chunk, or null where none of the rows sees
// anything.
constexpr int kAttentionRows = 16, kAttentionQueries = 64;

struct AttentionRow {
    const float* q;   // heads * head_len
    float* part;      // per head: weighted values (head_len), largest score, sum of weights
    int first, last;  // visible positions of the chunk, 0 <= first < last <= 256
};

struct AttentionArgs {
    int rows, heads, head_len;
    const uint16_t* keys[4];
    const uint16_t* values[4];
    AttentionRow row[kAttentionRows];
};

// The first `rows` rows of the call, those of its activations, against panels [panel, last_panel).
using LinearKernel = void (*)(const LinearArgs&, int64_t rows, int64_t panel, int64_t last_panel);

// k floats -> ceil(k / 32) blocks of one row for weights of one format, the first where `to` begins. A block that is
// not finite makes NaN outputs.
using QuantizeKernel = void (*)(const float* x, int64_t k, const ActivationsQ8& to);

// k weights of one output, in layout rows or as output `lane` of a panel: weight * scale -> out.
using EmbedRowKernel = void (*)(const uint8_t* row, int64_t k, float scale, float* out);
using EmbedPanelKernel = void (*)(const uint8_t* panel, int lane, int64_t k, float scale, float* out);

// What multiplies integers, and so makes use of instructions for that.
struct BlockKernels {
    LinearKernel linear_q8, linear_q4;
    QuantizeKernel quantize_for_q8, quantize_for_q4;
    int64_t block_bytes_for_q8, block_bytes_for_q4;  // see ActivationsQ8
    int64_t (*peak_q8)(int64_t rounds);
    int64_t (*peak_q4)(int64_t rounds);
};

struct Kernels {
    const char* isa;

    LinearKernel linear_f32, linear_bf16;
    BlockKernels blocks;

    int attention_rows;  // that attention_chunk may take at most
    void (*attention_chunk)(const AttentionArgs&);
    void (*attention_merge)(const float* parts, int64_t part_stride, int count, int head_len, float* out);
    void (*append_row)(const float* k, const float* v, int head_len, int slot, uint16_t* keys, uint16_t* values);

    void (*rms_norm)(const float* x, const float* weight, float eps, int64_t d, float* out);
    void (*norm_add)(const float* x, const float* weight, float eps, float scale, int64_t d, float* residual);
    void (*gelu_mul)(const float* gate, const float* up, int64_t n, float* out);
    void (*softcap)(float* x, float cap, int64_t n);
    void (*head_norm_rope)(float* x, int head_len, const float* weight, float eps, const float* cos, const float* sin,
                           int pairs);
    void (*norm_mix)(const float* context, const float* weight, float eps, float context_scale, int64_t d, float* out);

    void (*embed_f32)(const float* row, int64_t step, int64_t k, float scale, float* out);
    void (*embed_bf16)(const uint16_t* row, int64_t step, int64_t k, float scale, float* out);
    EmbedRowKernel embed_q8_row, embed_q4_row;
    EmbedPanelKernel embed_q8_panel, embed_q4_panel;

    void (*softmax_row)(const float* x, int64_t n, float largest, float* out);
    void (*add_weighted)(const float* x, float weight, int64_t n, float* out);

    bool (*all_finite)(const float* x, int64_t n);
    bool (*largest)(const float* x, int64_t n, float* value);  // false if there is a NaN
    void (*scores)(const float* x, int64_t n, float largest, float temperature, float* out);
    void (*noise)(const uint32_t* words, int64_t n, float* out);

    // 64 tokens from 4 * first_quad on: out = score + noise; returns the largest, or less if no noise reaches `least`.
    float (*noisy_scores)(const float* score, const uint32_t* key, const uint32_t* position, uint32_t first_quad,
                          float least, float* out);
    void (*exp_row)(const float* x, int64_t n, float* out);

    // name: exp, log, log1p or tanh; false if unknown.
    bool (*math)(const char* name, const float* x, int64_t n, float* out);
};

extern const Kernels kernels_scalar;
extern const Kernels kernels_avx2;
extern const Kernels kernels_avx512vnni;
extern const BlockKernels blocks_avxvnni;  // beside the rest of kernels_avx2

}  // namespace foretoken
