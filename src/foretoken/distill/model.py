"""The drafter in torch, for many rounds of many texts at once; the same step as `models/gemma4_assistant.py`.

Functional over a dict of f32 weights with the released names. Sizes, kinds, windows and rotary frequencies come from
`DrafterConfig`. Source: specification sections 3.1 to 3.3.
Shape letters: B texts, R rounds of each, S keys, D target width, Dd drafter width, Hq and Hkv heads, Dh head width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from foretoken.config import DrafterConfig

Weights = dict[str, torch.Tensor]
Rotation = tuple[torch.Tensor, torch.Tensor]
TABLE, CENTROIDS = "model.embed_tokens.weight", "masked_embedding.centroids.weight"
ORDERING, HEAD_IDS = "masked_embedding.token_ordering", "head_token_ids"


def rms(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def rotations(config: DrafterConfig, positions: torch.Tensor) -> dict[str, Rotation]:
    """positions (B, R) -> {kind: (cos, sin)}, each (B, R, 1, Dh / 2); pairs that are not rotated have angle 0."""
    found = {}
    for layer in config.layers:
        inv = torch.zeros(layer.head_len // 2)
        own = torch.from_numpy(config.rope[layer.kind].copy())
        inv[: len(own)] = own
        angle = positions.float()[..., None, None] * inv
        found[layer.kind] = angle.cos(), angle.sin()
    return found


def masks(config: DrafterConfig, bonus: torch.Tensor, num_keys: int) -> dict[str, torch.Tensor]:
    """bonus (B, R) -> {kind: (B, R, S)}, True = may be read: keys before the bonus token, sliding within the window."""
    k, b = torch.arange(num_keys), bonus[..., None]
    full = k < b
    return {layer.kind: full & (k > b - layer.window) if layer.window else full for layer in config.layers}


def rotate(x: torch.Tensor, rotation: Rotation) -> torch.Tensor:
    """x (B, R, H, Dh): pairs (i, i + Dh/2) rotated."""
    cos, sin = rotation
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def attend(q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """q (B, R, Hq, Dh) over keys, values (B, Hkv, S, Dh), mask (B, R, S) -> (B, R, Hq·Dh); score scale 1.

    Query head h reads key head h // (Hq / Hkv).
    """
    b, r, hq, dh = q.shape
    hkv = keys.shape[1]
    group = hq // hkv
    grouped = q.view(b, r, hkv, group, dh).permute(0, 2, 3, 1, 4).reshape(b, hkv, group * r, dh)
    seen = mask[:, None, None].expand(b, 1, group, r, -1).reshape(b, 1, group * r, -1)
    scores = (grouped @ keys.transpose(2, 3)).float().masked_fill(~seen, -torch.inf)
    out = scores.softmax(-1) @ values  # torch's fused attention is several times slower on processors
    return out.view(b, hkv, group, r, dh).permute(0, 3, 1, 2, 4).reshape(b, r, hq * dh)


def step(
    w: Weights,
    config: DrafterConfig,
    embedded: torch.Tensor,
    hidden: torch.Tensor,
    rotated: dict[str, Rotation],
    seen: dict[str, torch.Tensor],
    stored: dict[str, tuple[torch.Tensor, torch.Tensor]],
) -> tuple[torch.Tensor, torch.Tensor]:
    """One draft step.

    embedded  (B, R, D) the target's scaled embedding of the newest token
    hidden    (B, R, D) the target's row after its final norm (first step), else the last step's second result
    rotated, seen, stored  per kind: rotation at the bonus index, mask, donor's keys and values (B, Hkv, S, Dh)
    returns   z (B, R, Dd) after the drafter's final norm, next hidden (B, R, D)
    """
    eps = config.eps
    h = F.linear(torch.cat([embedded, hidden], -1), w["pre_projection.weight"])
    for i, layer in enumerate(config.layers):
        p = f"model.layers.{i}."
        x = rms(h, w[p + "input_layernorm.weight"], eps)
        q = F.linear(x, w[p + "self_attn.q_proj.weight"]).unflatten(-1, (layer.num_heads, layer.head_len))
        q = rotate(rms(q, w[p + "self_attn.q_norm.weight"], eps), rotated[layer.kind])
        mixed = attend(q, *stored[layer.kind], seen[layer.kind])
        mixed = F.linear(mixed, w[p + "self_attn.o_proj.weight"])
        h = h + rms(mixed, w[p + "post_attention_layernorm.weight"], eps)
        x = rms(h, w[p + "pre_feedforward_layernorm.weight"], eps)
        gate = F.gelu(F.linear(x, w[p + "mlp.gate_proj.weight"]), approximate="tanh")
        out = F.linear(gate * F.linear(x, w[p + "mlp.up_proj.weight"]), w[p + "mlp.down_proj.weight"])
        h = (h + rms(out, w[p + "post_feedforward_layernorm.weight"], eps)) * w[p + "layer_scalar"]
    z = rms(h, w["model.norm.weight"], eps)
    return z, F.linear(z, w["post_projection.weight"])


def guesses(w: Weights, config: DrafterConfig, z: torch.Tensor) -> torch.Tensor:
    """z (N, Dd) -> (N,) the head rows that the deployed head takes: the best within the likeliest clusters."""
    if not config.num_clusters:
        return F.linear(z, w[TABLE]).argmax(-1)
    clusters = F.linear(z, w[CENTROIDS]).topk(config.top_clusters, -1).indices
    rows = w[ORDERING].view(config.num_clusters, -1)[clusters].flatten(1)  # (N, top · members)
    scores = (w[TABLE][rows] @ z[..., None])[..., 0]
    return rows.gather(1, scores.argmax(-1, keepdim=True))[:, 0]
