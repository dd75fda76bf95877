"""Prompts read before: caches kept at checkpoints, so that a later prompt with the same beginning starts there.

An entry is a whole cache at one length: a fork, whose pages are shared until somebody writes into them. It serves every
text that shares enough of its beginning: it can be cut where the sliding layers still hold the window before the cut
(specification 2.9), which is anywhere in a text no longer than the window, and within the last chunk of a longer one.
Entries are kept by last use within a budget of bytes. It knows tokens and caches, nothing of models or text.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from threading import Lock

import numpy as np

from foretoken.cache import Cache, PagePool
from foretoken.errors import CacheError

EVERY = 2048  # tokens of a long prompt between two checkpoints
LEAST = 16  # fewer are read anew sooner than a page is copied for them
MOST_ENTRIES = 1024  # all of which are looked through


class PrefixStore:
    """Caches by the tokens that they hold; `budget_bytes` bounds the pages that they keep alive, shared ones once."""

    def __init__(self, pool: PagePool, budget_bytes: int) -> None:
        self._pool = pool
        self._budget_bytes = budget_bytes
        self._entries: OrderedDict[tuple[int, ...], Cache] = OrderedDict()  # least recently used first
        self._held = {kind: Counter[int]() for kind in pool.windows}  # entries that hold a page
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def is_on(self) -> bool:
        """False where nothing may be kept, and texts are to be read each for itself."""
        return self._budget_bytes > 0

    def take(self, tokens: Sequence[int], others: Iterable[tuple[Sequence[int], Cache]] = ()) -> Cache:
        """A cache for a new sequence: as much of the beginning of `tokens` as is found, or an empty one.

        others   texts in progress with their caches, which may be forked as entries are

        At least one token is always left to compute anew: it gives the row that chooses the next one.
        """
        with self._lock:
            best, used, length = Cache(self._pool), None, LEAST - 1
            wanted, start = np.array(tokens, dtype=np.int64), list(tokens[:LEAST])
            entries = ((key, cache, key) for key, cache in self._entries.items())
            for own, cache, key in (*entries, *((own, cache, None) for own, cache in others)):
                if cache.length <= length or list(own[:LEAST]) != start:
                    continue
                cut = min(shared_len(wanted, own[: cache.length]), len(wanted) - 1)
                if cut > length and cut >= cache.first_cut:
                    best, used, length = cache, key, cut
            if used is not None:
                self._entries.move_to_end(used)
            return best.fork(length) if best.length else best

    def keep(self, tokens: Sequence[int], cache: Cache) -> None:
        """Remember a cache that holds exactly `tokens`, enough of them; the cache itself stays the caller's."""
        if cache.length != len(tokens):
            raise CacheError(f"the cache holds {cache.length} positions, the tokens are {len(tokens)}.")
        key = tuple(tokens)
        if len(key) < LEAST:
            return
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return
            self._entries[key] = own = cache.fork()
            self._count(own, 1)
            while self._entries and (self._bytes() > self._budget_bytes or len(self._entries) > MOST_ENTRIES):
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

    def recount(self) -> None:
        """Count anew which pages entries hold, behind an interrupt that may have come between."""
        with self._lock:
            for held in self._held.values():
                held.clear()
            for cache in self._entries.values():
                self._count(cache, 1)

    def _evict(self) -> None:
        _, cache = self._entries.popitem(last=False)
        self._count(cache, -1)
        cache.release()

    def _count(self, cache: Cache, entries: int) -> None:
        """So many entries more hold this one's pages."""
        for kind, table in cache.tables.items():
            held = self._held[kind]
            for page in table[table >= 0].tolist():
                held[page] += entries
                if not held[page]:
                    del held[page]

    def _bytes(self) -> int:
        """Bytes of the pages that entries hold, each page once."""
        return sum(len(pages) * self._pool.page_bytes(kind) for kind, pages in self._held.items())


def shared_len(a: Sequence[int] | np.ndarray, b: Sequence[int] | np.ndarray) -> int:
    """How many tokens two texts begin with that are the same."""
    count = min(len(a), len(b))
    differ = np.asarray(a[:count]) != np.asarray(b[:count])
    return int(differ.argmax()) if differ.any() else count


def checkpoints(tokens: Sequence[int], turn_end_ids: frozenset[int], start: int) -> list[int]:
    """Lengths in start+1 … len(tokens) at which a prompt's cache is worth keeping, ascending.

    The end of the first turn (usually the system prompt), of the last one, every 2048 tokens, and the whole prompt.
    """
    ends = [i + 1 for i, token in enumerate(tokens) if token in turn_end_ids]
    wanted = {len(tokens), *ends[:1], *ends[-1:], *range(EVERY, len(tokens), EVERY)}
    return sorted(n for n in wanted if start < n <= len(tokens))
