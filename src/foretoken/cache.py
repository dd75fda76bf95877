"""Keys and values of sequences: append, roll back, share. The only thing that changes during decoding.

It alone knows about pages; everyone else speaks positions. A `PagePool` owns the memory of all cache layers,
a `Cache` is one sequence's view of it. Full layers grow; sliding layers drop pages that no row can see any more.
Layout of a page: see `foretoken.ops`. It must not know what the numbers mean.

Shared key/value layers own nothing here: they read their donor's pages (specification 2.7).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from weakref import WeakSet

import numpy as np

from foretoken.errors import CacheError
from foretoken.ops import PAGE


@dataclass(frozen=True)
class CacheLayer:
    """What one cache layer stores: `kind` "full" or "sliding", key/value heads, head width, window (None = all)."""

    layer: int
    kind: str
    num_kv_heads: int
    head_len: int
    window: int | None


@dataclass(frozen=True)
class View:
    """What attention of one kind of layer needs to find the keys of each row in a pass of T rows, G sequences.

    tables       (G, max_pages) int32, page of position p at [g, p // PAGE], −1 where there is none
    row_segment  (T,) int32, which sequence a row belongs to
    positions    (T,) int32, absolute position of the row
    begin, end   (T,) int32, the row sees begin <= key position < end
    """

    tables: np.ndarray
    row_segment: np.ndarray
    positions: np.ndarray
    begin: np.ndarray
    end: np.ndarray


class PagePool:
    """Memory of all cache layers for several sequences: pages are handed out, counted and taken back.

    layers         one `CacheLayer` per layer that owns keys and values
    positions      longest sequence that one cache may hold
    num_sequences  how many caches of that length must fit
    pass_rows      most rows that one sequence adds in one pass (a prompt chunk, or the longest draft + 1)

    A page id is valid in every layer of its kind. Memory is taken from the system zeroed and only when first touched.
    """

    def __init__(self, layers: Sequence[CacheLayer], positions: int, num_sequences: int, pass_rows: int) -> None:
        self.layers = {layer.layer: layer for layer in layers}
        self.windows = {layer.kind: layer.window for layer in layers}
        self.max_pages = -(-positions // PAGE)
        self.positions = positions
        self.pass_rows = pass_rows
        self.keys: dict[int, np.ndarray] = {}
        self.values: dict[int, np.ndarray] = {}
        self._lock = Lock()  # several threads may run sequences that share a pool
        self._caches: WeakSet[Cache] = WeakSet()
        self._counts: dict[str, np.ndarray] = {}
        self._free: dict[str, list[int]] = {}
        for kind, pages in self.pages_for(positions).items():
            pages = pages * num_sequences
            self._counts[kind] = np.zeros(pages, dtype=np.int32)
            self._free[kind] = list(range(pages - 1, -1, -1))
        for index, layer in self.layers.items():
            pages = len(self._counts[layer.kind])
            self.keys[index] = np.zeros((pages, layer.num_kv_heads, PAGE // 16, layer.head_len, 16), dtype=np.float16)
            self.values[index] = np.zeros((pages, layer.num_kv_heads, PAGE, layer.head_len), dtype=np.float16)

    def pages_for(self, positions: int) -> dict[str, int]:
        """Most pages of each kind that a sequence of so many positions holds at any time."""
        pages = -(-positions // PAGE)
        return {
            kind: pages if window is None else min(pages, (window + self.pass_rows) // PAGE + 2)
            for kind, window in self.windows.items()
        }

    @property
    def arrays(self) -> list[np.ndarray]:
        """All the memory there is: keys, then values of every layer."""
        return [*self.keys.values(), *self.values.values()]

    def page_bytes(self, kind: str) -> int:
        """Bytes of one page of a kind, keys and values of all its layers."""
        return sum(
            self.keys[index][0].nbytes + self.values[index][0].nbytes
            for index, layer in self.layers.items()
            if layer.kind == kind
        )

    def num_pages(self, kind: str) -> int:
        """How many pages of a kind there are, held or not."""
        return len(self._counts[kind])

    def free_pages(self, kind: str) -> int:
        """How many pages of a kind nobody holds."""
        return len(self._free[kind])

    def take(self, kind: str) -> int:
        """A fresh page with one owner; raises CacheError when all are held."""
        with self._lock:
            if not self._free[kind]:
                raise CacheError(
                    f"all {len(self._counts[kind])} pages of the {kind} layers are in use. Release a sequence first."
                )
            page = self._free[kind].pop()
            self._counts[kind][page] = 1
            return page

    def share(self, kind: str, page: int) -> None:
        """One more owner for a page."""
        with self._lock:
            self._counts[kind][page] += 1

    def drop(self, kind: str, page: int) -> None:
        """One owner less; the last one gives the page back."""
        with self._lock:
            self._counts[kind][page] -= 1
            assert self._counts[kind][page] >= 0
            if self._counts[kind][page] == 0:
                self._free[kind].append(page)

    def register(self, cache: Cache) -> None:
        """Remember a cache whose tables name pages of this pool, for as long as somebody has it."""
        self._caches.add(cache)

    def recount(self) -> None:
        """Count owners anew by the tables of all caches that there are: after an interrupt counts may be too high."""
        with self._lock:
            caches = list(self._caches)
            for kind, counts in self._counts.items():
                counts[:] = 0
                for cache in caches:
                    table = cache.tables[kind]
                    counts[table[table >= 0]] += 1
                self._free[kind] = np.flatnonzero(counts == 0)[::-1].tolist()

    def own(self, kind: str, table: np.ndarray, at: int) -> None:
        """Make page table[at] one that may be written: a copy where it has other owners, who keep it."""
        page = int(table[at])
        if self._counts[kind][page] == 1:
            return
        copy = self.take(kind)
        for index, layer in self.layers.items():
            if layer.kind == kind:
                self.keys[index][copy] = self.keys[index][page]
                self.values[index][copy] = self.values[index][page]
        table[at] = copy  # before the page is dropped, see `Cache`
        self.drop(kind, page)


class Cache:
    """One sequence's keys and values. `length` positions are stored, 0 … length − 1.

    A pass is `begin_pass(rows)`, the model's appends, `end_pass()`. `roll_back(n)` then undoes up to the rows of
    that pass, exactly: sliding pages are dropped only when the next pass begins, so a whole pass beyond the window
    is kept (specification 4.4).

    A page leaves a table before it is dropped, and is shared before it enters one: an interrupt in between loses a page
    until `PagePool.recount`, but never lets two owners write one.
    """

    def __init__(self, pool: PagePool) -> None:
        self.pool = pool
        self.length = 0
        self.tables = {kind: np.full(pool.max_pages, -1, dtype=np.int32) for kind in pool.windows}
        self._first_pages = dict.fromkeys(pool.windows, 0)  # earlier ones are dropped
        self._pass_rows = 0  # what may be rolled back
        self._open_rows = 0
        self._is_open = False
        pool.register(self)

    def begin_pass(self, rows: int, goes_on: bool = False) -> None:
        """Make room for `rows` new positions; drop what no later row can see.

        goes_on  the pass counts as one with the last, and `roll_back` may undo both
        """
        if self._is_open:
            raise CacheError("a pass is already open on this cache. End it first.")
        before = self._pass_rows if goes_on else 0
        if not 1 <= rows <= self.pool.pass_rows - before:
            raise CacheError(f"a pass of {rows} rows, expected 1 to {self.pool.pass_rows - before}. Split it.")
        if self.length + rows > self.pool.positions:
            raise CacheError(
                f"{self.length} positions stored and {rows} more asked, but the cache holds {self.pool.positions}."
            )
        first, last = self.length // PAGE, (self.length + rows - 1) // PAGE
        for kind, window in self.pool.windows.items():
            if window is not None:
                self._drop_pages_before(kind, (self.length - before - window + 1) // PAGE)
            table = self.tables[kind]
            for page in range(first, last + 1):
                if table[page] < 0:
                    table[page] = self.pool.take(kind)
                else:
                    self.pool.own(kind, table, page)
        self._pass_rows, self._open_rows = before, rows
        self._is_open = True

    def end_pass(self) -> None:
        """The rows of the open pass are stored."""
        if not self._is_open:
            raise CacheError("no pass is open on this cache.")
        self._is_open = False
        self._pass_rows += self._open_rows
        self.length += self._open_rows

    def abort_pass(self) -> None:
        """Forget an open pass that failed half-way, if there is one; what it wrote is never read."""
        self._is_open = False

    def roll_back(self, rows: int) -> None:
        """Undo the newest `rows` positions; raises CacheError beyond the last pass, where pages may be gone."""
        if self._is_open:
            raise CacheError("cannot roll back while a pass is open.")
        if not 0 <= rows <= self._pass_rows:
            raise CacheError(f"asked to roll back {rows} rows, the last pass added {self._pass_rows}.")
        self.length -= rows
        self._pass_rows -= rows
        for kind in self.tables:
            for page in range(-(-self.length // PAGE), -(-(self.length + rows) // PAGE)):
                self._drop(kind, page)

    def read(self, layer: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Copies of keys and values (stop − start, Hkv, Dh) float16 of positions start … stop − 1 of one layer.

        raises  CacheError where a position is not stored, or was dropped because no later row sees it
        """
        table, first = self.tables[self.pool.layers[layer].kind], start // PAGE
        pages = table[first : -(-stop // PAGE)]
        if not 0 <= start < stop <= self.length or (pages < 0).any():
            raise CacheError(f"positions {start} to {stop - 1} of layer {layer} are not all stored.")
        _, heads, _, width, _ = self.pool.keys[layer].shape
        keys = self.pool.keys[layer][pages].transpose(0, 2, 4, 1, 3).reshape(-1, heads, width)
        values = self.pool.values[layer][pages].transpose(0, 2, 1, 3).reshape(-1, heads, width)
        own = slice(start - first * PAGE, stop - first * PAGE)
        return keys[own], values[own]

    @property
    def first_cut(self) -> int:
        """The fewest positions that a fork may hold: sliding layers must still have the whole window before its end."""
        windows = self.pool.windows
        cuts = (self._first_pages[kind] * PAGE + w - 1 for kind, w in windows.items() if w and self._first_pages[kind])
        return max(cuts, default=0)

    def fork(self, length: int | None = None) -> Cache:
        """A second cache with the first `length` positions (all where not given); raises CacheError below `first_cut`.

        Pages are shared until one of the two writes into them.
        """
        if self._is_open:
            raise CacheError("cannot fork while a pass is open.")
        length = self.length if length is None else length
        if not self.first_cut <= length <= self.length:
            raise CacheError(f"a fork of {length} positions, expected {self.first_cut} to {self.length}.")
        other = Cache(self.pool)
        other.length = length
        for kind, table in self.tables.items():
            other._first_pages[kind] = self._first_pages[kind]
            for at in np.flatnonzero(table[: -(-length // PAGE)] >= 0):
                self.pool.share(kind, int(table[at]))
                other.tables[kind][at] = table[at]
        return other

    def release(self) -> None:
        """Give every page back; the cache is empty afterwards."""
        self.length = self._pass_rows = 0  # first: what is left of a text after an interrupt is no text
        self._is_open = False
        for kind, table in self.tables.items():
            for page in np.flatnonzero(table >= 0).tolist():
                self._drop(kind, page)
            self._first_pages[kind] = 0

    def _drop_pages_before(self, kind: str, page: int) -> None:
        first = self._first_pages[kind]
        for old in range(first, page):
            self._drop(kind, old)
        self._first_pages[kind] = max(first, page)

    def _drop(self, kind: str, at: int) -> None:
        """Forget the page table[at], where there is one."""
        page = int(self.tables[kind][at])
        if page >= 0:
            self.tables[kind][at] = -1
            self.pool.drop(kind, page)


@dataclass(eq=False)  # made for every pass; frozen ones take four times as long
class Segments:
    """Which rows of a pass belong to which cache, at which positions: rows of one cache are neighbours.

    pool    the memory that all caches of a pass share
    rows    (3 + kinds, T) int32, or so many (T,): each row's sequence, position, end, and its begin in every kind
    tables  the page table of every kind, in the order of `pool.windows`
    """

    pool: PagePool
    rows: Sequence[np.ndarray] | np.ndarray
    tables: list[np.ndarray]

    @cached_property
    def views(self) -> dict[str, View]:
        """kind → `View` of all T rows; a replayed pass does not ask for them."""
        owners, positions, ends, *begins = self.rows
        parts = zip(self.pool.windows, self.tables, begins, strict=True)
        return {kind: View(table, owners, positions, begin, ends) for kind, table, begin in parts}

    def over(self, rows: Sequence[np.ndarray] | np.ndarray) -> Segments:
        """The same pass, where arrays like those of `rows` say what is said of each row."""
        return Segments(self.pool, rows, self.tables)


def segments(caches: Sequence[Cache], rows: Sequence[int]) -> Segments:
    """The table for a pass that adds `rows[i]` positions to `caches[i]`; row at position p sees keys up to itself."""
    owners = [g for g, count in enumerate(rows) for _ in range(count)]
    positions = [p for one, n in zip(caches, rows, strict=True) for p in range(one.length, one.length + n)]
    return _lay_out(caches, owners, positions, [p + 1 for p in positions])


def read_only_segments(caches: Sequence[Cache]) -> Segments:
    """One row per cache at the position of its next token, seeing the stored keys only: what a drafter's step needs.

    Keys of a sliding layer: the target's own rule for a query at that position (specification 3.2).
    """
    lengths = [cache.length for cache in caches]
    return _lay_out(caches, list(range(len(caches))), lengths, lengths)


def _lay_out(caches: Sequence[Cache], owners: list[int], positions: list[int], ends: list[int]) -> Segments:
    """Python lists, joined into one array: for the few rows of a round faster than arithmetic on arrays."""
    pool = caches[0].pool
    for cache in caches:
        if cache.pool is not pool:
            raise CacheError("the caches of one pass belong to different pools.")
    numbers = owners + positions + ends
    for window in pool.windows.values():
        numbers += [max(p - window + 1, 0) for p in positions] if window else [0] * len(positions)
    rows = np.array(numbers, dtype=np.int32).reshape(-1, len(positions))
    if len(caches) == 1:  # as it stands: nobody writes into it during a pass
        return Segments(pool, rows, [caches[0].tables[kind][np.newaxis] for kind in pool.windows])
    return Segments(pool, rows, [np.array([cache.tables[kind] for cache in caches]) for kind in pool.windows])
