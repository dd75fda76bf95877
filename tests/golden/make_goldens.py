"""Make the parity goldens: two tiny random Gemma 4 pairs and what transformers computes with them in f32.

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

The e4b shards also hold what a loader has to skip: k_proj, v_proj, k_norm (as in released files; v_norm has no
weight) of the shared layers, and one tensor of a vision tower. D is 64 and P 16, whose square roots are exact in bf16,
so the rounding of embedding scales (numerics.md) cannot matter. Norm weights are random around 1, with two
exceptions: q_norm and k_norm around 0.5, so that the softmax is not one-hot, and the target's last norm around 1.6,
so that logits have a standard deviation near 2. Id 0 (padding) is in every prompt and is an ordinary token. Seeds of
prompts were searched for, so that no argmax and no choice of clusters is a near-tie: the best token leads by at
least 0.06 in every target row and by 0.18 in every draft step, the last chosen cluster by 0.06.

Keys of e2b.npz and e4b.npz. {n} is `p7` (prompt of 7 tokens, inside the window) or `p45` (longer than it):

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
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_file
from transformers import (
    DynamicCache,
    Gemma4AssistantConfig,
    Gemma4AssistantForCausalLM,
    Gemma4Config,
    Gemma4ForCausalLM,
    Gemma4ForConditionalGeneration,
    Gemma4TextConfig,
)

SLIDING, FULL = "sliding_attention", "full_attention"
ROPE = {
    FULL: {"partial_rotary_factor": 0.25, "rope_theta": 1000000.0, "rope_type": "proportional"},
    SLIDING: {"rope_theta": 10000.0, "rope_type": "default"},
}
VERSIONS = f"torch {torch.__version__}, transformers {transformers.__version__}, numpy {np.__version__}"
PROMPTS = (7, 45)
NUM_NEXT = 6
NUM_DRAFT = 4


@dataclass(frozen=True)
class Shape:
    """Sizes of a pair; `draft_*` are the drafter's own, everything else it takes from the target."""

    layer_types: tuple[str, ...]
    num_shared: int
    vocab: int
    head_dim: int
    global_head_dim: int
    num_kv_heads: int
    intermediate: int
    is_double_wide: bool
    window: int
    draft_intermediate: int
    num_clusters: int  # 0: dense head
    top_clusters: int
    prompt_seeds: tuple[int, int]  # see module docstring: chosen so that no choice is a near-tie
    hidden: int = 64
    per_layer: int = 16
    num_heads: int = 4
    draft_hidden: int = 32

    def width(self, kind: str) -> int:
        return self.head_dim if kind == SLIDING else self.global_head_dim


E2B = Shape((SLIDING, SLIDING, FULL, SLIDING, FULL), 2, 256, 16, 32, 1, 96, True, 16, 64, 32, 4, (2, 151))
E4B = Shape((SLIDING,) * 5 + (FULL, SLIDING, FULL), 2, 192, 8, 24, 2, 32, False, 12, 64, 0, 0, (3064, 254))
DRAFT_TYPES = (SLIDING, SLIDING, SLIDING, FULL)


# ---- configs ---------------------------------------------------------------------------------------------------


def released_text(s: Shape, dtype: str) -> dict:
    """The text fields that target and drafter share, as released files spell them."""
    return {
        "attention_bias": False, "attention_dropout": 0.0, "attention_k_eq_v": False, "bos_token_id": 2, "dtype": dtype,
        "enable_moe_block": False, "eos_token_id": 1, "global_head_dim": s.global_head_dim, "head_dim": s.head_dim,
        "hidden_activation": "gelu_pytorch_tanh", "initializer_range": 0.02, "max_position_embeddings": 256,
        "model_type": "gemma4_text", "moe_intermediate_size": None, "num_attention_heads": s.num_heads,
        "num_experts": None, "num_global_key_value_heads": None, "num_key_value_heads": s.num_kv_heads,
        "pad_token_id": 0, "rms_norm_eps": 1e-6, "rope_parameters": ROPE, "sliding_window": s.window,
        "tie_word_embeddings": True, "top_k_experts": None, "use_bidirectional_attention": None, "use_cache": True,
        "vocab_size": s.vocab,
    }  # fmt: skip


def target_text(s: Shape, dtype: str) -> dict:
    return released_text(s, dtype) | {
        "final_logit_softcapping": 30.0, "hidden_size": s.hidden, "hidden_size_per_layer_input": s.per_layer,
        "intermediate_size": s.intermediate, "layer_types": list(s.layer_types),
        "num_hidden_layers": len(s.layer_types), "num_kv_shared_layers": s.num_shared,
        "use_double_wide_mlp": s.is_double_wide, "vocab_size_per_layer_input": s.vocab,
    }  # fmt: skip


def drafter_text(s: Shape, dtype: str) -> dict:
    return released_text(s, dtype) | {
        "final_logit_softcapping": None, "hidden_size": s.draft_hidden, "hidden_size_per_layer_input": 0,
        "intermediate_size": s.draft_intermediate, "layer_types": list(DRAFT_TYPES), "num_hidden_layers": 4,
        "num_kv_shared_layers": 4, "use_double_wide_mlp": False, "vocab_size_per_layer_input": 0,
    }  # fmt: skip


def write_config(out: Path, config: dict) -> None:
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def write_configs(out: Path) -> None:
    """e2b pair by hand in the released spelling, e4b pair by `save_pretrained`."""
    write_config(out / "e2b", target_text(E2B, "bfloat16") | {"architectures": ["Gemma4ForCausalLM"]})
    write_config(out / "e2b-assistant", {
        "architectures": ["Gemma4AssistantForCausalLM"], "backbone_hidden_size": E2B.hidden,
        "centroid_intermediate_top_k": E2B.top_clusters, "dtype": "float32", "model_type": "gemma4_assistant",
        "num_centroids": E2B.num_clusters, "text_config": drafter_text(E2B, "float32"), "tie_word_embeddings": True,
        "use_ordered_embeddings": True,
    })  # fmt: skip
    text = Gemma4TextConfig(**target_text(E4B, "bfloat16"))
    outer = Gemma4Config(text_config=text, vision_config=None, audio_config=None, dtype="bfloat16")
    outer.architectures = ["Gemma4ForConditionalGeneration"]
    outer.save_pretrained(out / "e4b")
    text = Gemma4TextConfig(**drafter_text(E4B, "bfloat16"))
    drafter = Gemma4AssistantConfig(text_config=text, backbone_hidden_size=E4B.hidden, dtype="bfloat16")
    drafter.architectures = ["Gemma4AssistantForCausalLM"]
    drafter.save_pretrained(out / "e4b-assistant")


# ---- weights ---------------------------------------------------------------------------------------------------


def layer_shapes(s: Shape, p: str, kind: str, hidden: int, mlp: int, has_kv: bool) -> dict[str, tuple[int, ...]]:
    """Tensors of one decoder layer without its per-layer embedding."""
    d = s.width(kind)
    norms = ("input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm")
    shapes: dict[str, tuple[int, ...]] = {f"{p}{name}.weight": (hidden,) for name in norms}
    shapes |= {
        f"{p}self_attn.q_proj.weight": (s.num_heads * d, hidden),
        f"{p}self_attn.q_norm.weight": (d,),
        f"{p}self_attn.o_proj.weight": (hidden, s.num_heads * d),
        f"{p}mlp.gate_proj.weight": (mlp, hidden),
        f"{p}mlp.up_proj.weight": (mlp, hidden),
        f"{p}mlp.down_proj.weight": (hidden, mlp),
        f"{p}layer_scalar": (1,),
    }
    if has_kv:
        shapes |= {
            f"{p}self_attn.k_proj.weight": (s.num_kv_heads * d, hidden),
            f"{p}self_attn.k_norm.weight": (d,),
            f"{p}self_attn.v_proj.weight": (s.num_kv_heads * d, hidden),
        }
    return shapes


def target_shapes(s: Shape, prefix: str, has_unused_kv: bool) -> dict[str, tuple[int, ...]]:
    num_layers = len(s.layer_types)
    shapes: dict[str, tuple[int, ...]] = {
        "embed_tokens.weight": (s.vocab, s.hidden),
        "embed_tokens_per_layer.weight": (s.vocab, num_layers * s.per_layer),
        "per_layer_model_projection.weight": (num_layers * s.per_layer, s.hidden),
        "per_layer_projection_norm.weight": (s.per_layer,),
        "norm.weight": (s.hidden,),
    }
    for i, kind in enumerate(s.layer_types):
        is_shared = i >= num_layers - s.num_shared
        mlp = s.intermediate * (2 if is_shared and s.is_double_wide else 1)
        shapes |= layer_shapes(s, f"layers.{i}.", kind, s.hidden, mlp, has_unused_kv or not is_shared)
        shapes |= {
            f"layers.{i}.per_layer_input_gate.weight": (s.per_layer, s.hidden),
            f"layers.{i}.per_layer_projection.weight": (s.hidden, s.per_layer),
            f"layers.{i}.post_per_layer_input_norm.weight": (s.hidden,),
        }
    return {prefix + name: shape for name, shape in shapes.items()}


def drafter_shapes(s: Shape) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (s.vocab, s.draft_hidden),
        "model.norm.weight": (s.draft_hidden,),
        "pre_projection.weight": (s.draft_hidden, 2 * s.hidden),
        "post_projection.weight": (s.hidden, s.draft_hidden),
    }
    for i, kind in enumerate(DRAFT_TYPES):
        shapes |= layer_shapes(s, f"model.layers.{i}.", kind, s.draft_hidden, s.draft_intermediate, has_kv=False)
    if s.num_clusters:
        shapes["masked_embedding.centroids.weight"] = (s.num_clusters, s.draft_hidden)
    return shapes


def random_weight(name: str, shape: tuple[int, ...], g: torch.Generator, is_drafter: bool) -> torch.Tensor:
    """One f32 tensor; vectors uniform within 40 % of their centre, matrices normal."""
    if len(shape) == 1:
        centre = 1.0
        if name.endswith(("q_norm.weight", "k_norm.weight")):
            centre = 0.5
        elif name.endswith(".norm.weight") and not is_drafter:
            centre = 1.6
        return centre * (0.6 + 0.8 * torch.rand(shape, generator=g))
    if name.endswith("embed_tokens_per_layer.weight"):
        std = 0.25  # times sqrt(P) = 4: as large as the normed context part
    elif name.endswith("embed_tokens.weight"):
        std = 0.35 if is_drafter else 0.15
    elif name.endswith("post_projection.weight"):
        std = 1.6 * shape[1] ** -0.5  # as large as the target's hidden rows
    else:
        std = shape[1] ** -0.5
    return std * torch.randn(shape, generator=g)


def random_weights(shapes: dict, seed: int, dtype: torch.dtype, is_drafter: bool = False) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {name: random_weight(name, shapes[name], g, is_drafter).to(dtype) for name in sorted(shapes)}


def write_sharded(out: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Two shards, split in the middle of the sorted names, and their index."""
    names = sorted(tensors)
    half = len(names) // 2
    weight_map = {}
    for part, own in enumerate((names[:half], names[half:]), 1):
        file = f"model-{part:05}-of-00002.safetensors"
        save_file({n: tensors[n] for n in own}, out / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(own, file)
    size = sum(t.numel() * t.element_size() for t in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=0) + "\n")


def write_weights(out: Path) -> None:
    pt = {"format": "pt"}
    tensors = random_weights(target_shapes(E2B, "model.", has_unused_kv=False), 21, torch.bfloat16)
    save_file(tensors, out / "e2b" / "model.safetensors", metadata=pt)
    tensors = random_weights(drafter_shapes(E2B), 22, torch.float32, is_drafter=True)
    order = torch.randperm(E2B.vocab, generator=torch.Generator().manual_seed(23))  # row-major (cluster, member)
    tensors["masked_embedding.token_ordering"] = order
    save_file(tensors, out / "e2b-assistant" / "model.safetensors", metadata=pt)
    tensors = random_weights(target_shapes(E4B, "model.language_model.", has_unused_kv=True), 41, torch.bfloat16)
    tensors["model.vision_tower.patch_embedder.input_proj.weight"] = torch.full((4, 6), 0.5, dtype=torch.bfloat16)
    write_sharded(out / "e4b", tensors)
    tensors = random_weights(drafter_shapes(E4B), 42, torch.bfloat16, is_drafter=True)
    save_file(tensors, out / "e4b-assistant" / "model.safetensors", metadata=pt)


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
    assert all(keys.shape == (1, s.num_kv_heads, length, s.width(kind)) for kind, (keys, _) in donors.items())
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


@torch.no_grad()
def write_goldens(out: Path, name: str, s: Shape, kind: type) -> None:
    target = load(kind, out / name)
    drafter = load(Gemma4AssistantForCausalLM, out / f"{name}-assistant")
    arrays = {"versions": np.array(VERSIONS)}
    for length, seed in zip(PROMPTS, s.prompt_seeds, strict=True):
        arrays |= prompt_goldens(s, target, drafter, length, seed)
    np.savez_compressed(out / f"{name}.npz", **arrays)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the parity goldens.")
    parser.add_argument("out", type=Path, nargs="?", default=Path(__file__).parent)
    out = parser.parse_args().out
    print(VERSIONS)
    torch.set_num_threads(1)
    for name in ("e2b", "e2b-assistant", "e4b", "e4b-assistant"):
        shutil.rmtree(out / name, ignore_errors=True)
        (out / name).mkdir(parents=True)
    write_configs(out)
    write_weights(out)
    for path in out.glob("*/*.safetensors"):
        path.chmod(0o644)  # safetensors writes 0600
    write_goldens(out, "e2b", E2B, Gemma4ForCausalLM)
    write_goldens(out, "e4b", E4B, Gemma4ForConditionalGeneration)


if __name__ == "__main__":
    main()
