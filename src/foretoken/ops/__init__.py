"""The op list and its contracts. `reference` (NumPy) says what each op means, `native` (C++) what its bits are.

Both modules export the same functions with the same signatures; `models` and `sampling` take either.
`native` has `SuffixAutomaton` and `TextChances` besides, which are no ops: figures for planning (csrc/text).
Arrays are float32 and C-contiguous unless said otherwise. "rows" means a 2-D array whose last axis is
contiguous while its row stride may be larger, so that a slice of columns of a fused result is fine.
`out` arrays are overwritten and never overlap an input unless said so. Wrong shapes or dtypes raise `ShapeError`.

linear(x, weight, out, cap=None)            x rows (T, K) · weight (N, K) -> out rows (T, N); with a cap, y of these
                                            becomes cap · tanh(y / cap)
mlp(x, gate_up, down, out)                  x rows (T, D); gate_up packed panels (2F, D), F of gate, then F of up; down
                                            packed panels (N, F); formats may differ
                                            out rows (T, N) = down(gelu_tanh(gate(x)) · up(x))
embed(ids, weight, scale, out)              ids (T,) int32 -> out (T, K) = weight[ids] · scale; ids checked against N
rms_norm(x, weight, eps, out)               x (T, D); weight (D,) or None
norm_add(x, weight, eps, scale, residual)   residual (T, D) in place = (residual + rms_norm(x)) · scale
gelu_mul(gate, up, out)                     rows (T, F): gelu_tanh(gate) · up
rope_rows(positions, inv_freq)              (T,) int32, (R,) -> cos, sin (T, R)
head_norm_rope(x, head_len, weight, eps, cos, sin)
                                            x rows (T, H·Dh) in place: each head normed (weight (Dh,) or None), then
                                            pairs (i, i + Dh/2), i < R, rotated (cos, sin (T, R), or both None)
append_kv(k, v, keys, values, tables, row_segment, positions)
                                            rows (T, Hkv·Dh) rounded to f16 into the pages (layout below)
attention(q, keys, values, tables, row_segment, begin, end, out)
                                            q rows (T, Hq·Dh); row t sees the keys begin[t] <= position < end[t] of
                                            its segment; out (T, Hq·Dh); score scale 1; no key seen gives zeros
per_layer(context, ids, table, weight, eps, context_scale, token_scale, out)
                                            context (T, L·P); table: packed rows (V, L·P); weight (P,)
                                            out (T, L·P) = (rms_norm over each P of context·context_scale,
                                            + table[ids]·token_scale) · 2^-1/2
route(scores, scale, count) -> ids, weights scores rows (T, E), scale (E,) -> (T, count) int32 ids of each row's largest
                                            scores, ties to the lowest, ascending; weights (T, count) = softmax over
                                            all E, divided by the sum of the chosen (in ascending id), · scale[id].
                                            ShapeError for a NaN, or where a row's largest score is infinite
experts(x, ids, weights, gate_up, down, num_experts, out)
                                            x rows (T, D); ids rows (T, k) int32, each row strictly ascending; weights
                                            rows (T, k); gate_up packed panels (E·2F, D), expert e's rows e·2F …: F of
                                            gate, then F of up; down packed panels (E·D, F); formats may differ.
                                            out rows (T, D) = Σ down_e(gelu_tanh(gate_e · x) · (up_e · x)) · weight,
                                            acc = fma(weight, y, acc) from 0 in ascending e. Rows are grouped by
                                            expert, so a weight is read once for all rows that take it.
                                            ShapeError unless D and 2F are multiples of 16 (experts begin at panels)
copy(x, out)                                rows to rows
take_rows(x, rows) -> x[rows]               x (T, …) float32 or int32, contiguous; rows (n,) int32, checked against T
top_clusters(scores, count)                 (C,) -> (count,) int32 ids of the largest, ties to the lowest, ascending
cluster_logits(z, weight, clusters, cluster_len, out)
                                            z (K,); cluster j is rows j·cluster_len … of `weight`
                                            out (len(clusters)·cluster_len,)
sample_row(logits, ids, temperature, top_k, top_p, min_p, seed, position)
                                            logits (V,); ids (V,) int32 token ids of the entries, or None for 0…V−1
                                            -> token id; top_k 0, top_p 1 and min_p 0 switch off
draw(logits, ids, how, token, drawn, chances)
                                            `sample_row` by the DRAW in the bytes of how (104,) uint8: the token ->
                                            token (1,) int32 and drawn[how.count]; its softmax among all candidates (a
                                            figure for planning) -> chances[how.count]; then how.position, how.count
                                            and how.depth grow, and how.survival is that of `Stop`
finite(x)                                   True when every entry of a float32 array is finite

empty(shape, dtype=float32)                 `np.empty`; while a program is recorded, memory of that program
Programs()                                  wirings recorded by shape, and run again without Python (below)

pack(w, format, layout) -> Packed           w (N, K) float32; format "f32", "bf16", "q8" or "q4"; layout "panels"
                                            (for products) or "rows" (read by row)
pack_q4_0(blocks, layout) -> Packed         blocks (N, K/32, 18) uint8 of a GGUF Q4_0 tensor, taken as they are
pack_q8_0(blocks, layout) -> Packed         blocks (N, K/32, 34) uint8 of a Q8_0 tensor, likewise, without −128
unpack(weight) -> (N, K) float32            the exact values that the kernels multiply by
set_threads(n), threads()                   the persistent thread pool of this process
isas() -> tuple, isa(), set_isa(name)       instruction sets this processor can run, best last; FORETOKEN_ISA chooses

Programs().run(key, wiring, inputs, tables, pages, times=1) is a context that gives the tuple of arrays that
wiring(*copies of inputs) returns, and keeps them as they are until it closes. `wiring` may change its inputs in place;
with `times` it is run again over what it left there, until each of its draws is over. The first run of a `key` records
the ops that the wiring calls on its thread, later ones replay them on new inputs. So `key` must tell whatever the
wiring branches on, shapes included, and all that a wiring computes it must compute by ops, in arrays that ops gave
(numpy may slice and reshape). `tables` and `pages.arrays` are used where they are; they may be others in the next run:
tables of any size, pages of any number. Weights must be read-only. Native raises ShapeError for any other array; the
twins check nothing and never record. An error leaves a program as it was. Several threads may share one `Programs`.

Cache layout, shared by native and reference. PAGE positions a page, one pair of arrays per cache layer:
    keys   (pages, Hkv, PAGE/16, Dh, 16) float16     lane = position mod 16
    values (pages, Hkv, PAGE, Dh) float16
    tables (G, max_pages) int32: tables[g, p // PAGE] is the page of segment g's position p, −1 where none
"""

from dataclasses import dataclass
from math import exp, log
from struct import Struct
from typing import NamedTuple

import numpy as np

PAGE = 64
NUMERICS_VERSION = 1
_DRAW_FIELDS = (
    *((name, np.float64) for name in ("temperature", "top_p", "min_p")),
    ("top_k", np.int64),
    ("seed", np.uint64),
    ("position", np.uint64),
    ("count", np.int64),
    ("depth", np.int64),
    *((name, np.float64) for name in ("least", "constant", "odds_weight", "depth_weight", "survival")),
)
DRAW = np.dtype(list(_DRAW_FIELDS))  # how one sequence's tokens are drawn, and how many were; see `sampling.Sampling`
# The same for `struct`, which takes a fifth of NumPy's time for the few of a round, and two places in it.
DRAW_RECORD = Struct("=" + "".join({np.float64: "d", np.int64: "q", np.uint64: "Q"}[kind] for _, kind in _DRAW_FIELDS))
DRAW_COUNT, DRAW_SURVIVAL = ([name for name, _ in _DRAW_FIELDS].index(name) for name in ("count", "survival"))
LEAST_ODDS, MOST_ODDS = -4.0, 4.5  # log-odds of a chance of 0.018 and 0.989


def log_odds(chance: float) -> float:
    """Of a drafter's confidence, within what that can be trusted to say; the least for a NaN."""
    return MOST_ODDS if chance >= 0.989 else log(chance / (1.0 - chance)) if chance > 0.018 else LEAST_ODDS


class Stop(NamedTuple):
    """Where a chain of draws ends: behind the token with which the chance that all are kept falls below `least`.

    A token that is drawn with a chance p, behind `depth` others of its draft, is kept with the chance
    logistic(constant + odds_weight · log(p / (1 − p)) + depth_weight · log(1 + depth)).
    """

    least: float = 0.0  # never
    constant: float = 0.0
    odds_weight: float = 0.0
    depth_weight: float = 0.0

    def survival(self, before: float, depth: int, chance: float) -> float:
        """Of a chain of `depth` tokens that has survived with the chance `before`, with one more."""
        at_depth = self.constant + self.depth_weight * log(1 + depth)
        return before / (1.0 + exp(-(at_depth + self.odds_weight * log_odds(chance))))


NO_STOP = Stop()


@dataclass(frozen=True)
class Packed:
    """One weight matrix in kernel order.

    data  (bytes,) uint8, 64-byte aligned; layout "panels" (16 outputs interleaved) or "rows" (read by row)
    n, k  outputs and inputs before padding
    """

    format: str
    layout: str
    n: int
    k: int
    data: np.ndarray
