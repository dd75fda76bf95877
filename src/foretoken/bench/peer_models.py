"""One model file by our engine and by llama-cpp-python: passes of several rows, likelihood of a text, whole answers.

Each class is a peer for `peer_process`. Both see the same token ids. Passes come after the same random context and
give all rows' logits; llama-cpp-python is called below its Python layer there, which would copy them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from time import perf_counter
from typing import Any

import numpy as np

from foretoken import engine
from foretoken.api import load
from foretoken.bench import subject
from foretoken.bench.answers import timed
from foretoken.bench.peer_process import own_version, steady
from foretoken.bench.peer_report import without_paths
from foretoken.cache import Cache, segments
from foretoken.ops import native

WINDOW = 512  # tokens of a text that are read afresh
BLOCK = 128  # rows whose logits exist at a time
SPARE = 64  # places in the context beyond what is asked for


def nats(windows: Iterable[Sequence[int]], scored: Callable[[Sequence[int]], Iterator[np.ndarray]]) -> float:
    """Sum of −log p(token | the window before it), over all tokens of each window but its first.

    scored  gives the logits (rows, V) of a window's tokens, block by block
    """
    total = 0.0
    for window in windows:
        labels, at = window[1:], 0
        for block in scored(window[:-1]):
            logits = block.astype(np.float64)
            top = logits.max(axis=1, keepdims=True)
            sums = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
            total += float((sums - logits[np.arange(len(logits)), labels[at : at + len(logits)]]).sum())
            at += len(logits)
        assert at == len(labels)
    return total


def windows(ids: Sequence[int], begin: int | None) -> list[list[int]]:
    """A text in windows that each start with the token `begin`, without which some models predict nothing."""
    head = [] if begin is None else [begin]
    body = list(ids[1:] if begin is not None and ids[:1] == [begin] else ids)
    step = WINDOW - len(head)
    found = [head + body[at : at + step] for at in range(0, len(body), step)]
    return [window for window in found if len(window) > 1]


class ForetokenModel:
    """Ours, through `api.load`."""

    def __init__(self, path: str, format: str, drafter: str, threads: int, context: int) -> None:
        self._model = load(path, format=format, drafter=drafter, threads=threads)
        self._context = context
        self._rounds: subject.Rounds | None = None
        info = self._model.info()
        self.info = {
            "version": own_version(),
            "format": info["format"],
            "kernel": native.isa(),
            "drafter": without_paths(f"{info['drafter']['state']}: {info['drafter']['reason']}"),
            "drafts": self._model.drafter is not None,
            "weight_bytes": info["packed_bytes"],
        }

    def time(self, rows: int, calls: int) -> float:
        """Seconds of a pass over so many rows."""
        if self._rounds is None:
            self._rounds = subject.Rounds(subject.loaded(self._model), self._context)
        rounds = self._rounds
        return steady(lambda: rounds.verify(rows), calls)

    def ids(self, text: str) -> list[int]:
        """Token ids of a text, with the token that begins every text."""
        return self._model.tokenizer.encode(text, add_bos=True)

    def prompt_ids(self, prompt: dict[str, Any]) -> list[int]:
        """Of a prompt of a set: its text, or its messages by the model's template, or bare where it has none."""
        if "prompt" in prompt:
            return self.ids(prompt["prompt"])
        template = self._model.chat_template
        if template is None:
            return self.ids("\n\n".join(message["content"] for message in prompt["messages"]))
        return self._model.tokenizer.encode(template.render(prompt["messages"]), add_bos=False)

    def nats(self, texts: list[list[int]]) -> float:
        """See `nats`."""
        runner = engine.Engine(self._model.target, BLOCK)

        def scored(ids: Sequence[int]) -> Iterator[np.ndarray]:
            cache = Cache(runner.pool(WINDOW))
            for at in range(0, len(ids), BLOCK):
                rows = np.array(ids[at : at + BLOCK], dtype=np.int32)
                cache.begin_pass(len(rows))
                keep = np.arange(len(rows), dtype=np.int32)
                hidden = self._model.target.forward(rows, segments([cache], [len(rows)]), keep)
                cache.end_pass()
                yield self._model.target.logits(hidden)

        return nats(texts, scored)

    def write(self, ids: list[int], max_tokens: int, horizon: str) -> dict[str, Any]:
        """A greedy answer: its tokens, and the seconds of all but those of the prompt's own row."""
        answer = timed(self._model, horizon, max_tokens, ids)
        stops = set(self._model.defaults.eos_ids)
        tokens = [token for token in answer.result.tokens if token not in stops]
        return {"tokens": tokens, "timed": answer.timed_tokens, "seconds": answer.seconds}


class LlamaCppPython:
    """llama-cpp-python as it comes, by its own defaults.

    context      random tokens before the passes that are timed
    n_ctx        positions
    has_lookup   made for drafting by prompt lookup, for which it keeps the logits of every row
    """

    def __init__(self, path: str, threads: int, context: int, n_ctx: int, has_lookup: bool) -> None:
        self._api = import_module("llama_cpp")
        self._lookup = import_module("llama_cpp.llama_speculative").LlamaPromptLookupDecoding
        self._llama = self._api.Llama(
            model_path=path,
            n_ctx=n_ctx,
            n_threads=threads,
            n_threads_batch=threads,
            logits_all=has_lookup,
            verbose=False,
        )
        self._context, self._has_context = context, False
        self._vocab_len = self._llama.n_vocab()
        self._batch = self._api.llama_batch_init(WINDOW, 0, 1)
        self.info = {
            "version": self._api.__version__,
            "name": self._llama.metadata.get("general.name", "unnamed"),
            "begin": self._llama.token_bos(),
        }

    def time(self, rows: int, calls: int) -> float:
        """Seconds of a pass over so many rows, all their logits at hand."""
        if not self._has_context:
            tokens = np.random.default_rng(0).integers(0, self._vocab_len, self._context)
            self._forget(0)
            for at in range(0, self._context, WINDOW):
                self._decode(tokens[at : at + WINDOW], at)
            self._has_context = True
        tokens = np.random.default_rng(1).integers(0, self._vocab_len, subject.MAX_ROWS)[:rows]

        def once() -> None:
            self._forget(self._context)
            self._decode(tokens, self._context)

        return steady(once, calls)

    def ids(self, text: str) -> list[int]:
        """Token ids of a text, with the token that begins every text."""
        found: list[int] = self._llama.tokenize(text.encode("utf-8"), add_bos=True, special=False)
        return found

    def nats(self, texts: list[list[int]]) -> float:
        """See `nats`."""
        self._has_context = False

        def scored(ids: Sequence[int]) -> Iterator[np.ndarray]:
            self._forget(0)
            for at in range(0, len(ids), BLOCK):
                yield self._decode(ids[at : at + BLOCK], at)

        return nats(texts, scored)

    def write(self, ids: list[int], max_tokens: int, lookup: int) -> dict[str, Any]:
        """A greedy answer, with `lookup` draft tokens from earlier text per step; 0 is plain decoding."""
        self._has_context = False
        self._llama.draft_model = self._lookup(num_pred_tokens=lookup) if lookup else None
        self._llama.reset()
        vocab = self._api.llama_model_get_vocab(self._llama.model)
        tokens: list[int] = []
        timed, started, ended = 0, 0.0, 0.0
        for token in self._llama.generate(ids, temp=0.0, repeat_penalty=1.0):
            ended = perf_counter()
            if started:
                timed += 1
            else:
                started = ended
            if self._api.llama_vocab_is_eog(vocab, token):
                break
            tokens.append(int(token))
            if len(tokens) == max_tokens:
                break
        return {"tokens": tokens, "timed": timed, "seconds": ended - started}

    def _forget(self, length: int) -> None:
        """Keep the first `length` tokens only."""
        memory = self._api.llama_get_memory(self._llama.ctx)
        if not self._api.llama_memory_seq_rm(memory, -1, length, -1):
            raise RuntimeError(f"llama.cpp cannot go back to {length} tokens")

    def _decode(self, tokens: Sequence[int] | np.ndarray, position: int) -> np.ndarray:
        """Logits (rows, V) float32 of so many tokens from `position` on, in llama.cpp's own memory."""
        batch = self._batch
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i], batch.pos[i] = int(token), position + i
            batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, 0, 1
        if code := self._api.llama_decode(self._llama.ctx, batch):
            raise RuntimeError(f"llama_decode gave {code}")
        logits = self._api.llama_get_logits(self._llama.ctx)  # waits for the pass
        return np.ctypeslib.as_array(logits, shape=(len(tokens), self._vocab_len))
