// One row of the dispatch table, for the vector class of the file that includes this.
#pragma once

#include "kernels/attention_shared.h"
#include "kernels/elementwise.h"
#include "kernels/experts.h"
#include "kernels/linear_blocks.h"
#include "kernels/linear_floats.h"
#include "kernels/sampling.h"
#include "kernels/table.h"

namespace foretoken {

template <class V>
constexpr Kernels make_table(const char* isa) {
    return {isa,
            linear_floats<V, float>,
            linear_floats<V, uint16_t>,
            block_kernels<V, DotQ8<V>, DotQ4<V>>(),
            kSharingRows<V>,
            attention_chunk<V>,
            attention_merge<V>,
            append_row<V>,
            rms_norm<V>,
            norm_add<V>,
            gelu_mul<V>,
            softcap<V>,
            head_norm_rope<V>,
            norm_mix<V>,
            embed_floats<V, float>,
            embed_floats<V, uint16_t>,
            embed_row<V, BlockQ8Row>,
            embed_row<V, BlockQ4Row>,
            embed_panel<V, BlockQ8Panel>,
            embed_panel<V, BlockQ4Panel>,
            softmax_row<V>,
            add_weighted<V>,
            all_finite<V>,
            largest<V>,
            scores<V>,
            noise<V>,
            noisy_scores<V>,
            exp_row<V>,
            math<V>};
}

}  // namespace foretoken
