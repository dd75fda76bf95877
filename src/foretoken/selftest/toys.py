"""Tiny models with random weights, made in memory: the kinds of models that the embedded pair is not.

Small enough that a pass takes a millisecond, so that even the scalar kernels write thousands of tokens. Their text
means nothing, but every bit of it depends on the kernels, the cache and the drafts, as that of a real model does.
Embeddings are small beside what the layers add, or the tied head would repeat the newest token for ever.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from foretoken import config as configs
from foretoken.api import DrafterState, Model
from foretoken.drafters.mtp import MtpDrafter
from foretoken.models.gemma4 import Gemma4
from foretoken.models.gemma4_assistant import Assistant
from foretoken.ops import native
from foretoken.places import ASSETS
from foretoken.tokenizer import Tokenizer
from foretoken.weights.gemma4 import Part, assemble, embed_scale, plan

SLIDING, FULL = "sliding_attention", "full_attention"
TEXT: dict[str, Any] = {  # what targets and drafters share
    "hidden_activation": "gelu_pytorch_tanh", "head_dim": 16, "global_head_dim": 32, "num_attention_heads": 4,
    "num_key_value_heads": 2, "num_global_key_value_heads": 1, "attention_k_eq_v": True, "attention_bias": False,
    "max_position_embeddings": 2048, "sliding_window": 48, "vocab_size": 256, "tie_word_embeddings": True,
    "rms_norm_eps": 1e-6, "rope_parameters": {
        FULL: {"partial_rotary_factor": 0.25, "rope_theta": 1000000.0, "rope_type": "proportional"},
        SLIDING: {"rope_theta": 10000.0, "rope_type": "default"},
    },
}  # fmt: skip
TARGET = {
    "hidden_size": 64, "intermediate_size": 48, "layer_types": [SLIDING, SLIDING, FULL], "num_hidden_layers": 3,
    "final_logit_softcapping": 30.0,
}  # fmt: skip
# As in 26B-A4B: every layer has an MLP and experts, full layers few heads whose keys are their values.
EXPERTS: dict[str, Any] = {
    "hidden_size_per_layer_input": 0, "enable_moe_block": True, "num_experts": 8, "top_k_experts": 2,
    "moe_intermediate_size": 16,
}  # fmt: skip
DRAFTER = {
    "hidden_size": 32, "intermediate_size": 64, "layer_types": [SLIDING, FULL], "num_hidden_layers": 2,
    "num_kv_shared_layers": 2, "hidden_size_per_layer_input": 0,
}  # fmt: skip
ONE_WIDTH: dict[str, Any] = {  # heads as in Gemma 3: alike in both kinds of layer, all of them rotated
    "global_head_dim": 16, "num_global_key_value_heads": None, "attention_k_eq_v": False, "rope_parameters": {
        FULL: {"factor": 8.0, "rope_theta": 1000000.0, "rope_type": "linear"},
        SLIDING: {"rope_theta": 10000.0, "rope_type": "default"},
    },
}  # fmt: skip
GEMMA3: dict[str, Any] = {  # a sliding layer last; queries scaled by no power of two
    **ONE_WIDTH, "model_type": "gemma3_text", "layer_types": [SLIDING, FULL, SLIDING], "query_pre_attn_scalar": 24,
}  # fmt: skip
KINDS = ("experts", "unified", "gemma3")


def toy(kind: str, format: str) -> Model:
    """A model of one of KINDS with a drafter, both packed in `format`; the same weights every time."""
    family = "gemma4_unified" if kind == "unified" else "gemma4"
    own = {"experts": EXPERTS, "unified": {}, "gemma3": GEMMA3}[kind]
    config = configs.target_config({**TEXT, **TARGET, "model_type": f"{family}_text", **own})
    target = Gemma4(config, _weights(config, format), native)
    text = {**TEXT, **(ONE_WIDTH if kind == "gemma3" else {}), **DRAFTER, "model_type": f"{family}_text"}
    outer = {"model_type": f"{family}_assistant", "backbone_hidden_size": config.hidden_len, "text_config": text}
    drafter_config = configs.drafter_config(outer)
    assistant = Assistant(drafter_config, _weights(drafter_config, format), target, native)
    return Model(
        name=kind,
        target=target,
        tokenizer=Tokenizer.from_folder(ASSETS / "target"),
        chat_template=None,
        defaults=configs.GenerationDefaults(),
        drafter=MtpDrafter(assistant),
        drafter_state=DrafterState("toy", "on", "made for the self-test"),
        figures={},
        warnings=[],
        chunk=512,
    )


def _weights(config: Any, format: str) -> Any:
    made = {part.name: _random(part, format) for part in plan(config)}
    return assemble(config, made, embed_scale(config.hidden_len, "BF16"), norms_are_complete=True)


def _random(part: Part, format: str) -> Any:
    """A vector within 40 % of its centre, or a packed matrix of normal values; by the part's name, always the same.

    The last norm undoes the smallness of the embeddings, so that logits have a standard deviation near 2.
    """
    draw = np.random.Generator(np.random.PCG64(zlib.crc32(part.name.encode())))
    if part.layout == "array":
        centre = 5.0 if part.name == "norm" else 1.0
        return (centre * draw.uniform(0.6, 1.4, part.shapes[0])).astype(np.float32)
    rows, width = part.size
    scale = 0.05 if part.name == "embed" else 2.0 if part.name.endswith("router") else width**-0.5
    values = (scale * draw.standard_normal((rows, width))).astype(np.float32)
    return native.pack(values, part.format or format, part.layout)
