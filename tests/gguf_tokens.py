"""Token ids of a GGUF file's tokenizer, ours and transformers' for the same file, on some thousand lines.

python tests/gguf_tokens.py MODEL.gguf [--lines 3000]

Needs transformers with torch. Prints the lines that differ and, as the last line, one JSON object with the counts.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from token_lines import lines

from foretoken.source import open_source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--lines", type=int, default=3000)
    asked = parser.parse_args()
    import transformers

    theirs = transformers.AutoTokenizer.from_pretrained(asked.model.parent, gguf_file=asked.model.name)
    source = open_source(asked.model.absolute())
    ours = source.tokenizer()
    found, num_tokens, different = list(lines(source.pieces() or [], asked.lines)), 0, []
    for line in found:
        expected = theirs(line, add_special_tokens=False)["input_ids"]
        num_tokens += len(expected)
        if ours.encode(line, add_bos=False) != expected:
            different.append(line)
            print(f"{line!r}\n  ours   {ours.encode(line, add_bos=False)}\n  theirs {expected}")
    figures = {"lines": len(found), "distinct": len(set(found)), "tokens": num_tokens, "different": len(different)}
    print(json.dumps(figures | {"transformers": transformers.__version__}))


if __name__ == "__main__":
    main()
