"""Names of a GGUF file's tensors to those of a Hugging Face folder. Source: specification 5.1, 5.2 and 5.4."""

from __future__ import annotations

import re

ROPE_FREQS = "rope_freqs.weight"  # belongs to the config here
OTHER_PARTS = re.compile(r"(v|a|mm)\..*")  # pictures and sound, which some files carry along
SPLIT_EXPERTS = re.compile(r"blk\.\d{1,4}\.ffn_(gate|up)_exps\.weight")  # two tensors for what is one there

WHOLE = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "per_layer_token_embd.weight": "model.embed_tokens_per_layer.weight",
    "per_layer_model_proj.weight": "model.per_layer_model_projection.weight",
    "per_layer_proj_norm.weight": "model.per_layer_projection_norm.weight",
    **{f"{name}.weight": "pre_projection.weight" for name in ("nextn.pre_projection", "mtp.pre_projection")},
    **{f"{name}.weight": "post_projection.weight" for name in ("nextn.post_projection", "mtp.post_projection")},
    "mtp_pre_proj.weight": "pre_projection.weight",
    "mtp_post_proj.weight": "post_projection.weight",
    **{
        f"{name}{end}": f"masked_embedding.{ours}"
        for names, ours in (
            (("masked_embd_centroids", "mtp_centroids", "mtp.centroids"), "centroids.weight"),
            (("masked_embd_ordering", "mtp_token_ordering", "mtp.token_ordering"), "token_ordering"),
        )
        for name in names
        for end in ("", ".weight")
    },
}
OF_LAYER = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_q_norm.weight": "self_attn.q_norm.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_k_norm.weight": "self_attn.k_norm.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "post_attention_norm.weight": "post_attention_layernorm.weight",
    "ffn_norm.weight": "pre_feedforward_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
    "post_ffw_norm.weight": "post_feedforward_layernorm.weight",
    "layer_output_scale.weight": "layer_scalar",
    "inp_gate.weight": "per_layer_input_gate.weight",
    "proj.weight": "per_layer_projection.weight",
    "post_norm.weight": "post_per_layer_input_norm.weight",
    "ffn_gate_inp.weight": "router.proj.weight",
    "ffn_gate_inp.scale": "router.scale",
    "ffn_gate_up_exps.weight": "experts.gate_up_proj",
    "ffn_down_exps.weight": "experts.down_proj",
    "ffn_down_exps.scale": "router.per_expert_scale",
    "pre_ffw_norm_2.weight": "pre_feedforward_layernorm_2.weight",
    "post_ffw_norm_1.weight": "post_feedforward_layernorm_1.weight",
    "post_ffw_norm_2.weight": "post_feedforward_layernorm_2.weight",
}


def hugging_face_name(name: str) -> str:
    """The name under which `weights.gemma4` looks for a tensor; one that it does not know stays as it is."""
    layer = re.fullmatch(r"blk\.(\d{1,4})\.(.+)", name)
    if layer and layer[2] in OF_LAYER:
        return f"model.layers.{int(layer[1])}.{OF_LAYER[layer[2]]}"
    return WHOLE.get(name, name)
