"""What a run leaves behind: the assistant's folder, curves as JSON and, with matplotlib, as a picture."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from foretoken.errors import InputError
from foretoken.files import write_atomically

NUM_DRAFT_TOKENS = 4


def write(folder: Path, config: Mapping[str, Any], generation: Mapping[str, Any], tensors: Mapping[str, Any]) -> None:
    """config.json, generation_config.json and model.safetensors: bf16, ids int64. Each file is whole or not there.

    tensors  torch tensors by released name
    """
    import torch
    from safetensors.torch import save

    kept = {
        name: (x.detach().to(torch.bfloat16) if x.is_floating_point() else x.detach()).contiguous()
        for name, x in tensors.items()
    }
    try:
        write_atomically(folder / "model.safetensors", save(kept, metadata={"format": "pt"}))
        for name, data in (("generation_config.json", generation), ("config.json", config)):
            write_atomically(folder / name, (json.dumps(data, indent=2) + "\n").encode())
        for name in ("model.safetensors", "generation_config.json", "config.json"):
            os.chmod(folder / name, 0o644)  # temporary files are for their owner alone
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror or error}.") from error


def generation_config(eos_ids: Sequence[int]) -> dict[str, Any]:
    """What transformers wants to know of an assistant, and how long its drafts are."""
    return {
        "do_sample": False,
        "eos_token_id": list(eos_ids),
        "is_assistant": True,
        "num_assistant_tokens": NUM_DRAFT_TOKENS,
        "num_assistant_tokens_schedule": "constant",
    }


def write_curves(folder: Path, curve: Sequence[Mapping[str, Any]]) -> str:
    """curves.json, and curves.png where matplotlib is there; returns why there is no picture, or nothing."""
    from foretoken.bench import plot

    write_atomically(folder / "curves.json", (json.dumps(list(curve)) + "\n").encode())
    count = len(curve[0]["survival"]) if curve else 0
    series = {f"position {i + 1}": {p["step"]: p["survival"][i] for p in curve} for i in range(count)}
    try:
        plot.check(folder / "curves.png")
    except InputError as error:
        return str(error)
    plot.curves(folder / "curves.png", "Held-out drafts accepted", "step", "share of rounds", series)
    return ""


def size_of(folder: Path) -> int:
    """Bytes of the weights' file."""
    return (folder / "model.safetensors").stat().st_size


def ids_of(tensors: Mapping[str, Any], vocab_len: int) -> np.ndarray:
    """Token of each row of the head (H,), ascending."""
    from foretoken.distill.model import HEAD_IDS

    return tensors[HEAD_IDS].numpy() if HEAD_IDS in tensors else np.arange(vocab_len)
