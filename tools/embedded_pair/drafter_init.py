"""A drafter that starts useful: two closed-form steps on the target's own texts, before any gradient.

1. `pre_projection` is the best linear guess of the target's next hidden row from (embedding, hidden), in the drafter's
   256 directions; the table is the target's in the same directions, so this alone is a linear next-token model.
2. The full layer reads the copying circuit that `copy_init` put in the target's donor: its queries are fitted to the
   content that the donor's keys hold (best match of the key that stands before the token to be copied), and its output
   maps the donor's values (token embeddings in 128 directions) to the drafter's directions.
"""

from __future__ import annotations

import drafter as draft
import model
import torch

from foretoken.distill.linear_fit import regress, spectral

S, DS = model.TARGET, draft.DRAFTER


def gather(w: dict, items: list[dict], most: int = 40_000) -> tuple[torch.Tensor, ...]:
    """Rows over all texts: embedding and hidden that a first draft step reads, and the target's next row; (N, 384)."""
    embedded, before, after = [], [], []
    for x in items:
        n, start = len(x["ids"]), max(1, x["start"] - 40)
        embedded.append(w["embed_tokens.weight"][x["ids"][start:n]] * model.EMBED_SCALE)
        before.append(x["hidden"][start - 1 : n - 1])
        after.append(x["hidden"][start:n])
        most -= n - start
        if most < 0:
            break
    return torch.cat(embedded), torch.cat(before), torch.cat(after)


def value_map(w: dict, items: list[dict]) -> torch.Tensor:
    """(384, 128): the target's table row of a token from the donor's value at that token."""
    values = torch.cat([x["kv"][3][0] for x in items[:300]])
    rows = torch.cat([w["embed_tokens.weight"][x["ids"]] for x in items[:300]])
    return regress(values, rows - rows.mean(0))


def best_queries(w: dict, d: dict, items: list[dict], count: int = 24_000) -> tuple[torch.Tensor, torch.Tensor]:
    """(x, q): what the drafter's full layer reads at first steps, and the donor key (rotated back) after the last
    earlier place where the newest token stood: the key whose value should be copied."""
    xs, qs = [], []
    cos, sin = model.rope_tables(S, torch.arange(S.context))[model.FULL]
    for x in items:
        ids, n = x["ids"].tolist(), len(x["ids"])
        last: dict[int, int] = {}
        at, place = [], []
        for b in range(1, n):
            if b >= x["start"] and ids[b] in last:
                at.append(b)
                place.append(last[ids[b]] + 1)
            last[ids[b]] = b
        pairs = [(b, j) for b, j in zip(at, place, strict=True) if j < b and b + 1 < n and ids[j] == ids[b + 1]]
        if not pairs:
            continue
        b, j = torch.tensor(pairs).T
        h = (
            torch.cat([w["embed_tokens.weight"][x["ids"][b]] * model.EMBED_SCALE, x["hidden"][b - 1]], -1)
            @ d["pre_projection.weight"].T
        )
        xs.append(model.rms(h, d["model.layers.3.input_layernorm.weight"], DS.eps))
        qs.append(model.rotate(x["kv"][2][0][j], cos[j], -sin[j]))
        count -= len(b)
        if count < 0:
            break
    return torch.cat(xs), torch.cat(qs)


@torch.no_grad()
def warm_start(d: dict, w: dict, items: list[dict]) -> None:
    """d (drafter of `draft.init_weights`) changed in place; w target; items of `train_drafter.Texts`."""
    basis = d["post_projection.weight"].T  # (256, 384)
    embedded, before, after = gather(w, items)
    d["pre_projection.weight"].copy_(basis @ regress(torch.cat([embedded, before], 1), after))
    x, q = best_queries(w, d, items)
    wq = spectral(regress(x, q - q.mean(0)), 2.0)
    p, dim = "model.layers.3.", S.global_head_dim
    out = basis @ value_map(w, items)
    for h in range(DS.num_heads):
        d[p + "self_attn.q_proj.weight"][h * dim : (h + 1) * dim] = wq + 0.02 * torch.randn(
            wq.shape, generator=torch.Generator().manual_seed(h)
        )
        d[p + "self_attn.o_proj.weight"][:, h * dim : (h + 1) * dim] = spectral(out, 1.0)
    for name, value in d.items():
        if ".post_" in name:
            value.fill_(0.1)  # the random rest starts small
    d[p + "self_attn.q_norm.weight"].clamp_(min=0.5)
    d[p + "post_attention_layernorm.weight"].fill_(0.7)
