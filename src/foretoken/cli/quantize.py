"""`foretoken quantize`: a smaller copy of a model, which loads to the same bits as the original in that format."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from foretoken.cli import options, terminal
from foretoken.errors import ConfigError, InputError

if TYPE_CHECKING:
    from foretoken.config import DrafterConfig, TargetConfig


def quantize(
    source: Annotated[str, typer.Argument(metavar="SRC", help="Model folder, or ORG/NAME on the hub.")],
    format: Annotated[str, typer.Option("--format", metavar="q4|q8", help="4.5 or 8.5 bits a weight.")],
    out: Annotated[str, typer.Option("--out", metavar="DIR", help="The new folder; must not be there yet.")],
    json: options.Json = False,
) -> None:
    """Write a model or a drafter anew in 4 or 8 bits, as a folder that --model takes."""
    from foretoken import places
    from foretoken.ops import native
    from foretoken.weights import fitting_plan
    from foretoken.weights.compressed import open_folder
    from foretoken.weights.quantize import FORMATS, quantize

    if format not in FORMATS:
        raise InputError(f"format is {format!r}, expected {' or '.join(FORMATS)}.")
    folder = places.find(source, False, terminal.say)[0].where
    if os.path.isfile(folder):
        raise InputError(
            f"{folder} is a file. Give a Hugging Face folder; a GGUF file is packed anew whenever it is loaded with "
            f"--model {folder} --format {format}."
        )
    checkpoint = open_folder(folder)
    parts = fitting_plan(checkpoint, _config(folder))
    target = Path(out).absolute()
    with terminal.progress("Quantising") as advance:
        tensors = quantize(folder, checkpoint, parts, format, target, native, advance)
    before, after = (_weight_bytes(path) for path in (folder, target))
    left_out = len(checkpoint.entries) - len(tensors)
    if json:
        figures = {"format": format, "bytes_before": before, "bytes_after": after, "left_out_tensors": left_out}
        terminal.print_json({"path": str(target), **figures})
        return
    note = f", without {left_out} tensors that are not read" if left_out else ""
    print(f"{target}: {after:,} bytes in {format}, of {before:,}{note}")


def _config(folder: Path) -> TargetConfig | DrafterConfig:
    """Of a target, or else of a drafter; the error of neither is the target's."""
    from foretoken.config import load_drafter_config, load_target_config

    try:
        return load_target_config(folder)
    except ConfigError as error:
        try:
            return load_drafter_config(folder)
        except ConfigError:
            raise error from None


def _weight_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))
