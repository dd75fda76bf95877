// What the ops that multiply by packed panels share. Work is split over panels of outputs, never over the inner
// dimension.
#pragma once

#include <optional>

#include "base/pool.h"
#include "ops/dispatch.h"
#include "ops/ops.h"

namespace foretoken {

constexpr int64_t kSmallWork = 1 << 16;  // multiply-adds below which waking threads costs more than it saves

LinearKernel linear_kernel(Format format);
void require_panels(const char* name, const Weight& w);

// The rows of a call, cut into even tiles: what a thread multiplies at once, and keeps in its cache beside its panels.
class Tiles {
  public:
    static constexpr int64_t kMostRows = 18;

    explicit Tiles(int64_t rows);

    int64_t count() const { return count_; }
    int64_t first(int64_t tile) const { return rows_ * tile / count_; }
    int64_t of(int64_t row) const { return ((row + 1) * count_ - 1) / rows_; }

  private:
    int64_t rows_, count_;
};

// The rows of a call as q8 blocks for weights of one format, q8 or q4: tile by tile, `blocks` a row.
struct Activations {
    int8_t* data = nullptr;
    int64_t block_bytes = 0, blocks = 0;

    ActivationsQ8 tile(const Tiles& tiles, int64_t index) const;
    ActivationsQ8 row(const Tiles& tiles, int64_t row, int64_t at = 0) const;  // begins with the block of input `at`
    Activations from_row(int64_t row) const;                                   // of a call whose first row lies there
};

// The bytes that rows of k inputs take, and their place in memory of that many bytes (64-byte aligned).
size_t activation_bytes(int64_t rows, int64_t k, Format weights);
Activations activations_at(unsigned char* memory, int64_t k, Format weights);
QuantizeKernel quantize_kernel(Format weights);
void quantize_into(Session& session, const FloatRows& x, Format weights, const Activations& a);

// Input rows of one product, in floats or as q8 blocks, whichever the weight takes.
struct Inputs {
    float* x = nullptr;  // rows of k, x_stride apart, which nobody writes where they are the caller's
    int64_t x_stride = 0;
    Activations activations;
    Format weights;
    int64_t k;

    static size_t bytes(const Weight& w, int64_t rows);
    Inputs(const Weight& w, unsigned char* memory);
    bool has_blocks() const { return foretoken::has_blocks(weights); }
    Inputs from_row(int64_t row) const;  // of a call whose first row lies there
};

// Rows x as inputs of w, in so many bytes (a multiple of 64) at `memory`: none if it takes floats, which stay where
// they are.
size_t quantized_bytes(const Weight& w, int64_t rows);
Inputs inputs_of(Session& session, const FloatRows& x, const Weight& w, unsigned char* memory);

// All rows of a call against panels [first, last) of so many bytes each, on this thread. `a` counts where the kernel
// takes blocks.
void multiply(LinearKernel kernel, const LinearArgs& args, const Activations& a, int64_t panel_bytes, int64_t rows,
              int64_t first, int64_t last);

// Panels, an even number, that a thread keeps in its cache for the next tile.
int64_t panels_in_cache(int64_t panel_bytes);

// All rows of a call against all panels, on all threads; softcapped where there is a cap.
void multiply_all(Session& session, const Inputs& x, const Weight& w, int64_t rows, std::optional<float> cap,
                  Rows<float> out);

// gelu(gate · x) · (up · x) of all rows -> inputs [32 * first, 32 * last) of the next product, on this thread. weight:
// F outputs of gate, then F of up, as many as `to` has inputs.
void multiply_gated(const Inputs& x, const Weight& weight, int64_t rows, const Inputs& to, int64_t first, int64_t last);

// Panels that a thread takes at a time out of `panels`, of so many bytes each.
int64_t panel_grain(const Session& session, int64_t panels, int64_t panel_bytes);

// Blocks of 32 gated outputs that a thread takes at a time out of `blocks`.
int64_t block_grain(const Session& session, int64_t blocks, int64_t panel_bytes);

}  // namespace foretoken
