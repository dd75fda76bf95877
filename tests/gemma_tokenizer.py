"""A tiny tokenizer.json of Gemma's kind for tests: BPE with byte fallback, "▁" for space, control tokens."""

import json
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

CONTROL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|turn>", "<turn|>"]
WORDS = ["he", "hel", "hell", "hello", "▁w", "▁wo", "▁wor", "▁worl", "▁world", "▁▁", "st", "sto", "stop", "é", "日本"]
MERGES = [
    ("h", "e"), ("he", "l"), ("hel", "l"), ("hell", "o"),
    ("▁", "w"), ("▁w", "o"), ("▁wo", "r"), ("▁wor", "l"), ("▁worl", "d"), ("▁", "▁"),
    ("s", "t"), ("st", "o"), ("sto", "p"), ("日", "本"),
]  # fmt: skip
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{{ '<|turn>' + m['role'] + '\n' + m['content'] | trim + '<turn|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|turn>model\n' }}{% endif %}"
)


def build() -> tokenizers.Tokenizer:
    letters = ["▁", *"abcdefghijklmnopqrstuvwxyz", "日", "本", "\n"]
    pieces = CONTROL + [f"<0x{b:02X}>" for b in range(256)] + letters + WORDS
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    backend = tokenizers.Tokenizer(
        models.BPE(vocab=vocab, merges=MERGES, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    backend.add_special_tokens(CONTROL)
    backend.post_processor = processors.TemplateProcessing("<bos> $A", None, [("<bos>", vocab["<bos>"])])
    return backend


def write(folder: Path) -> Path:
    """A model folder's text side: tokenizer, its settings, chat template."""
    folder.mkdir(parents=True, exist_ok=True)
    build().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": {"content": "<bos>"}, "eos_token": "<eos>"}))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return folder
