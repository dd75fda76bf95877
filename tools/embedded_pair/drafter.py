"""The drafter (Gemma4AssistantForCausalLM) in compact torch, for many positions of a text at once.

It reads the keys and values of the target's last unshared sliding and full layers, and keeps none. For a round at
bonus index b it sees keys k < b (sliding layers: also k > b - window) and stays at position b for all its steps.
Source: transformers 5.24 gemma4_assistant; specification sections 3.1 to 3.3. R rows (= rounds), C clusters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import model
import torch
import torch.nn.functional as F
from model import FULL, SLIDING, heads, mlp, rms, rotate


@dataclass(frozen=True)
class DraftShape:
    hidden: int = 256
    layer_types: tuple[str, ...] = (SLIDING,) * 3 + (FULL,)
    num_heads: int = 4
    head_dim: int = 64
    global_head_dim: int = 128
    intermediate: int = 256
    vocab: int = 4096
    window: int = 512
    eps: float = 1e-6
    backbone: int = 384
    num_centroids: int = 2048
    top_k: int = 32

    def width(self, layer: int) -> int:
        return self.head_dim if self.layer_types[layer] == SLIDING else self.global_head_dim


DRAFTER = DraftShape()


def pair_tokens(embedding: torch.Tensor) -> torch.Tensor:
    """token_ordering (V,) int64: row j of its (C, 2) view is cluster j. Greedy matching of the most similar rows.

    Most similar pairs first: candidates are each token's 32 nearest by cosine; leftovers are paired in id order.
    """
    e = F.normalize(embedding, dim=1)
    near, index = (e @ e.T - 2 * torch.eye(len(e))).topk(32, dim=1)
    order = near.flatten().argsort(descending=True).tolist()
    flat, used, pairs = index.flatten().tolist(), [False] * len(e), []
    for i in order:
        a, b = i // 32, flat[i]
        if not used[a] and not used[b]:
            used[a] = used[b] = True
            pairs += [a, b]
    return torch.tensor(pairs + [i for i, u in enumerate(used) if not u])


def init_weights(s: DraftShape, seed: int, target: dict) -> dict[str, torch.Tensor]:
    """Fresh weights. The table is the target's, projected on its 256 main directions; the projections to and from the
    target's hidden row start as that projection; q_norm starts as that of the donor layer."""
    g = torch.Generator().manual_seed(seed)
    e = target["embed_tokens.weight"].detach()
    _, _, v = torch.linalg.svd(e - e.mean(0), full_matrices=False)
    basis = v[: s.hidden]  # (256, 384)
    w = {
        "model.embed_tokens.weight": e @ basis.T,
        "model.norm.weight": torch.ones(s.hidden),
        "pre_projection.weight": torch.cat(
            [torch.randn(s.hidden, s.backbone, generator=g) * 0.5 / math.sqrt(s.backbone), basis], 1
        ),
        "post_projection.weight": basis.T.clone(),
    }
    for i, kind in enumerate(s.layer_types):
        p, d = f"model.layers.{i}.", s.width(i)
        shapes = {
            "self_attn.q_proj": (s.num_heads * d, s.hidden),
            "self_attn.o_proj": (s.hidden, s.num_heads * d),
            "mlp.gate_proj": (s.intermediate, s.hidden),
            "mlp.up_proj": (s.intermediate, s.hidden),
            "mlp.down_proj": (s.hidden, s.intermediate),
        }
        for name, shape in shapes.items():
            w[f"{p}{name}.weight"] = torch.randn(shape, generator=g) * 0.7 / math.sqrt(shape[1])
        donor = model.TARGET.donor(kind)
        w[f"{p}self_attn.q_norm.weight"] = target[f"layers.{donor}.self_attn.q_norm.weight"].detach().clone()
        for name, value in (
            ("input_layernorm", 1.0),
            ("post_attention_layernorm", 0.25),
            ("pre_feedforward_layernorm", 1.0),
            ("post_feedforward_layernorm", 0.25),
        ):
            w[f"{p}{name}.weight"] = torch.full((s.hidden,), value)
        w[f"{p}layer_scalar"] = torch.ones(1)
    ordering = pair_tokens(e)
    w["masked_embedding.token_ordering"] = ordering
    w["masked_embedding.centroids.weight"] = (
        w["model.embed_tokens.weight"][ordering].view(s.num_centroids, -1, s.hidden).mean(1)
    )
    return w


def round_masks(s: DraftShape, bonus: torch.Tensor, num_keys: int) -> dict[str, torch.Tensor]:
    """bonus (B, R) -> boolean (B, 1, R, S) per layer type: committed keys only, sliding within the window."""
    k, b = torch.arange(num_keys), bonus[:, None, :, None]
    full = (k < b).expand(-1, -1, -1, num_keys)
    return {FULL: full, SLIDING: full & (k > b - s.window)}


def step(w: dict, s: DraftShape, embedded: torch.Tensor, hidden: torch.Tensor, rope: dict, masks: dict, kv: dict):
    """One draft step for R rounds of each of B texts.

    embedded (B, R, 384)  the target's scaled embedding of the newest token
    hidden   (B, R, 384)  the target's row after its final norm (first step), else the previous step's second result
    rope     {kind: (cos, sin)} each (B, 1, R, Dh), at the bonus index
    masks (B, 1, R, S);  kv {kind: (k, v)} each (B, 1, S, Dh)
    returns  z (B, R, 256) after the drafter's final norm, next hidden (B, R, 384)
    """
    h = F.linear(torch.cat([embedded, hidden], -1), w["pre_projection.weight"])
    for i, kind in enumerate(s.layer_types):
        p = f"model.layers.{i}."
        x = rms(h, w[p + "input_layernorm.weight"], s.eps)
        q = rotate(
            rms(heads(x, w[p + "self_attn.q_proj.weight"], s.width(i)), w[p + "self_attn.q_norm.weight"], s.eps),
            *rope[kind],
        )
        a = model.attend(q, *kv[kind], masks[kind]).transpose(1, 2).flatten(2)
        h = h + rms(F.linear(a, w[p + "self_attn.o_proj.weight"]), w[p + "post_attention_layernorm.weight"], s.eps)
        m = mlp(w, p, rms(h, w[p + "pre_feedforward_layernorm.weight"], s.eps))
        h = (h + rms(m, w[p + "post_feedforward_layernorm.weight"], s.eps)) * w[p + "layer_scalar"]
    z = rms(h, w["model.norm.weight"], s.eps)
    return z, F.linear(z, w["post_projection.weight"])


def head_logits(w: dict, s: DraftShape, z: torch.Tensor) -> torch.Tensor:
    """Deployed head: z (N, 256) -> (N, V); tokens outside the 32 best clusters get the rows' least logit minus 1."""
    chosen = F.linear(z, w["masked_embedding.centroids.weight"]).topk(s.top_k, -1).indices  # (N, 32)
    ids = w["masked_embedding.token_ordering"].view(s.num_centroids, -1)[chosen].flatten(1)  # (N, 64)
    scores = (w["model.embed_tokens.weight"][ids] @ z[..., None])[..., 0]
    out = (scores.amin(1, keepdim=True) - 1).expand(-1, s.vocab).clone()
    return out.scatter_(1, ids, scores)


def round_rope(bonus: torch.Tensor, context: int) -> dict:
    """bonus (B, R) -> {kind: (cos, sin)}, each (B, 1, R, Dh)."""
    tables = model.rope_tables(model.TARGET, torch.arange(context))
    return {k: (c[bonus][:, None], s[bonus][:, None]) for k, (c, s) in tables.items()}
