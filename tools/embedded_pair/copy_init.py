"""Install a copying circuit in a young target, so that few training tokens suffice for it to copy.

A model this small finds induction heads only after some million tokens. Here they are written into a checkpoint, by
least squares on its own activations; training goes on from there and bends them as it likes.
  layer 0 (sliding): keys are one constant vector on the fast rotary pairs; head h looks at the token h + 1 back;
  layer 4 (full, the donor of layer 9 and of the drafter): keys = content of the two tokens before, queries = content of
  the current token and of the one before it, values = the token's embedding, output = that embedding;
  layer 9 (full, reads layer 4's keys and values): the same queries and output.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import model
import numpy as np
import torch

from foretoken.distill.linear_fit import regress, spectral

S = model.TARGET
CONTENT = 48  # dimensions per remembered token; two of them fill the 96 unrotated dimensions of a full head
FAST_PAIRS = 6


def layer_input(w: dict, ids: torch.Tensor, layer: int) -> torch.Tensor:
    """Normed input of a layer's attention, (B * T, D): what its q_proj reads."""
    seen, plain = {}, model.heads

    def tap(x, weight, dim):
        if weight is w[f"layers.{layer}.self_attn.q_proj.weight"]:
            seen["x"] = x.flatten(0, 1)
        return plain(x, weight, dim)

    model.heads = tap
    try:
        t = ids.shape[1]
        model.forward(w, S, ids, model.rope_tables(S, torch.arange(t)), model.causal_masks(S, t))
    finally:
        model.heads = plain
    return seen["x"]


def components(x: torch.Tensor, weight: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weighted mean (D,), main directions (count, D) and standard deviations along them (count,)."""
    weight = weight / weight.sum()
    mean = (x * weight[:, None]).sum(0)
    values, vectors = torch.linalg.eigh(((x - mean) * weight[:, None]).T @ (x - mean))
    return mean, vectors.flip(1).T[:count], values.flip(0)[:count].clamp_min(1e-12).sqrt()


def look_back(w: dict, constant: torch.Tensor, content: torch.Tensor) -> None:
    """Layer 0: head h attends to the token h + 1 back and writes its content."""
    d, p = S.head_dim, "layers.0.self_attn."
    key = torch.zeros(d)
    key[:FAST_PAIRS] = 1.0
    key *= (d / FAST_PAIRS) ** 0.5
    w[p + "k_proj.weight"].copy_(
        3 * key[:, None] / key.norm() * constant[None] / constant.norm() + 0.05 * w[p + "k_proj.weight"]
    )
    tables = model.rope_tables(S, torch.arange(8))[model.SLIDING]
    for h in range(S.num_heads):
        query = model.rotate(key, tables[0][h + 1], -tables[1][h + 1])  # turned back by h + 1 positions
        block = w[p + "q_proj.weight"][h * d : (h + 1) * d]
        block.copy_(3 * query[:, None] / query.norm() * constant[None] / constant.norm() + 0.05 * block)
    w[p + "q_norm.weight"].fill_(0.8)
    w[p + "k_norm.weight"].fill_(0.8)
    w[p + "v_proj.weight"].copy_(content)
    w["layers.0.post_attention_layernorm.weight"].clamp_(min=0.4)


@torch.no_grad()
def install(w: dict, ids: torch.Tensor, counts: torch.Tensor) -> None:
    """w changed in place; ids (B, T) some training rows; counts (V,) how often each token stands in training."""
    table = w["embed_tokens.weight"]
    x0 = model.rms(table * S.hidden**0.5, None, S.eps) * w["layers.0.input_layernorm.weight"]
    usual = counts.sqrt() * (counts >= 3)
    mean, axes, spread = components(x0, usual, S.head_dim)
    a = (x0 * counts[:, None]).T @ x0 / counts.sum()
    constant = torch.linalg.solve(
        a + 1e-3 * a.diagonal().mean() * torch.eye(len(a)), (x0 * counts[:, None]).sum(0) / counts.sum()
    )
    level = x0 @ constant
    print(
        "constant direction: mean",
        float((level * counts).sum() / counts.sum()),
        "share of tokens above 0.2:",
        float((counts * (level > 0.2)).sum() / counts.sum()),
    )
    white = axes / spread[:, None]
    content = white - (white @ mean)[:, None] * constant[None]
    look_back(w, constant, spectral(content, 1.0))
    _, low, _ = components(table, usual, S.hidden)
    w["layers.0.self_attn.o_proj.weight"].copy_(low.flip(0)[: S.num_heads * S.head_dim].T)  # least used directions
    tokens = (x0 @ content.T)[:, :CONTENT]  # (V, 48) whitened content of each token
    tokens = tokens / tokens.norm(dim=1, keepdim=True) * CONTENT**0.5
    flat, shift = ids, lambda k: torch.roll(ids, k, 1)
    emean, basis, _ = components(table, usual, S.global_head_dim)
    keep = torch.ones_like(ids, dtype=torch.bool)
    keep[:, :2] = False
    keep = keep.flatten()
    cur, one, two = (tokens[z.flatten()][keep] for z in (flat, shift(1), shift(2)))
    d, q4 = S.global_head_dim, torch.arange(S.global_head_dim)
    rotated = int(0.25 * d // 2)
    places = q4[(q4 % (d // 2)) >= rotated]  # the 96 unrotated dimensions
    for layer in (4, 9):
        p = f"layers.{layer}.self_attn."
        x = layer_input(w, ids, layer)[keep]
        if layer == 4:
            wk = torch.zeros(d, S.hidden)
            wk[places] = regress(x, torch.cat([one, two], 1))
            w[p + "k_proj.weight"].copy_(spectral(wk, 2.0))
            w[p + "k_norm.weight"].fill_(0.5)
            wv = regress(x, ((table - emean) @ basis.T)[flat.flatten()][keep])
            w[p + "v_proj.weight"].copy_(spectral(wv, 2.0))
        both = regress(x, torch.cat([cur, one], 1))
        for h in range(S.num_heads):
            part = both.clone()
            if h % 2:
                part[CONTENT:] = 0  # odd heads match the current token alone
            wq = torch.zeros(d, S.hidden)
            wq[places] = part
            w[p + "q_proj.weight"][h * d : (h + 1) * d] = spectral(wq, 2.0)
            w[p + "o_proj.weight"][:, h * d : (h + 1) * d] = basis.T
        w[p + "q_norm.weight"].fill_(0.5)
        w[f"layers.{layer}.post_attention_layernorm.weight"].clamp_(min=0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="changed in place; the old one stays beside it as .before_copy")
    parser.add_argument("data", type=Path, help="train.npz")
    args = parser.parse_args()
    state = torch.load(args.checkpoint)
    torch.save(state, args.checkpoint.with_suffix(".before_copy"))
    stream = torch.from_numpy(np.load(args.data)["ids"][:500_000].astype(np.int64))
    install(state["weights"], stream[: 48 * 512].view(48, 512), torch.bincount(stream, minlength=S.vocab).float())
    for buffer in state["optimiser"]["muon"].values():
        buffer.zero_()
    tmp = args.checkpoint.with_suffix(".tmp")
    torch.save(state, tmp)
    tmp.replace(args.checkpoint)


if __name__ == "__main__":
    main()
