"""Make the parity goldens: tiny random Gemma 4 pairs and what transformers computes with them in f32.

    python tests/golden/make_goldens.py            writes beside this file
    python tests/golden/make_goldens.py OTHER      writes elsewhere, to compare with what is stored

Needs torch and transformers, nothing of ours. Fixed seeds and one thread: two runs on one machine give equal files.
Written against torch 2.13 (CPU) and transformers 5.24; the versions used stand in each npz. The goldens come from the
saved folders, read back by `from_pretrained`, so stored weights and arrays belong together.

e2b            `gemma4_text`, layers S S F + shared S F (donors 1 and 2), one kv head, PLE, double-wide MLP,
               window 16, V 256; bf16, config in the released spelling
e2b-assistant  centroid head, 32 clusters of 8 tokens, top 4; f32, released spelling
e4b            outer `gemma4`, layers S S S S S F + shared S F (donors 4 and 5), two kv heads, PLE, window 12, V 192;
               bf16, config as transformers writes it, two shards
e4b-assistant  dense head (the default num_centroids that the class assumes mean nothing); bf16, as transformers writes
12b            outer `gemma4_unified`, S S F S F, nothing shared, no PLE (its class has no such fields), full layers
               with one kv head whose keys are the values; window 16
26b            outer `gemma4`, S S F, 8 experts of which a row passes 2, keys used as values; window 16
31b            `gemma4_text`, S S S F, 8 heads over 4 and 2 kv heads, keys used as values; window 12
12b-, 26b-, 31b-assistant  dense heads, donors with several kv heads; `gemma4_unified_assistant` for 12b
               these six: V 128, bf16; config.json in the released spelling, config-saved.json as transformers writes it

The e4b shards also hold what a loader has to skip: k_proj, v_proj, k_norm (as in released files; v_norm has no
weight) of the shared layers, and one tensor of a vision tower; 12b and 26b a tensor of another modality. D is 64 and
P 16, whose square roots are exact in bf16, so the rounding of embedding scales (numerics.md) cannot matter. Norm
weights are random around 1, with two exceptions: q_norm and k_norm around 0.5, so that the softmax is not one-hot, and
the target's last norm around 1.6, so that logits have a standard deviation near 2. Id 0 (padding) is in every prompt
and is an ordinary token. Seeds of prompts were searched for, so that no argmax and no choice of clusters is a
near-tie: the best token leads by at least 0.06 in every target row and by 0.18 in every draft step, the last chosen
cluster by 0.06. In 26b the best token leads by 0.05, and the score of the last chosen expert by 0.05 in every layer
and row (the seed of its weights was chosen for that: the first token is always the same).

Keys of NAME.npz. {n} is `p7` (prompt of 7 tokens, inside the window) or `p45` (longer than it):

versions             () str          versions of torch, transformers, numpy
{n}_ids              (T,) i32        prompt
{n}_logits           (T, V) f32      target logits of every position, softcapped; one pass without a cache
{n}_hidden           (T, D) f32      target rows after the final norm
{n}_next_ids         (6,) i32        given tokens fed after the prompt, one at a time, through transformers' KV cache
{n}_next_logits      (6, V) f32      target logits of those six rows (positions T … T+5), softcapped
{n}_next_hidden      (6, D) f32      their rows after the final norm
{n}_draft_first      () i32          newest token when drafting starts: argmax of {n}_logits[-1]; position T, not cached
{n}_draft_tokens     (4,) i32        argmax of each step; step i reads token i-1 (step 0: draft_first)
{n}_draft_logits     (4, V) f32      drafter logits, no softcap; centroid head: -inf for ids outside the chosen clusters
{n}_draft_hidden     (4, D) f32      post_projection output of each step, the hidden row that the next step reads
{n}_draft_clusters   (4, 4) i32      e2b only: chosen clusters, best first
{n}_draft_fill       (4,) f32        e2b only: what transformers writes instead of -inf: smallest candidate logit - 1
p7_sliding_keys, p7_sliding_values, p7_full_keys, p7_full_values
                     (S, Hkv, Dh) f32  what the target's donor of that kind stores for the prompt; keys normed and
                                     rotated, values normed

The round is the clean first one of specification 3.2: step 0 reads {n}_hidden[-1], every step has position T, donors
hold the committed prefix only (full: k < T; sliding: T - window < k < T). The prefix is cut before the drafter
sees it; transformers itself would hand the sliding layers up to two older keys (specification 4.5).
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
import torch
import transformers
from golden_shapes import E2B, E4B, FULL, LARGE, SLIDING, Shape, write_configs, write_weights
from transformers import (
    DynamicCache,
    Gemma4AssistantForCausalLM,
    Gemma4ForCausalLM,
    Gemma4ForConditionalGeneration,
    Gemma4UnifiedAssistantForCausalLM,
    Gemma4UnifiedForConditionalGeneration,
)

VERSIONS = f"torch {torch.__version__}, transformers {transformers.__version__}, numpy {np.__version__}"
PROMPTS = (7, 45)
NUM_NEXT = 6
NUM_DRAFT = 4
SHAPES = {"e2b": E2B, "e4b": E4B} | LARGE
TARGETS = {
    "e2b": Gemma4ForCausalLM,
    "e4b": Gemma4ForConditionalGeneration,
    "12b": Gemma4UnifiedForConditionalGeneration,
    "26b": Gemma4ForConditionalGeneration,
    "31b": Gemma4ForCausalLM,
}


# ---- goldens ---------------------------------------------------------------------------------------------------


def load(kind: type, folder: Path):
    """A model from its folder in f32, eager attention; fails if a tensor is missing or does not fit."""
    model, info = kind.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["mismatched_keys"], info
    print(f"{folder.name}: {model.num_parameters()} parameters; left out by transformers: {info['unexpected_keys']}")
    return model.eval()


def f32(x: torch.Tensor) -> np.ndarray:
    return np.ascontiguousarray(x.detach().numpy().astype(np.float32))


def target_pass(target, ids: torch.Tensor, **kwargs):
    """Logits (T, V), rows after the final norm (T, D) and the whole output."""
    out = target(input_ids=ids[None], output_hidden_states=True, return_shared_kv_states=True, **kwargs)
    hidden = out.hidden_states[-1][0]
    raw = target.lm_head(hidden)
    assert torch.equal(30 * torch.tanh(raw / 30), out.logits[0])  # these rows are the head's input
    return out.logits[0], hidden, out


def next_steps(target, ids: torch.Tensor, following: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and hidden rows of `following`, one token per pass; checked against one pass without a cache."""
    cache = DynamicCache(config=target.config.get_text_config())
    target_pass(target, ids, cache=cache, use_cache=True)
    rows = [target_pass(target, token[None], cache=cache, use_cache=True)[:2] for token in following]
    logits, hidden = (torch.cat(part) for part in zip(*rows, strict=True))
    whole = target_pass(target, torch.cat([ids, following]), use_cache=False)[0][len(ids) :]
    torch.testing.assert_close(logits, whole, rtol=1e-4, atol=1e-4)
    return logits, hidden


def draft_round(s: Shape, target, drafter, first: torch.Tensor, hidden: torch.Tensor, donors: dict) -> dict:
    """The clean first round; donors {layer type: (keys, values)}, each (1, Hkv, T, Dh)."""
    n_kv = donors[FULL][0].shape[2]
    begin = max(0, n_kv - s.window + 1)
    visible = donors | {SLIDING: tuple(x[:, :, begin:] for x in donors[SLIDING])}
    token, state = first.view(1, 1), hidden.view(1, 1, -1)
    tokens, logits, states, clusters, fills = [], [], [], [], []
    for _ in range(NUM_DRAFT):
        z: list[torch.Tensor] = []
        hook = drafter.model.register_forward_hook(lambda _m, _i, o, z=z: z.append(o.last_hidden_state[0, 0]))
        embedded = target.get_input_embeddings()(token)
        out = drafter(
            inputs_embeds=torch.cat([embedded, state], -1),
            position_ids=torch.tensor([[n_kv]]),
            shared_kv_states=visible,
        )
        hook.remove()
        row = out.logits[0, 0].clone()
        if s.num_clusters:
            head = drafter.masked_embedding
            chosen = torch.topk(head.centroids(z[0]), s.top_clusters).indices
            is_candidate = torch.zeros(s.vocab, dtype=torch.bool)
            is_candidate[head.token_ordering.view(s.num_clusters, -1)[chosen].flatten()] = True
            fills.append(row[is_candidate].min() - 1)
            assert torch.all(row[~is_candidate] == fills[-1])
            row[~is_candidate] = -torch.inf
            clusters.append(chosen)
        token, state = row.argmax().view(1, 1), out.last_hidden_state
        tokens.append(token.view(1))
        logits.append(row[None])
        states.append(state[0])
    arrays = {
        "tokens": torch.cat(tokens).int().numpy(),
        "logits": f32(torch.cat(logits)),
        "hidden": f32(torch.cat(states)),
    }
    if s.num_clusters:
        arrays |= {"clusters": torch.stack(clusters).int().numpy(), "fill": f32(torch.stack(fills))}
    return {f"draft_{key}": value for key, value in arrays.items()}


def prompt(s: Shape, length: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids of a prompt, with bos first and a padding id inside, and the ids fed after it."""
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, s.vocab, (length,), generator=g)
    ids[0], ids[length // 2] = 2, 0
    return ids, torch.randint(3, s.vocab, (NUM_NEXT,), generator=g)


def prompt_goldens(s: Shape, target, drafter, length: int, seed: int) -> dict[str, np.ndarray]:
    ids, following = prompt(s, length, seed)
    logits, hidden, out = target_pass(target, ids, use_cache=False)
    donors = {kind: out.shared_kv_states[kind] for kind in (SLIDING, FULL)}
    assert all(keys.shape == (1, s.kv_heads(kind), length, s.width(kind)) for kind, (keys, _) in donors.items())
    next_logits, next_hidden = next_steps(target, ids, following)
    first = logits[-1].argmax()
    arrays = {
        "ids": ids.int().numpy(), "logits": f32(logits), "hidden": f32(hidden),
        "next_ids": following.int().numpy(), "next_logits": f32(next_logits), "next_hidden": f32(next_hidden),
        "draft_first": first.int().numpy(),
    }  # fmt: skip
    arrays |= draft_round(s, target, drafter, first, hidden[-1], donors)
    if length == PROMPTS[0]:
        for kind, name in ((SLIDING, "sliding"), (FULL, "full")):
            for which, x in zip(("keys", "values"), donors[kind], strict=True):
                arrays[f"{name}_{which}"] = f32(x[0].transpose(0, 1))
    print(f"  {length} tokens: logits std {logits.std():.2f}, largest {logits.abs().max():.2f},", end=" ")
    print(f"newest {int(first)}, drafted {arrays['draft_tokens'].tolist()}")
    return {f"p{length}_{key}": value for key, value in arrays.items()}


def load_pair(folder: Path, name: str):
    """Target and drafter of a golden pair."""
    drafter = Gemma4UnifiedAssistantForCausalLM if SHAPES[name].is_unified else Gemma4AssistantForCausalLM
    return load(TARGETS[name], folder / name), load(drafter, folder / f"{name}-assistant")


@torch.no_grad()
def write_goldens(out: Path, name: str) -> None:
    target, drafter = load_pair(out, name)
    arrays = {"versions": np.array(VERSIONS)}
    for length, seed in zip(PROMPTS, SHAPES[name].prompt_seeds, strict=True):
        arrays |= prompt_goldens(SHAPES[name], target, drafter, length, seed)
    np.savez_compressed(out / f"{name}.npz", **arrays)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the parity goldens.")
    parser.add_argument("out", type=Path, nargs="?", default=Path(__file__).parent)
    out = parser.parse_args().out
    print(VERSIONS)
    torch.set_num_threads(1)
    for name in SHAPES:
        for folder in (out / name, out / f"{name}-assistant"):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
    write_configs(out)
    write_weights(out)
    for path in out.glob("*/*.safetensors"):
        path.chmod(0o644)  # safetensors writes 0600
    for name in SHAPES:
        write_goldens(out, name)


if __name__ == "__main__":
    main()
