"""Write the pair as Hugging Face folders: released names, bf16 safetensors, configs in the released spelling."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import drafter as draft
import model
import torch
from safetensors.torch import save_file

ROPE = {
    model.FULL: {"partial_rotary_factor": 0.25, "rope_theta": 1000000.0, "rope_type": "proportional"},
    model.SLIDING: {"rope_theta": 10000.0, "rope_type": "default"},
}


def common(s) -> dict:
    """Fields that the target's and the drafter's text configs share."""
    return {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attention_k_eq_v": False,
        "bos_token_id": 2,
        "dtype": "bfloat16",
        "enable_moe_block": False,
        "eos_token_id": 1,
        "global_head_dim": s.global_head_dim,
        "head_dim": s.head_dim,
        "hidden_activation": "gelu_pytorch_tanh",
        "hidden_size": s.hidden,
        "initializer_range": 0.02,
        "intermediate_size": s.intermediate,
        "layer_types": list(s.layer_types),
        "max_position_embeddings": 2048,
        "model_type": "gemma4_text",
        "moe_intermediate_size": None,
        "num_attention_heads": s.num_heads,
        "num_experts": None,
        "num_global_key_value_heads": None,
        "num_hidden_layers": len(s.layer_types),
        "num_key_value_heads": 1,
        "pad_token_id": 0,
        "rms_norm_eps": s.eps,
        "rope_parameters": ROPE,
        "sliding_window": s.window,
        "tie_word_embeddings": True,
        "top_k_experts": None,
        "use_bidirectional_attention": None,
        "use_cache": True,
        "vocab_size": s.vocab,
    }


def target_config(s: model.Shape) -> dict:
    return common(s) | {
        "architectures": ["Gemma4ForCausalLM"],
        "final_logit_softcapping": s.softcap,
        "hidden_size_per_layer_input": s.per_layer,
        "num_kv_shared_layers": s.num_shared,
        "use_double_wide_mlp": True,
        "vocab_size_per_layer_input": s.vocab,
    }


def drafter_config(s: draft.DraftShape) -> dict:
    text = common(s) | {
        "final_logit_softcapping": None,
        "hidden_size_per_layer_input": 0,
        "num_kv_shared_layers": len(s.layer_types),
        "use_double_wide_mlp": False,
        "vocab_size_per_layer_input": 0,
    }
    return {
        "architectures": ["Gemma4AssistantForCausalLM"],
        "backbone_hidden_size": s.backbone,
        "centroid_intermediate_top_k": s.top_k,
        "dtype": "bfloat16",
        "model_type": "gemma4_assistant",
        "num_centroids": s.num_centroids,
        "text_config": text,
        "tie_word_embeddings": True,
        "use_ordered_embeddings": True,
    }


def write_folder(
    out: Path, config: dict, generation: dict, tensors: dict[str, torch.Tensor], extra: list[Path]
) -> None:
    """One Hugging Face folder, made beside its final name and renamed."""
    tmp = out.with_name(out.name + ".tmp")
    shutil.rmtree(tmp, ignore_errors=True)
    tmp.mkdir(parents=True)
    (tmp / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (tmp / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    save_file(tensors, tmp / "model.safetensors", metadata={"format": "pt"})
    for path in extra:
        shutil.copy(path, tmp / path.name)
    if out.exists():
        old = out.with_name(out.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        out.rename(old)
        tmp.rename(out)
        shutil.rmtree(old)
    else:
        tmp.rename(out)


def half(x: torch.Tensor) -> torch.Tensor:
    return x.detach().to(torch.bfloat16).contiguous() if x.is_floating_point() else x.contiguous()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, help="work folder with tok/ and target.pt (and drafter.pt)")
    parser.add_argument("out", type=Path, help="gets target/ and drafter/")
    parser.add_argument(
        "--random-drafter", action="store_true", help="a drafter of the final shapes with fresh weights"
    )
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    tokenizer = [args.work / "tok" / n for n in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")]
    sampling = {"do_sample": True, "temperature": 1.0, "top_k": 64, "top_p": 0.95, "pad_token_id": 0, "bos_token_id": 2}
    w = torch.load(args.work / "target.pt")["weights"]
    tensors = {f"model.{n}": half(x) for n, x in w.items()}
    write_folder(
        args.out / "target", target_config(model.TARGET), sampling | {"eos_token_id": [1, 106]}, tensors, tokenizer
    )
    if args.random_drafter:
        d = draft.init_weights(draft.DRAFTER, args.seed, w)
    else:
        d = torch.load(args.work / "drafter.pt")["weights"]
    generation = sampling | {
        "eos_token_id": 1,
        "is_assistant": True,
        "num_assistant_tokens": 6,
        "num_assistant_tokens_schedule": "constant",
    }
    write_folder(
        args.out / "drafter", drafter_config(draft.DRAFTER), generation, {n: half(x) for n, x in d.items()}, []
    )


if __name__ == "__main__":
    main()
