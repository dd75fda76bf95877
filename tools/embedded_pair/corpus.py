"""The training mixture: an endless stream of documents of six domains, and their packing into token rows.

A document is a chat in Gemma 4's turn format or a piece of raw text. The split is by source record (word, chapter,
page, module), so held-out documents share no record with training. Domains: code docs define edit json prose.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import sources
import tasks_data
import tasks_edit
import tasks_know
from words import Pair

TURN, END, BOS, EOS = 105, 106, 2, 1
MAX_ANSWER = 190  # tokens; longer answers are left out, so that the pair learns to end in time
# share of documents (not tokens): chosen so that tokens come out near edit+rewrite+JSON+lists 35 %, others 16 % each
MIX = {"edit": 11, "rewrite": 9, "json": 11, "list": 4, "define": 26, "code": 15, "docs": 14, "prose": 16, "raw": 2.5}
DOMAIN = {"rewrite": "edit", "list": "json"}


@dataclass(frozen=True)
class Document:
    domain: str
    text: str  # without <bos>; control tokens spelled out
    messages: tuple[dict, ...]  # empty for raw text


class Bag:
    """Records in an order of its own, started again (reshuffled) when it is empty."""

    def __init__(self, rng: Random, records: list):
        self.rng, self.records, self.rest = rng, records, []

    def take(self):
        if not self.rest:
            self.rest = self.records[:]
            self.rng.shuffle(self.rest)
        return self.rest.pop()


def chunks(text: str, size: int) -> list[str]:
    """Text cut at blank lines into pieces of about `size` characters."""
    pieces, piece = [], ""
    for block in text.split("\n\n"):
        if piece and len(piece) + len(block) > size:
            pieces.append(piece.strip("\n"))
            piece = ""
        piece += block + "\n\n"
    return [*pieces, piece.strip("\n")]


class Corpus:
    """All sources of one side of the split."""

    def __init__(self, rng: Random, heldout: bool):
        def side(key: str) -> bool:
            return sources.is_heldout(key) == heldout

        glosses = [g for g in sources.load_wordnet() if side(g.word)]
        common = [g for g in glosses if g.is_common and len(g.meaning) < 300]
        rest = [g for g in glosses if not g.is_common and len(g.meaning) < 300]
        docs = [(p, t) for p, t in sources.load_docs() if side(p)]
        stdlib = [(m, t) for m, t in sources.load_stdlib() if side(m)]
        bible = [(k, v) for k, v in sources.load_bible() if side(k)]
        jargon = [(w, p) for w, p in sources.load_jargon() if side(w)]
        self.rng = rng
        self.common, self.rare = Bag(rng, common), Bag(rng, rest)
        self.entries = Bag(rng, [e for e in sources.load_doc_entries(docs) if len(e.body[0]) < 600])
        self.functions = Bag(rng, sources.load_functions(stdlib))
        self.chapters = Bag(rng, [v for _, v in bible])
        self.jargon = Bag(rng, jargon)
        self.sentences = Bag(
            rng,
            [s for g in glosses for s in g.examples if len(s) > 25]
            + [v for _, vs in bible for v in vs if len(v) < 200],
        )
        raw = [("docs", c) for _, t in docs for c in chunks(t, 1500)] + [
            ("code", c) for _, t in stdlib for c in chunks(t, 1500)
        ]
        prose = [("prose", c) for k, v in bible for c in chunks("\n\n".join(v), 1200)]
        prose += [("prose", f"{w}: " + "\n\n".join(p)) for w, p in jargon]
        self.raw, self.raw_prose = Bag(rng, raw), Bag(rng, prose)

    def pair(self, kind: str) -> Pair:
        """One (request, answer) of a kind of the mixture."""
        rng = self.rng
        if kind == "edit":
            return rng.choice(tasks_edit.EDITS)(rng, self.functions.take())
        if kind == "rewrite":
            text = self.sentences.take()
            return rng.choice(tasks_edit.REWRITES)(rng, text[0].upper() + text[1:])
        if kind == "json":
            return rng.choice(tasks_data.JSONS)(rng)
        if kind == "list":
            return rng.choice(tasks_data.LISTS)(rng)
        if kind == "define":
            if rng.random() < 0.06:
                word, body = self.jargon.take()
                return f"What does {word} mean in hacker slang?", body[0]
            gloss = (self.common if rng.random() < 0.85 else self.rare).take()
            return (tasks_know.define if rng.random() < 0.8 else tasks_know.define_use)(rng, gloss)
        if kind == "docs":
            return (tasks_know.explain if rng.random() < 0.6 else tasks_know.docs_find)(rng, self.entries.take())
        if kind == "code":
            draw = rng.random()
            if draw < 0.55:
                return tasks_know.write_function(rng, self.functions.take())
            return tasks_know.write_class(rng) if draw < 0.85 else tasks_know.write_property(rng)
        return (tasks_know.continue_verses if rng.random() < 0.6 else tasks_know.number_verses)(
            rng, self.chapters.take()
        )

    def document(self) -> Document | None:
        """One document: raw text, or a chat of one to three exchanges."""
        rng = self.rng
        kind = rng.choices(list(MIX), list(MIX.values()))[0]
        if kind == "raw":
            domain, text = (self.raw if rng.random() < 0.6 else self.raw_prose).take()
            return Document(domain, text, ())
        messages, last = [], kind
        for _ in range(rng.choices([1, 2, 3], [80, 14, 6])[0]):
            pair = self.pair(kind)
            if pair is not None and pair[1].strip() and pair[0] != pair[1]:
                messages += [
                    {"role": "user", "content": pair[0].strip()},
                    {"role": "assistant", "content": pair[1].strip()},
                ]
                last = kind
            if rng.random() < 0.3:
                kind = rng.choices(list(MIX)[:-1], list(MIX.values())[:-1])[0]
        return Document(DOMAIN.get(last, last), chat_text(messages), tuple(messages)) if messages else None


def chat_text(messages: list[dict]) -> str:
    """Turn format as chat_template.jinja writes it, without <bos>."""
    return "".join(
        f"<|turn>{'model' if m['role'] == 'assistant' else m['role']}\n{m['content'].strip()}<turn|>\n"
        for m in messages
    )


def documents(rng: Random, count: int, heldout: bool) -> Iterator[Document]:
    """`count` documents of one side of the split."""
    corpus = Corpus(rng, heldout)
    made = 0
    while made < count:
        doc = corpus.document()
        if doc is not None:
            made += 1
            yield doc


def weights(ids: list[int], model_ids: list[int], request_weight: float = 0.4) -> np.ndarray:
    """(T,) float16 loss weight of predicting each token: 1, but `request_weight` inside system and user turns."""
    out = np.ones(len(ids), np.float16)
    inside = False
    for i, t in enumerate(ids):
        if t == TURN:
            inside = ids[i + 1 : i + 1 + len(model_ids)] != model_ids
        out[i] = request_weight if inside else 1.0
        if t == END:
            inside = False
    return out


def pack(tokenizer, docs: Iterator[Document]) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Documents, each after a <bos> (raw text also before an <eos>), as one stream.

    returns ids (T,) uint16, loss weights (T,) float16, tokens per domain.

    Chats with an answer over MAX_ANSWER tokens are left out.
    """
    model_ids = tokenizer.encode("model\n", add_special_tokens=False).ids
    all_ids, all_weights, counts = [], [], {}
    batch: list[Document] = []

    def flush():
        for doc, enc in zip(
            batch, tokenizer.encode_batch([d.text for d in batch], add_special_tokens=False), strict=True
        ):
            ids = [BOS, *enc.ids]
            if doc.messages:
                w = weights(ids, model_ids)
                runs = "".join("1" if x == 1 else "0" for x in w)
                if max(map(len, runs.split("0"))) > MAX_ANSWER:
                    continue
            else:
                ids.append(EOS)
                w = np.ones(len(ids), np.float16)
            all_ids.append(np.array(ids, np.uint16))
            all_weights.append(w)
            counts[doc.domain] = counts.get(doc.domain, 0) + len(ids)
        batch.clear()

    for doc in docs:
        batch.append(doc)
        if len(batch) == 1000:
            flush()
    flush()
    return np.concatenate(all_ids), np.concatenate(all_weights), counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tokenizer", type=Path, help="tokenizer.json")
    parser.add_argument("out", type=Path, help="folder for train.npz and heldout.npz")
    parser.add_argument("--documents", type=int, default=90_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    from tokenizers import Tokenizer

    tok = Tokenizer.from_file(str(args.tokenizer))
    args.out.mkdir(parents=True, exist_ok=True)
    for name, count, held in [("heldout", 900, True), ("train", args.documents, False)]:
        ids, w, counts = pack(tok, documents(Random(args.seed + held), count, held))
        np.savez(args.out / f"{name}.tmp.npz", ids=ids, weights=w)
        (args.out / f"{name}.tmp.npz").replace(args.out / f"{name}.npz")
        print(name, len(ids), {k: round(v / len(ids), 3) for k, v in counts.items()}, flush=True)


if __name__ == "__main__":
    main()
