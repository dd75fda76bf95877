// What the ops that multiply by packed panels share. Work is split over panels of outputs, never over the inner
// dimension.
#pragma once

#include "base/pool.h"
#include "ops/dispatch.h"
#include "ops/ops.h"

namespace foretoken {

constexpr int64_t kSmallWork = 1 << 16;  // multiply-adds below which waking threads costs more than it saves

LinearKernel linear_kernel(Format format);
void require_panels(const char* name, const Weight& w);

// Rows of k inputs as q8 blocks: the bytes they take, and their place in memory of that many bytes (64-byte aligned).
// They serve weights of one format, q8 or q4.
size_t activation_bytes(int64_t rows, int64_t k, Format weights);
ActivationsQ8 activations_at(unsigned char* memory, int64_t rows, int64_t k, Format weights);
ActivationsQ8 from_row(const ActivationsQ8& a, int64_t row);
QuantizeKernel quantize_kernel(Format weights);
void quantize_into(Session& session, const FloatRows& x, Format weights, const ActivationsQ8& a);

// All rows of a call against panels [first, last) of so many bytes each, on this thread.
void multiply(LinearKernel kernel, const LinearArgs& args, int64_t panel_bytes, int64_t rows, int64_t first,
              int64_t last);

// Panels that a thread takes at a time out of `panels`.
int64_t panel_grain(const Session& session, int64_t panels);

}  // namespace foretoken
