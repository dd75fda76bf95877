"""Options that several commands share, each with its help text, in one place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from foretoken.errors import InputError


def number(name: str, help: str) -> Any:
    """An option that takes a number; what is none is told as the API tells it."""
    return typer.Option(name, metavar="NUMBER", help=help, parser=_reader(name, float, "a number"))


def whole(name: str, help: str) -> Any:
    return typer.Option(name, metavar="N", help=help, parser=_reader(name, int, "a whole number"))


def _reader(name: str, read: Callable[[str], Any], expected: str) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            return read(text)
        except ValueError:
            raise InputError(f"{name} is {text[:40]!r}, expected {expected}.") from None

    return parse


Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="PATH|NAME",
        help="Model folder, GGUF file, or ORG/NAME on the hub, fetched once. Default: the small pair that comes along.",
    ),
]
Drafter = Annotated[
    str,
    typer.Option(
        "--drafter",
        metavar="auto|suffix|none|PATH|NAME=PATH,…",
        help="auto: MODEL-assistant, beside a folder or file or on the hub, if any, and what stood in the text before "
        "(suffix). PATH or hub name: a drafter, or a smaller model with the same tokens. A list joins several: "
        "code=PATH,prose=PATH,suffix.",
    ),
]
FORMATS = "auto|f32|bf16|q8|q4"
Format = Annotated[
    str,
    typer.Option("--format", metavar=FORMATS, help="Weights of the target; auto is q4 for 4-bit files, else q8."),
]
DrafterFormat = Annotated[str, typer.Option("--drafter-format", metavar=FORMATS, help="Weights of the drafter.")]
Threads = Annotated[int | None, whole("--threads", help="Worker threads. Default: one per core.")]
Chunk = Annotated[int, whole("--chunk", help="Prompt rows per pass.")]
DraftClusters = Annotated[
    int | None,
    whole(
        "--draft-clusters",
        help="Clusters of the vocabulary that the drafter scores. Default: what tune found, else what its files say.",
    ),
]
DraftMinChance = Annotated[
    float | None,
    typer.Option(
        "--draft-min-chance",
        help="Do not verify a draft token that is less likely than this to be kept. Default: what pays.",
    ),
]
HORIZONS = "auto|0…16|short|long"  # how help spells them
Horizon = Annotated[
    str,
    typer.Option(
        "--horizon",
        metavar=HORIZONS,
        help="Draft tokens per round; 0 is plain decoding. auto is what pays, short 2 to 3 of them, long 5 to 10.",
    ),
]
Temperature = Annotated[
    float | None, number("--temperature", help="0 takes the likeliest token. Default: the model's own.")
]
TopK = Annotated[int | None, whole("--top-k", help="Keep the k likeliest tokens; 0 is off. Default: the model's.")]
TopP = Annotated[
    float | None,
    number("--top-p", help="Keep the likeliest tokens up to this probability. Default: the model's."),
]
MinP = Annotated[
    float | None, number("--min-p", help="Drop tokens below this share of the likeliest one's probability.")
]
RepetitionPenalty = Annotated[
    float,
    number("--repetition-penalty", help="Above 1: what stands in the text already becomes less likely."),
]
PresencePenalty = Annotated[
    float, number("--presence-penalty", help="Taken once from the logit of each token in the answer.")
]
FrequencyPenalty = Annotated[
    float, number("--frequency-penalty", help="Taken from it for each time that it stands there.")
]
Seed = Annotated[int | None, whole("--seed", help="Same seed, same answer. Default: drawn, and reported.")]
MaxTokens = Annotated[int, whole("--max-tokens", help="Most tokens of the answer.")]
Stop = Annotated[
    list[str] | None, typer.Option("--stop", metavar="TEXT", help="End before this text; may be given several times.")
]
IgnoreEos = Annotated[bool, typer.Option("--ignore-eos", help="Write on after the model's stop tokens.")]
System = Annotated[
    str | None, typer.Option("--system", metavar="TEXT", help="What the model is told before the conversation begins.")
]
Thinking = Annotated[
    bool | None,
    typer.Option("--thinking/--no-thinking", help="Let the model think first. Default: what its template does."),
]
Tools = Annotated[
    str | None,
    typer.Option("--tools", metavar="FILE", help="JSON list of functions that the model may call, as in OpenAI's API."),
]
Trace = Annotated[Path | None, typer.Option("--trace", metavar="FILE.jsonl", help="Write a line of JSON per round.")]
Prompts = Annotated[
    Path | None,
    typer.Option(
        "--prompts",
        metavar="PATH",
        help='Lines of JSON, such as {"text": "Once"}, or with messages, or a folder of such files. Default: those of '
        "a checkout.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of stdout.")]


def check_horizon(value: str) -> None:
    """Refuse a wrong horizon before anything is loaded."""
    from foretoken.horizon import parse_horizon

    parse_horizon(value)


def check_prompt(text: str) -> None:
    """Refuse an empty prompt before anything is loaded."""
    if not text:
        raise InputError("the prompt is empty. Give at least one character.")


def read_tools(path: str | None) -> list[dict[str, Any]] | None:
    """The functions that --tools names, checked before anything is loaded."""
    from foretoken.tools import read_tools

    return None if path is None else read_tools(path)
