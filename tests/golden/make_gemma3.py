#!/usr/bin/env python
"""Make the parity goldens of Gemma 3: two tiny random targets and, from transformers, the numbers to agree with.

    python tests/golden/make_gemma3.py [OUT]        # needs torch and transformers 5.24; OUT is this folder

    g3-text   `gemma3_text`, layers S S F S S F (`sliding_window_pattern` 3, no layer_types), rotary bases by their
              older names, queries scaled by no power of two, final softcap 30, window 12, V 160
    g3        outer `gemma3` with a tiny vision tower, S S S S S F S (silent about kinds), linear rotary factor 8 in
              full layers, no softcap (the outer class of transformers ignores one), window 16, V 128; tensors
              under the names of released files, which transformers still writes

Both bf16; config.json in the released spelling, config-saved.json as transformers writes it. D is 64, whose root is
exact in bf16. Norm weights are stored less one and applied as 1 + w: uniform within 40 % of 1, the last norm's within
40 % of 1.6, so that logits have a standard deviation near 2.

Keys of NAME.npz as in make_goldens.py, without the draft's: {n}_ids, {n}_logits, {n}_hidden, {n}_next_ids,
{n}_next_logits, {n}_next_hidden for {n} = p7 and p45, and
p7_sliding_keys, p7_sliding_values, p7_full_keys, p7_full_values
              (S, Hkv, Dh) f32  what the last layer of that kind stores for the prompt; keys normed and rotated
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from golden_shapes import save_config, write_config
from make_goldens import NUM_NEXT, PROMPTS, VERSIONS, f32, load
from transformers import DynamicCache, Gemma3Config, Gemma3ForCausalLM, Gemma3ForConditionalGeneration, Gemma3TextConfig

TEXT = {
    "attention_bias": False, "attention_dropout": 0.0, "attn_logit_softcapping": None, "bos_token_id": 2,
    "cache_implementation": "hybrid", "eos_token_id": 1, "head_dim": 16, "hidden_activation": "gelu_pytorch_tanh",
    "hidden_size": 64, "initializer_range": 0.02, "intermediate_size": 48, "max_position_embeddings": 256,
    "model_type": "gemma3_text", "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0,
    "rms_norm_eps": 1e-6, "use_cache": True,
}  # fmt: skip
ALONE = TEXT | {
    "architectures": ["Gemma3ForCausalLM"], "final_logit_softcapping": 30.0, "num_hidden_layers": 6,
    "query_pre_attn_scalar": 24, "rope_local_base_freq": 10000, "rope_scaling": None, "rope_theta": 1000000,
    "sliding_window": 12, "sliding_window_pattern": 3, "torch_dtype": "bfloat16", "vocab_size": 160,
}  # fmt: skip
VISION = {
    "hidden_size": 8, "image_size": 28, "intermediate_size": 8, "model_type": "siglip_vision_model",
    "num_attention_heads": 1, "num_hidden_layers": 1, "patch_size": 14, "vision_use_head": False,
}  # fmt: skip
OUTER = {
    "architectures": ["Gemma3ForConditionalGeneration"], "boi_token_index": 125, "eoi_token_index": 126,
    "eos_token_id": [1, 106], "image_token_index": 127, "initializer_range": 0.02, "mm_tokens_per_image": 4,
    "model_type": "gemma3", "text_config": TEXT | {
        "final_logit_softcapping": None, "num_hidden_layers": 7, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "sliding_window": 16, "vocab_size": 128,
    }, "torch_dtype": "bfloat16", "vision_config": VISION,
}  # fmt: skip


@dataclass(frozen=True)
class Golden:
    config: dict
    model: type
    seed: int


GOLDENS = {
    "g3-text": Golden(ALONE, Gemma3ForCausalLM, 71),
    "g3": Golden(OUTER, Gemma3ForConditionalGeneration, 72),
}


def config_of(data: dict):
    """The config object of a released spelling."""
    rest = {name: value for name, value in data.items() if name != "model_type"}
    if data["model_type"] == "gemma3_text":
        return Gemma3TextConfig(**rest)
    return Gemma3Config(**rest | {"text_config": config_of(data["text_config"])})


def random_weight(name: str, shape: torch.Size, g: torch.Generator) -> torch.Tensor:
    if name.endswith("norm.weight"):
        centre = 1.6 if name.endswith("model.norm.weight") else 1.0
        return centre * (0.6 + 0.8 * torch.rand(shape, generator=g)) - 1.0
    std = 0.15 if name.endswith("embed_tokens.weight") else shape[-1] ** -0.5
    return std * torch.randn(shape, generator=g)


@torch.no_grad()
def write_model(out: Path, golden: Golden) -> None:
    """Config in both spellings, and random bf16 weights; those of a vision tower stay as the class makes them."""
    torch.manual_seed(golden.seed)
    config = config_of(golden.config)
    model = golden.model(config).to(torch.bfloat16)
    g = torch.Generator().manual_seed(golden.seed)
    for name, weight in sorted(model.named_parameters()):
        if "vision" not in name and "projector" not in name:
            weight.copy_(random_weight(name.replace("language_model.", "model."), weight.shape, g))
    model.save_pretrained(out)
    (out / "generation_config.json").unlink(missing_ok=True)
    save_config(out, config)
    write_config(out, golden.config)


def target_pass(target, ids: torch.Tensor, **kwargs):
    """Logits (T, V) and rows after the final norm (T, D)."""
    out = target(input_ids=ids[None], output_hidden_states=True, **kwargs)
    hidden, cap = out.hidden_states[-1][0], target.config.get_text_config().final_logit_softcapping
    raw = target.lm_head(hidden)
    assert torch.equal(raw if cap is None else cap * torch.tanh(raw / cap), out.logits[0])  # the head's input
    return out.logits[0], hidden


def prompt_goldens(target, length: int, seed: int) -> dict[str, np.ndarray]:
    """One prompt in one pass, then tokens one at a time through transformers' cache, checked against one pass."""
    text = target.config.get_text_config()
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, text.vocab_size - 3, (length + NUM_NEXT,), generator=g)
    ids[0], ids[length // 2] = 2, 0  # the padding id is an ordinary token
    whole = target_pass(target, ids, use_cache=False)
    cache = DynamicCache(config=text)
    logits, hidden = target_pass(target, ids[:length], cache=cache, use_cache=True)
    donors = {}
    for kind in ("sliding", "full"):
        layer = max(i for i, name in enumerate(text.layer_types) if name == f"{kind}_attention")
        stored = cache.layers[layer]
        donors |= {f"{kind}_keys": f32(stored.keys[0].transpose(0, 1)).copy()}
        donors |= {f"{kind}_values": f32(stored.values[0].transpose(0, 1)).copy()}
    steps = [target_pass(target, token[None], cache=cache, use_cache=True) for token in ids[length:]]
    next_logits, next_hidden = (torch.cat(part) for part in zip(*steps, strict=True))
    torch.testing.assert_close(torch.cat([logits, next_logits]), whole[0], rtol=1e-4, atol=1e-4)
    print(f"  {length} tokens: logits std {logits.std():.2f}, largest {logits.abs().max():.2f}")
    arrays = {
        "ids": ids[:length].int().numpy(), "logits": f32(logits), "hidden": f32(hidden),
        "next_ids": ids[length:].int().numpy(), "next_logits": f32(next_logits), "next_hidden": f32(next_hidden),
    }  # fmt: skip
    return {f"p{length}_{key}": value for key, value in (arrays | (donors if length == PROMPTS[0] else {})).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the parity goldens of Gemma 3.")
    parser.add_argument("out", type=Path, nargs="?", default=Path(__file__).parent)
    out = parser.parse_args().out
    print(VERSIONS)
    torch.set_num_threads(1)
    for name, golden in GOLDENS.items():
        shutil.rmtree(out / name, ignore_errors=True)
        (out / name).mkdir(parents=True)
        write_model(out / name, golden)
        for path in (out / name).glob("*.safetensors"):
            path.chmod(0o644)  # safetensors writes 0600
        target = load(golden.model, out / name)
        arrays = {"versions": np.array(VERSIONS)}
        with torch.no_grad():
            for length in PROMPTS:
                arrays |= prompt_goldens(target, length, golden.seed + length)
        np.savez_compressed(out / f"{name}.npz", **arrays)


if __name__ == "__main__":
    main()
