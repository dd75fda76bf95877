"""Train the pair's BPE of 4096 ids and write it in Gemma 4's manner.

Gemma 4's control tokens keep their real ids; ids between them are `<unusedN>`. Bytes <0x00>..<0xFF> are plain
vocabulary (byte fallback). The merges are learnt on word-like pieces; then Gemma's normaliser (space -> U+2581),
its no-op Split and its decoder are installed.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

VOCAB_SIZE = 4096
RESERVED = 5  # "<unused0>": the row that padding rows of an inflated vocabulary copy
CONTROL = {
    0: "<pad>",
    1: "<eos>",
    2: "<bos>",
    3: "<unk>",
    4: "<mask>",
    46: "<|tool>",
    47: "<tool|>",
    48: "<|tool_call>",
    49: "<tool_call|>",
    50: "<|tool_response>",
    51: "<tool_response|>",
    52: '<|"|>',
    98: "<|think|>",
    100: "<|channel>",
    101: "<channel|>",
    105: "<|turn>",
    106: "<turn|>",
}
NEWLINE = 107
PIECES = r"'(?:s|t|re|ve|m|ll|d)\b|▁?\p{L}+|▁?\p{N}|\n+▁*|▁+(?=▁)|▁?[^\s\p{L}\p{N}▁]+|▁"


def low_ids() -> list[str]:
    """The 108 lowest ids: control tokens, `<unusedN>` between them, and the newline."""
    names, unused = [], 0
    for i in range(NEWLINE):
        if i in CONTROL:
            names.append(CONTROL[i])
        else:
            names.append(f"<unused{unused}>")
            unused += 1
    return [*names, "\n"]


def train(texts: list[str]) -> tuple[dict[str, int], list[list[str]]]:
    """Vocabulary and merges learnt on `texts`."""
    tok = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tok.normalizer = normalizers.Replace(" ", "▁")
    tok.pre_tokenizer = pre_tokenizers.Split(Regex(PIECES), "isolated")
    fixed = low_ids() + [f"<0x{b:02X}>" for b in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE, special_tokens=fixed, limit_alphabet=110, max_token_length=16, show_progress=False
    )
    tok.train_from_iterator(texts, trainer)
    state = json.loads(tok.to_str())["model"]
    merges = [m if isinstance(m, list) else m.split(" ") for m in state["merges"]]
    return state["vocab"], merges


def gemma_json(vocab: dict[str, int], merges: list[list[str]]) -> dict:
    """tokenizer.json around a vocabulary: the parts Gemma 4's file has, with its settings."""
    added = [
        {
            "id": i,
            "content": name,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for i, name in enumerate(low_ids()[:NEWLINE])
    ]
    bos = {"SpecialToken": {"id": "<bos>", "type_id": 0}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [
                bos,
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "<bos>", "type_id": 1}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {"<bos>": {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": merges,
        },
    }


def config_json() -> dict:
    """tokenizer_config.json: names of the control tokens, as Gemma 4's file gives them."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 2048,
        "padding_side": "left",
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "sot_token": "<|turn>",
        "eot_token": "<turn|>",
        "think_token": "<|think|>",
        "soc_token": "<|channel>",
        "eoc_token": "<channel|>",
        "std_token": "<|tool>",
        "etd_token": "<tool|>",
        "stc_token": "<|tool_call>",
        "etc_token": "<tool_call|>",
        "str_token": "<|tool_response>",
        "etr_token": "<tool_response|>",
        "escape_token": '<|"|>',
    }


def check(path: Path) -> None:
    """Encoding then decoding gives back the text, whatever characters it has."""
    tok = Tokenizer.from_file(str(path))
    assert tok.get_vocab_size() == VOCAB_SIZE
    for name, i in [(n, i) for i, n in CONTROL.items()] + [("\n", NEWLINE)]:
        assert tok.token_to_id(name) == i, (name, i)
    for text in [
        "a\tb\n\n  c",
        "日本語 ok",
        "🙂🙃 x",
        "  lead",
        "x" * 50,
        "naïve — «é»",
        "\r\n\t\t",
        "def f(x):\n    return x\n",
    ]:
        ids = tok.encode(text, add_special_tokens=False).ids
        assert tok.decode(ids, skip_special_tokens=False) == text, (text, tok.decode(ids))
        assert tok.encode(text).ids == [2, *ids]


def sample_texts(seed: int) -> list[str]:
    """About 12 MB of training text for the merges, code and prose in the mixture's proportions."""
    import corpus  # here, because corpus needs no tokenizer but is slow to build

    rng = random.Random(seed)
    return [d.text for d in corpus.documents(rng, 30_000, heldout=False)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for tokenizer.json, tokenizer_config.json, chat_template.jinja")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    vocab, merges = train(sample_texts(args.seed))
    path = args.out / "tokenizer.json"
    path.write_text(json.dumps(gemma_json(vocab, merges), ensure_ascii=False, indent=1))
    (args.out / "tokenizer_config.json").write_text(json.dumps(config_json(), indent=1))
    shutil.copy(Path(__file__).parent / "chat_template.jinja", args.out / "chat_template.jinja")
    check(path)
    print("vocabulary", len(vocab), "merges", len(merges))


if __name__ == "__main__":
    main()
