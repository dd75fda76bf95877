"""What the golden models are: sizes, configs in both spellings, tensors with random values. See make_goldens.py."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    Gemma4AssistantConfig,
    Gemma4Config,
    Gemma4TextConfig,
    Gemma4UnifiedAssistantConfig,
    Gemma4UnifiedConfig,
    Gemma4UnifiedTextConfig,
)

SLIDING, FULL = "sliding_attention", "full_attention"
ROPE = {
    FULL: {"partial_rotary_factor": 0.25, "rope_theta": 1000000.0, "rope_type": "proportional"},
    SLIDING: {"rope_theta": 10000.0, "rope_type": "default"},
}


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
    prompt_seeds: tuple[int, int]  # see make_goldens.py: chosen so that no choice is a near-tie
    hidden: int = 64
    per_layer: int = 16  # 0: no per-layer embeddings
    num_heads: int = 4
    draft_hidden: int = 32
    num_global_kv_heads: int | None = None  # None: as in sliding layers; else keys of full layers are their values
    num_experts: int = 0  # 0: no expert branch
    top_experts: int = 0
    expert_intermediate: int = 0
    text_type: str = "gemma4_text"

    @property
    def is_unified(self) -> bool:
        return self.text_type == "gemma4_unified_text"

    def width(self, kind: str) -> int:
        return self.head_dim if kind == SLIDING else self.global_head_dim

    def kv_heads(self, kind: str) -> int:
        return self.num_global_kv_heads if kind == FULL and self.num_global_kv_heads else self.num_kv_heads


E2B = Shape((SLIDING, SLIDING, FULL, SLIDING, FULL), 2, 256, 16, 32, 1, 96, True, 16, 64, 32, 4, (2, 151))
E4B = Shape((SLIDING,) * 5 + (FULL, SLIDING, FULL), 2, 192, 8, 24, 2, 32, False, 12, 64, 0, 0, (3064, 254))
G12B = Shape(
    (SLIDING, SLIDING, FULL, SLIDING, FULL), 0, 128, 8, 16, 2, 32, False, 16, 64, 0, 0, (132, 1385),
    per_layer=0, num_global_kv_heads=1, text_type="gemma4_unified_text",
)  # fmt: skip
G26B = Shape(
    (SLIDING, SLIDING, FULL), 0, 128, 8, 16, 4, 32, False, 16, 64, 0, 0, (504, 12176),
    per_layer=0, num_global_kv_heads=2, num_experts=8, top_experts=2, expert_intermediate=16,
)  # fmt: skip
G31B = Shape(
    (SLIDING, SLIDING, SLIDING, FULL), 0, 128, 8, 16, 4, 48, False, 12, 64, 0, 0, (89, 587),
    per_layer=0, num_heads=8, num_global_kv_heads=2,
)  # fmt: skip
LARGE = {"12b": G12B, "26b": G26B, "31b": G31B}
TEXT_ONLY = "31b"  # without an outer config
CLASSES = {
    "Gemma4": (Gemma4TextConfig, Gemma4Config, Gemma4AssistantConfig),
    "Gemma4Unified": (Gemma4UnifiedTextConfig, Gemma4UnifiedConfig, Gemma4UnifiedAssistantConfig),
}
DRAFT_TYPES = (SLIDING, SLIDING, SLIDING, FULL)
UNIFIED_LACKS = (
    "enable_moe_block", "moe_intermediate_size", "num_experts", "top_k_experts", "hidden_size_per_layer_input",
    "vocab_size_per_layer_input",
)  # fmt: skip


# ---- configs ---------------------------------------------------------------------------------------------------


def released_text(s: Shape, dtype: str) -> dict:
    """The text fields that target and drafter share, as released files spell them."""
    return {
        "attention_bias": False, "attention_dropout": 0.0, "attention_k_eq_v": s.num_global_kv_heads is not None,
        "bos_token_id": 2, "dtype": dtype,
        "enable_moe_block": False, "eos_token_id": 1, "global_head_dim": s.global_head_dim, "head_dim": s.head_dim,
        "hidden_activation": "gelu_pytorch_tanh", "initializer_range": 0.02, "max_position_embeddings": 256,
        "model_type": s.text_type, "moe_intermediate_size": None, "num_attention_heads": s.num_heads,
        "num_experts": None, "num_global_key_value_heads": s.num_global_kv_heads, "num_key_value_heads": s.num_kv_heads,
        "pad_token_id": 0, "rms_norm_eps": 1e-6, "rope_parameters": ROPE, "sliding_window": s.window,
        "tie_word_embeddings": True, "top_k_experts": None, "use_bidirectional_attention": None, "use_cache": True,
        "vocab_size": s.vocab,
    }  # fmt: skip


def target_text(s: Shape, dtype: str) -> dict:
    return _as_its_class(s, released_text(s, dtype) | {
        "final_logit_softcapping": 30.0, "hidden_size": s.hidden, "hidden_size_per_layer_input": s.per_layer,
        "intermediate_size": s.intermediate, "layer_types": list(s.layer_types),
        "num_hidden_layers": len(s.layer_types), "num_kv_shared_layers": s.num_shared,
        "use_double_wide_mlp": s.is_double_wide, "vocab_size_per_layer_input": s.vocab,
    } | _experts(s))  # fmt: skip


def drafter_text(s: Shape, dtype: str) -> dict:
    return _as_its_class(s, released_text(s, dtype) | {
        "final_logit_softcapping": None, "hidden_size": s.draft_hidden, "hidden_size_per_layer_input": 0,
        "intermediate_size": s.draft_intermediate, "layer_types": list(DRAFT_TYPES), "num_hidden_layers": 4,
        "num_kv_shared_layers": 4, "use_double_wide_mlp": False, "vocab_size_per_layer_input": 0,
    })  # fmt: skip


def _experts(s: Shape) -> dict:
    sizes = {"moe_intermediate_size": s.expert_intermediate, "num_experts": s.num_experts}
    return sizes | {"enable_moe_block": True, "top_k_experts": s.top_experts} if s.num_experts else {}


def _as_its_class(s: Shape, text: dict) -> dict:
    return {name: value for name, value in text.items() if not (s.is_unified and name in UNIFIED_LACKS)}


def released_drafter(s: Shape, dtype: str) -> dict:
    kind = "Gemma4Unified" if s.is_unified else "Gemma4"
    return {
        "architectures": [f"{kind}AssistantForCausalLM"], "backbone_hidden_size": s.hidden,
        "centroid_intermediate_top_k": s.top_clusters or 32, "dtype": dtype,
        "model_type": s.text_type.replace("_text", "_assistant"), "num_centroids": s.num_clusters or 2048,
        "text_config": drafter_text(s, dtype), "tie_word_embeddings": True,
        "use_ordered_embeddings": s.num_clusters > 0,
    }  # fmt: skip


def write_config(out: Path, config: dict) -> None:
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def write_configs(out: Path) -> None:
    """e2b pair by hand in the released spelling, e4b pair by `save_pretrained`."""
    write_config(out / "e2b", target_text(E2B, "bfloat16") | {"architectures": ["Gemma4ForCausalLM"]})
    write_config(out / "e2b-assistant", released_drafter(E2B, "float32"))
    text = Gemma4TextConfig(**target_text(E4B, "bfloat16"))
    outer = Gemma4Config(text_config=text, vision_config=None, audio_config=None, dtype="bfloat16")
    outer.architectures = ["Gemma4ForConditionalGeneration"]
    outer.save_pretrained(out / "e4b")
    text = Gemma4TextConfig(**drafter_text(E4B, "bfloat16"))
    drafter = Gemma4AssistantConfig(text_config=text, backbone_hidden_size=E4B.hidden, dtype="bfloat16")
    drafter.architectures = ["Gemma4AssistantForCausalLM"]
    drafter.save_pretrained(out / "e4b-assistant")
    for name, s in LARGE.items():
        write_both(out, name, s)


def write_both(out: Path, name: str, s: Shape) -> None:
    """A pair's configs in the released spelling, and as `save_pretrained` writes them in config-saved.json."""
    text = target_text(s, "bfloat16")
    family = "Gemma4Unified" if s.is_unified else "Gemma4"
    outer = {
        "architectures": [f"{family}ForConditionalGeneration"], "audio_config": None, "dtype": "bfloat16",
        "eos_token_id": [1, 106], "model_type": s.text_type.removesuffix("_text"), "text_config": text,
        "tie_word_embeddings": True, "vision_config": None,
    }  # fmt: skip
    alone = text | {"architectures": ["Gemma4ForCausalLM"]}
    drafter = released_drafter(s, "bfloat16")
    text_class, outer_class, drafter_class = CLASSES[family]
    write_config(out / name, alone if name == TEXT_ONLY else outer)
    write_config(out / f"{name}-assistant", drafter)
    saved = text_class(**alone) if name == TEXT_ONLY else outer_class(**_with_text(outer, text_class))
    save_config(out / name, saved)
    save_config(out / f"{name}-assistant", drafter_class(**_with_text(drafter, text_class)))


def _with_text(config: dict, text_class: type) -> dict:
    """Arguments for a config class: its text part as an object, without the name of the type."""
    rest = {name: value for name, value in config.items() if name != "model_type"}
    return rest | {"text_config": text_class(**config["text_config"])}


def save_config(out: Path, config) -> None:
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        shutil.copy(Path(folder) / "config.json", out / "config-saved.json")


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
            f"{p}self_attn.k_proj.weight": (s.kv_heads(kind) * d, hidden),
            f"{p}self_attn.k_norm.weight": (d,),
        }
    if has_kv and not (kind == FULL and s.num_global_kv_heads):
        shapes[f"{p}self_attn.v_proj.weight"] = (s.kv_heads(kind) * d, hidden)
    return shapes


def target_shapes(s: Shape, prefix: str, has_unused_kv: bool) -> dict[str, tuple[int, ...]]:
    num_layers = len(s.layer_types)
    shapes: dict[str, tuple[int, ...]] = {
        "embed_tokens.weight": (s.vocab, s.hidden),
        "norm.weight": (s.hidden,),
    }
    if s.per_layer:
        shapes |= {
            "embed_tokens_per_layer.weight": (s.vocab, num_layers * s.per_layer),
            "per_layer_model_projection.weight": (num_layers * s.per_layer, s.hidden),
            "per_layer_projection_norm.weight": (s.per_layer,),
        }
    for i, kind in enumerate(s.layer_types):
        is_shared = i >= num_layers - s.num_shared
        mlp = s.intermediate * (2 if is_shared and s.is_double_wide else 1)
        shapes |= layer_shapes(s, f"layers.{i}.", kind, s.hidden, mlp, has_unused_kv or not is_shared)
        if s.per_layer:
            shapes |= {
                f"layers.{i}.per_layer_input_gate.weight": (s.per_layer, s.hidden),
                f"layers.{i}.per_layer_projection.weight": (s.hidden, s.per_layer),
                f"layers.{i}.post_per_layer_input_norm.weight": (s.hidden,),
            }
        if s.num_experts:
            shapes |= expert_shapes(s, f"layers.{i}.")
    return {prefix + name: shape for name, shape in shapes.items()}


def expert_shapes(s: Shape, p: str) -> dict[str, tuple[int, ...]]:
    norms = ("post_feedforward_layernorm_1", "post_feedforward_layernorm_2", "pre_feedforward_layernorm_2")
    return {f"{p}{name}.weight": (s.hidden,) for name in norms} | {
        f"{p}router.proj.weight": (s.num_experts, s.hidden),
        f"{p}router.scale": (s.hidden,),
        f"{p}router.per_expert_scale": (s.num_experts,),
        f"{p}experts.gate_up_proj": (s.num_experts, 2 * s.expert_intermediate, s.hidden),
        f"{p}experts.down_proj": (s.num_experts, s.hidden, s.expert_intermediate),
    }


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
    elif name.endswith("router.proj.weight"):
        std = 2.0  # its input is scaled by D^-1/2: scores get a standard deviation near 2
    else:
        std = shape[-1] ** -0.5
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
    for seed, (name, s) in zip((121, 289, 311), LARGE.items(), strict=True):
        prefix = "model." if name == TEXT_ONLY else "model.language_model."
        tensors = random_weights(target_shapes(s, prefix, has_unused_kv=False), seed, torch.bfloat16)
        if name != TEXT_ONLY:
            other = "vision_embedder.patch_dense" if s.is_unified else "embed_vision.embedding_projection"
            tensors[f"model.{other}.weight"] = torch.full((4, 6), 0.5, dtype=torch.bfloat16)
        save_file(tensors, out / name / "model.safetensors", metadata=pt)
        tensors = random_weights(drafter_shapes(s), seed + 1, torch.bfloat16, is_drafter=True)
        save_file(tensors, out / f"{name}-assistant" / "model.safetensors", metadata=pt)
