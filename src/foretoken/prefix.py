"""Prompts read before: caches kept at checkpoints, so that a later prompt with the same beginning starts there.

A prefix of n tokens can be taken up only where the sliding layers still hold the window before n, so an entry is a
whole cache at one length (specification 2.9): a fork, whose pages are shared until somebody writes into them. Entries
are kept by last use within a budget of bytes. It knows tokens and caches, nothing of models or text.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock

from foretoken.cache import Cache, PagePool
from foretoken.errors import CacheError

EVERY = 2048  # tokens of a long prompt between two checkpoints


class PrefixStore:
    """Caches by the tokens that they hold; `budget_bytes` bounds the pages that they keep alive, shared ones once."""

    def __init__(self, pool: PagePool, budget_bytes: int) -> None:
        self._pool = pool
        self._budget_bytes = budget_bytes
        self._entries: OrderedDict[tuple[int, ...], Cache] = OrderedDict()  # least recently used first
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def take(self, tokens: Sequence[int]) -> Cache:
        """A cache for a new sequence: a fork of the longest entry that is a beginning of `tokens`, or an empty one.

        At least one token is always left to compute anew: it gives the row that chooses the next one.
        """
        with self._lock:
            best: tuple[int, ...] | None = None
            for key in self._entries:
                if (
                    len(key) < len(tokens)
                    and (best is None or len(key) > len(best))
                    and key == tuple(tokens[: len(key)])
                ):
                    best = key
            if best is None:
                return Cache(self._pool)
            self._entries.move_to_end(best)
            return self._entries[best].fork()

    def keep(self, tokens: Sequence[int], cache: Cache) -> None:
        """Remember a cache that holds exactly `tokens`; the cache itself stays the caller's."""
        if cache.length != len(tokens):
            raise CacheError(f"the cache holds {cache.length} positions, the tokens are {len(tokens)}.")
        key = tuple(tokens)
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return
            self._entries[key] = cache.fork()
            while self._entries and self._bytes() > self._budget_bytes:
                self._evict()

    def make_room(self, pages: dict[str, int]) -> None:
        """Forget entries, oldest first, until so many pages of each kind are free or none is left."""
        with self._lock:
            while self._entries and any(self._pool.free_pages(kind) < count for kind, count in pages.items()):
                self._evict()

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            while self._entries:
                self._evict()

    def _evict(self) -> None:
        _, cache = self._entries.popitem(last=False)
        cache.release()

    def _bytes(self) -> int:
        """Bytes of the pages that entries hold, each page once."""
        held: dict[str, set[int]] = {kind: set() for kind in self._pool.windows}
        for cache in self._entries.values():
            for kind, table in cache.tables.items():
                held[kind].update(table[table >= 0].tolist())
        return sum(len(pages) * self._pool.page_bytes(kind) for kind, pages in held.items())


def checkpoints(tokens: Sequence[int], turn_end_ids: frozenset[int], start: int) -> list[int]:
    """Lengths in start+1 … len(tokens) at which a prompt's cache is worth keeping, ascending.

    The end of the first turn (usually the system prompt), of the last one, every 2048 tokens, and the whole prompt.
    """
    ends = [i + 1 for i, token in enumerate(tokens) if token in turn_end_ids]
    wanted = {len(tokens), *ends[:1], *ends[-1:], *range(EVERY, len(tokens), EVERY)}
    return sorted(n for n in wanted if start < n <= len(tokens))
