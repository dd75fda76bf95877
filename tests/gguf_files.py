"""GGUF files made from Hugging Face folders as converters make them, with the names and the writer of `gguf`."""

import json
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

from foretoken import config as configs
from foretoken.weights.safetensors import Checkpoint

OWN_NAMES = {  # of the assistant, which the name table of gguf 0.19 does not have
    "pre_projection.weight": "nextn.pre_projection.weight",
    "post_projection.weight": "nextn.post_projection.weight",
    "masked_embedding.centroids.weight": "masked_embd_centroids.weight",
    "masked_embedding.token_ordering": "masked_embd_ordering",
}
FORK_NAMES = {
    "pre_projection.weight": "mtp_pre_proj.weight",
    "post_projection.weight": "mtp_post_proj.weight",
    "masked_embedding.centroids.weight": "mtp_centroids.weight",
    "masked_embedding.token_ordering": "mtp_token_ordering.weight",
}
NOT_CONVERTED = ("vision_tower", "audio_tower", "embed_vision", "embed_audio", "vision_embedder")


def text_config(folder):
    """The text part of a folder's config."""
    config = configs.read_json(Path(folder) / "config.json")
    return config.get("text_config", config)


def write(folder, path, kind=lambda name, shape: Type.F32, arch=None, fork=False, tokenizer=None, change=None, omit=()):
    """A GGUF file of the model in a Hugging Face folder.

    kind    the type of each matrix, by its GGUF name and shape; vectors stay F32
    fork    the drafter in the spelling of forks
    change  called with the writer before it writes
    omit    names of tensors that the file lacks
    """
    folder, text = Path(folder), text_config(folder)
    outer = configs.read_json(folder / "config.json")
    is_drafter = "backbone_hidden_size" in outer
    arch = arch or ("gemma4_assistant" if fork else "gemma4-assistant" if is_drafter else "gemma4")
    writer = gguf.GGUFWriter(path, arch)
    add_settings(writer, text, outer, fork)
    if tokenizer is not None:
        add_tokenizer(writer, tokenizer)
    for name, array in tensors(folder, text, FORK_NAMES if fork else OWN_NAMES):
        if name not in omit:
            add_tensor(writer, name, array, kind(name, array.shape) if array.ndim > 1 else None)
    if change:
        change(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_gemma3(folder, path, kind=lambda name, shape: Type.F32, tokenizer=None):
    """A GGUF file of a `gemma3_text` folder: norms get their 1, and nothing tells what scales the queries."""
    text = text_config(folder)
    writer = gguf.GGUFWriter(path, "gemma3")
    writer.add_context_length(text["max_position_embeddings"])
    writer.add_embedding_length(text["hidden_size"])
    writer.add_block_count(text["num_hidden_layers"])
    writer.add_feed_forward_length(text["intermediate_size"])
    writer.add_head_count(text["num_attention_heads"])
    writer.add_head_count_kv(text["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(text["rms_norm_eps"])
    writer.add_key_length(text["head_dim"])
    writer.add_value_length(text["head_dim"])
    writer.add_rope_freq_base(text["rope_theta"])
    writer.add_sliding_window(text["sliding_window"])
    writer.add_uint32("gemma3.attention.sliding_window_pattern", text["sliding_window_pattern"])
    if text["final_logit_softcapping"]:
        writer.add_final_logit_softcapping(text["final_logit_softcapping"])
    if tokenizer is not None:
        add_tokenizer(writer, tokenizer)
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GEMMA3, text["num_hidden_layers"])
    files = Checkpoint(Path(folder))
    for name in files.entries:
        own, array = gguf_name(table, name), files.read(name)
        array = array + np.float32(1) if name.endswith("norm.weight") else array
        add_tensor(writer, own, array, kind(own, array.shape) if array.ndim > 1 else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def full_head_len(text):
    """In either spelling (specification 1)."""
    own = text.get("per_layer_config") or {}
    return text.get("global_head_dim") or own[str(text["layer_types"].index("full_attention"))]["head_dim"]


def add_settings(writer, text, outer, fork=False):
    """The fields that llama.cpp's converter writes for a Gemma 4 model (specification 5.4)."""
    count, kinds = text["num_hidden_layers"], text["layer_types"]
    is_sliding = [kind == "sliding_attention" for kind in kinds]
    shared = text.get("num_kv_shared_layers") or 0
    full_len, sliding_len = full_head_len(text), text["head_dim"]
    writer.add_context_length(text["max_position_embeddings"])
    writer.add_embedding_length(text["hidden_size"])
    writer.add_block_count(count)
    inner = text["intermediate_size"]
    widths = [inner * (2 if i >= count - shared else 1) for i in range(count)]
    writer.add_feed_forward_length(widths if text.get("use_double_wide_mlp") else inner)
    writer.add_head_count(text["num_attention_heads"])
    heads, full_heads = text["num_key_value_heads"], text.get("num_global_key_value_heads")
    writer.add_head_count_kv([heads if one else full_heads for one in is_sliding] if full_heads else heads)
    writer.add_layer_norm_rms_eps(text["rms_norm_eps"])
    writer.add_key_length(full_len)
    writer.add_value_length(full_len)
    writer.add_key_length_swa(sliding_len)
    writer.add_value_length_swa(sliding_len)
    writer.add_sliding_window(text["sliding_window"])
    writer.add_sliding_window_pattern(is_sliding)
    writer.add_shared_kv_layers(shared)
    writer.add_embedding_length_per_layer_input(text.get("hidden_size_per_layer_input") or 0)
    rope = text["rope_parameters"]
    writer.add_rope_freq_base(rope["full_attention"]["rope_theta"])
    writer.add_rope_freq_base_swa(rope["sliding_attention"]["rope_theta"])
    writer.add_rope_dimension_count(full_len)
    writer.add_rope_dimension_count_swa(sliding_len)
    if text.get("final_logit_softcapping"):
        writer.add_final_logit_softcapping(text["final_logit_softcapping"])
    if text.get("enable_moe_block"):
        writer.add_expert_count(text["num_experts"])
        writer.add_expert_used_count(text["top_k_experts"])
        writer.add_expert_feed_forward_length(text["moe_intermediate_size"])
    if "backbone_hidden_size" in outer:
        name = "n_embd_backbone" if fork else "embedding_length_out"
        writer.add_uint32(f"{writer.arch}.{name}", outer["backbone_hidden_size"])
        writer.add_uint32(f"{writer.arch}.nextn_predict_layers", 1 if fork else count)
        if outer.get("use_ordered_embeddings"):
            writer.add_uint32(f"{writer.arch}.centroid_top_k", outer["centroid_intermediate_top_k"])


def tensors(folder, text, own_names):
    """(GGUF name, float32 array or ids) of every tensor; the names of layers by gguf's own table."""
    files = Checkpoint(Path(folder))
    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GEMMA4, text["num_hidden_layers"])
    for name, entry in files.entries.items():
        if any(part in name for part in NOT_CONVERTED):
            continue
        if entry.dtype == "I64":
            yield own_names[name], files.read_ids(name).astype(np.int32)
            continue
        yield own_names.get(name) or gguf_name(table, name), files.read(name)
    half = full_head_len(text) // 2
    rotated = int(half * text["rope_parameters"]["full_attention"]["partial_rotary_factor"])
    yield "rope_freqs.weight", np.array([1.0] * rotated + [1e30] * (half - rotated), np.float32)


def gguf_name(table, name):
    """As the converter of Gemma 4 does it: some names get .weight first, two are scales of another tensor."""
    name = name.replace("model.language_model.", "model.")
    for own, theirs in (("router.scale", "ffn_gate_inp.scale"), ("router.per_expert_scale", "ffn_down_exps.scale")):
        if name.endswith(own):
            return f"blk.{name.split('.')[2]}.{theirs}"
    if not name.endswith(".weight"):
        name += ".weight"
    found = table.get_name(name, try_suffixes=(".weight",))
    assert found, name
    return found


def add_tensor(writer, name, array, kind):
    if array.dtype == np.int32 or kind is None or kind == Type.F32:
        writer.add_tensor(name, array)
    else:
        data = gguf.quants.quantize(array, kind)
        writer.add_tensor(name, data, raw_dtype=kind)


def add_tokenizer(writer, folder, model="gemma4"):
    """The tokenizer of a folder as converters write it: kind `gemma4` with merges, or `llama` with scores alone."""
    data = json.loads((Path(folder) / "tokenizer.json").read_text(encoding="utf-8"))
    vocab = data["model"]["vocab"]
    added = {token["content"]: token for token in data["added_tokens"]}
    pieces = sorted(vocab, key=vocab.get) + sorted(added.keys() - vocab.keys(), key=lambda t: added[t]["id"])
    kinds = [piece_type(piece, added) for piece in pieces]
    writer.add_tokenizer_model(model)
    writer.add_token_list([" " * len(p) if model == "llama" and len(p) > 1 and set(p) == {"▁"} else p for p in pieces])
    writer.add_token_types(kinds)
    writer.add_token_scores([-1000.0 if kind > 1 else float(-index) for index, kind in enumerate(kinds)])
    if model == "gemma4":
        merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in data["model"]["merges"]]
        writer.add_token_merges([" ".join(pair) for pair in merges])
    for name, token in (("bos", "<bos>"), ("eos", "<eos>"), ("unk", "<unk>"), ("pad", "<pad>")):
        if token in pieces:
            getattr(writer, f"add_{name}_token_id")(pieces.index(token))
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    template = Path(folder) / "chat_template.jinja"
    if template.is_file():
        writer.add_chat_template(template.read_text(encoding="utf-8"))


def piece_type(piece, added):
    if piece in added:
        return gguf.TokenType.CONTROL if added[piece]["special"] else gguf.TokenType.USER_DEFINED
    return gguf.TokenType.BYTE if piece.startswith("<0x") and len(piece) == 6 else gguf.TokenType.NORMAL
