"""The pair in compact torch: Gemma 4 text model of the E2B kind, functional over a dict of weights.

Weights carry the released names without the leading "model." and are f32 (out, in). The forward pass is the one of
transformers 5.24 (`Gemma4ForCausalLM`); `verify.py` compares the two. Shape letters: B texts, T positions, D hidden
width, Hq query heads, Dh head width, E per-layer width, L layers, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

SLIDING, FULL = "sliding_attention", "full_attention"


@dataclass(frozen=True)
class Shape:
    """Sizes of the small target; chosen so that it inflates exactly to E2B's."""

    hidden: int = 384
    layer_types: tuple[str, ...] = (SLIDING,) * 4 + (FULL,) + (SLIDING,) * 4 + (FULL,)
    num_shared: int = 5
    num_heads: int = 4
    head_dim: int = 64
    global_head_dim: int = 128
    intermediate: int = 320
    per_layer: int = 32
    vocab: int = 4096
    window: int = 512
    softcap: float = 30.0
    eps: float = 1e-6
    context: int = 2048

    @property
    def num_layers(self) -> int:
        return len(self.layer_types)

    def is_shared(self, layer: int) -> bool:
        return layer >= self.num_layers - self.num_shared

    def width(self, layer: int) -> int:
        """Head width of a layer."""
        return self.head_dim if self.layer_types[layer] == SLIDING else self.global_head_dim

    def mlp_width(self, layer: int) -> int:
        return self.intermediate * (2 if self.is_shared(layer) else 1)

    def donor(self, layer_type: str) -> int:
        """Last unshared layer of a type: the one whose keys and values shared layers and the drafter read."""
        return max(i for i, t in enumerate(self.layer_types) if t == layer_type and not self.is_shared(i))


TARGET = Shape()
# the root of the width rounded to bf16, as the embedding scale of a checkpoint in bf16 is, and as the runtime takes it
EMBED_SCALE = torch.tensor(math.sqrt(TARGET.hidden)).bfloat16().item()
PADDING_ROWS = 262144 - TARGET.vocab  # rows of an inflated E2B that copy the reserved row


def weight_shapes(s: Shape) -> dict[str, tuple[int, ...]]:
    """Every weight of the target and its shape."""
    shapes: dict[str, tuple[int, ...]] = {
        "embed_tokens.weight": (s.vocab, s.hidden),
        "embed_tokens_per_layer.weight": (s.vocab, s.num_layers * s.per_layer),
        "per_layer_model_projection.weight": (s.num_layers * s.per_layer, s.hidden),
        "per_layer_projection_norm.weight": (s.per_layer,),
        "norm.weight": (s.hidden,),
    }
    for i in range(s.num_layers):
        p, d, f = f"layers.{i}.", s.width(i), s.mlp_width(i)
        for name in (
            "input_layernorm",
            "post_attention_layernorm",
            "pre_feedforward_layernorm",
            "post_feedforward_layernorm",
            "post_per_layer_input_norm",
        ):
            shapes[f"{p}{name}.weight"] = (s.hidden,)
        shapes |= {
            f"{p}self_attn.q_proj.weight": (s.num_heads * d, s.hidden),
            f"{p}self_attn.q_norm.weight": (d,),
            f"{p}self_attn.o_proj.weight": (s.hidden, s.num_heads * d),
            f"{p}mlp.gate_proj.weight": (f, s.hidden),
            f"{p}mlp.up_proj.weight": (f, s.hidden),
            f"{p}mlp.down_proj.weight": (s.hidden, f),
            f"{p}per_layer_input_gate.weight": (s.per_layer, s.hidden),
            f"{p}per_layer_projection.weight": (s.hidden, s.per_layer),
            f"{p}layer_scalar": (1,),
        }
        if not s.is_shared(i):
            shapes |= {
                f"{p}self_attn.k_proj.weight": (d, s.hidden),
                f"{p}self_attn.k_norm.weight": (d,),
                f"{p}self_attn.v_proj.weight": (d, s.hidden),
            }
    return shapes


def init_weights(s: Shape, seed: int) -> dict[str, torch.Tensor]:
    """Fresh f32 weights. Score scale is 1 in this family, so q_norm and k_norm start at Dh^(-1/4) each; post norms
    start at 1/4, so that 30 additions leave the residual stream near the size of the embedding."""
    g = torch.Generator().manual_seed(seed)
    w = {}
    for name, shape in weight_shapes(s).items():
        if name == "embed_tokens.weight":
            w[name] = torch.randn(shape, generator=g) * 0.03
        elif name == "embed_tokens_per_layer.weight":
            w[name] = torch.randn(shape, generator=g) * 0.1
        elif name.endswith(("q_norm.weight", "k_norm.weight")):
            w[name] = torch.full(shape, shape[0] ** -0.25)
        elif ".post_" in name:
            w[name] = torch.full(shape, 0.25)
        elif len(shape) == 2:
            w[name] = torch.randn(shape, generator=g) * 0.7 / math.sqrt(shape[1])
        else:
            w[name] = torch.ones(shape)
    return w


def rms(x: torch.Tensor, weight: torch.Tensor | None, eps: float) -> torch.Tensor:
    y = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
    return y if weight is None else y * weight


def rope_tables(s: Shape, positions: torch.Tensor) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """cos and sin, each (T, Dh), per layer type. Full layers rotate only the first quarter of the pairs."""
    tables = {}
    for kind, dim, theta, part in ((SLIDING, s.head_dim, 1e4, 1.0), (FULL, s.global_head_dim, 1e6, 0.25)):
        inv = 1.0 / theta ** (torch.arange(0, dim, 2).float() / dim)
        inv[int(part * dim // 2) :] = 0.0
        angle = positions.float()[:, None] * torch.cat([inv, inv])[None]
        tables[kind] = (angle.cos(), angle.sin())
    return tables


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


def causal_masks(s: Shape, t: int) -> dict[str, torch.Tensor | None]:
    """Boolean (T, T), True = may be read; None means plain causal."""
    if t <= s.window:
        return {SLIDING: None, FULL: None}
    q, k = torch.arange(t)[:, None], torch.arange(t)[None]
    return {SLIDING: (k <= q) & (k > q - s.window), FULL: None}


def attend(q, k, v, mask) -> torch.Tensor:
    """q (B, Hq, T, Dh) on one shared key/value head k, v (B, 1, S, Dh); mask None is causal. Score scale 1."""
    k, v = k.expand(-1, q.shape[1], -1, -1), v.expand(-1, q.shape[1], -1, -1)
    if mask is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0)


def heads(x: torch.Tensor, weight: torch.Tensor, dim: int) -> torch.Tensor:
    """Project and split: (B, T, D) -> (B, H, T, Dh)."""
    y = F.linear(x, weight)
    return y.view(*y.shape[:2], -1, dim).transpose(1, 2)


def mlp(w: dict, p: str, x: torch.Tensor) -> torch.Tensor:
    gate = F.gelu(F.linear(x, w[p + "mlp.gate_proj.weight"]), approximate="tanh")
    return F.linear(gate * F.linear(x, w[p + "mlp.up_proj.weight"]), w[p + "mlp.down_proj.weight"])


def embed(w: dict, s: Shape, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """ids (B, T) -> scaled embedding (B, T, D) and per-layer inputs (B, T, L, E)."""
    h = F.embedding(ids, w["embed_tokens.weight"]) * EMBED_SCALE
    token = F.embedding(ids, w["embed_tokens_per_layer.weight"]) * math.sqrt(s.per_layer)
    context = F.linear(h, w["per_layer_model_projection.weight"]) * s.hidden**-0.5
    shape = (*ids.shape, s.num_layers, s.per_layer)
    context = rms(context.view(shape), w["per_layer_projection_norm.weight"], s.eps)
    return h, (context + token.view(shape)) * 2**-0.5


def forward(w: dict, s: Shape, ids: torch.Tensor, rope: dict, masks: dict, past: dict | None = None):
    """Target pass. ids (B, T); rope tables and masks for these T positions (masks cover past keys too).

    past: {layer: (k, v)} of earlier positions, each (B, 1, S, Dh), or None; new keys are appended to a new dict.
    returns hidden after the final norm (B, T, D), keys/values {layer: (k, v)}.
    """
    h, per_layer = embed(w, s, ids)
    kv: dict = {}
    for i, kind in enumerate(s.layer_types):
        p, d = f"layers.{i}.", s.width(i)
        x = rms(h, w[p + "input_layernorm.weight"], s.eps)
        q = rotate(
            rms(heads(x, w[p + "self_attn.q_proj.weight"], d), w[p + "self_attn.q_norm.weight"], s.eps), *rope[kind]
        )
        if s.is_shared(i):
            k, v = kv[s.donor(kind)]
        else:
            k = heads(x, w[p + "self_attn.k_proj.weight"], d)
            k = rotate(rms(k, w[p + "self_attn.k_norm.weight"], s.eps), *rope[kind])
            v = rms(heads(x, w[p + "self_attn.v_proj.weight"], d), None, s.eps)
            if past is not None:
                k, v = torch.cat([past[i][0], k], 2), torch.cat([past[i][1], v], 2)
            kv[i] = (k, v)
        a = attend(q, k, v, masks[kind]).transpose(1, 2).flatten(2)
        h = h + rms(F.linear(a, w[p + "self_attn.o_proj.weight"]), w[p + "post_attention_layernorm.weight"], s.eps)
        m = mlp(w, p, rms(h, w[p + "pre_feedforward_layernorm.weight"], s.eps))
        h = h + rms(m, w[p + "post_feedforward_layernorm.weight"], s.eps)
        g = F.gelu(F.linear(h, w[p + "per_layer_input_gate.weight"]), approximate="tanh") * per_layer[:, :, i]
        g = F.linear(g, w[p + "per_layer_projection.weight"])
        h = (h + rms(g, w[p + "post_per_layer_input_norm.weight"], s.eps)) * w[p + "layer_scalar"]
    return rms(h, w["norm.weight"], s.eps), kv


def logits(w: dict, s: Shape, hidden: torch.Tensor) -> torch.Tensor:
    """(…, D) -> (…, V), tied head, softcapped."""
    return s.softcap * torch.tanh(F.linear(hidden, w["embed_tokens.weight"]) / s.softcap)
