"""Greedy answers of a GGUF file, ours in f32 and transformers' from the same file, token by token.

python tests/gguf_answers.py MODEL.gguf [--tokens 64] [--format f32] [--exact-root]

What GGUF files hold was made from bf16, so our embedding scale is the root of the width rounded to that (numerics.md).
Transformers rounds it to the dtype that it loads, here f32; it is given ours, unless --exact-root leaves it its own.

Needs transformers with torch and accelerate. Where the two part, prints both tokens and how far apart the reference's
logits of them are (0 is a tie; f32 sums in another order differ by about 1e-4), then goes on with the reference's text,
so that every token of it is compared. The last line is one JSON object with the counts.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import foretoken

PROMPTS = (
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "It was the best of times, it was the worst of times,",
    "Dear Sir or Madam,\n\nI am writing to",
    "The three laws of thermodynamics are",
    "Q: How many legs does a spider have?\nA:",
    "def fibonacci(n):\n    ",
    "#include <stdio.h>\n\nint main(",
    "SELECT name, COUNT(*) FROM",
    '{"name": "Ada", "born": 1815, "works": [',
    "<!DOCTYPE html>\n<html>\n<head>\n",
    "1, 1, 2, 3, 5, 8, 13,",
    "Der schnelle braune Fuchs",
    "La révolution française commença en",
    "Москва — столица",
    "日本の首都は",
    "中国的首都是",
    "مرحبا بالعالم",
    "भारत की राजधानी",
    "I love 🍕 and 🎉! 😀😀",
)


def compare(model: Any, reference: Any, prompt: str, num_tokens: int) -> tuple[int, list[str]]:
    """Tokens compared, and a line for each that differs."""
    import torch

    eos = reference.generation_config.eos_token_id
    ids = model.tokenizer.encode(prompt, add_bos=True)
    with torch.no_grad():
        text = reference.generate(torch.tensor([ids]), max_new_tokens=num_tokens, do_sample=False)[0].tolist()
        logits = reference(torch.tensor([text])).logits[0]
    end = len(text) - (text[-1] in (eos if isinstance(eos, list) else [eos]))  # ours stops before it
    compared, different, start = 0, [], len(ids)
    while start < end:
        own = model.generate(text[:start], max_tokens=end - start, temperature=0.0, horizon="0").tokens
        expected = text[start:end]
        pairs = enumerate(zip(own, expected, strict=False))
        same = next((i for i, (a, b) in pairs if a != b), min(len(own), len(expected)))
        compared += min(same + 1, len(expected))
        if same == len(expected):
            break
        ours = own[same] if same < len(own) else None
        row = logits[start + same - 1]
        margin = "ours ended" if ours is None else f"{float(row[expected[same]] - row[ours]):.4f} apart"
        different.append(f"{prompt!r}, token {start + same - len(ids)}: ours {ours}, theirs {expected[same]}, {margin}")
        start += same + 1
    return compared, different


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--format", default="f32")
    parser.add_argument("--exact-root", action="store_true")
    asked = parser.parse_args()
    import torch
    import transformers

    reference = transformers.AutoModelForCausalLM.from_pretrained(
        asked.model.parent, gguf_file=asked.model.name, dtype=torch.float32
    ).eval()
    if not asked.exact_root:
        table = reference.get_input_embeddings()
        table.embed_scale = table.embed_scale.to(torch.bfloat16).to(torch.float32)
    model = foretoken.load(asked.model, format=asked.format, drafter="none")
    compared = different = 0
    for prompt in PROMPTS:
        count, lines = compare(model, reference, prompt, asked.tokens)
        compared += count
        different += len(lines)
        print("\n".join(lines) or f"{prompt!r}: {count} tokens, same", flush=True)
    figures = {"prompts": len(PROMPTS), "tokens": compared, "different": different}
    print(json.dumps(figures | {"format": asked.format, "transformers": transformers.__version__}))


if __name__ == "__main__":
    main()
