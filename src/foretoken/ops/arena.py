"""Memory for recorded wirings: the place of an array is taken again as soon as nobody holds the array.

Python's own reference counts say when a wiring is done with an array, so a model of many layers needs a handful of
blocks. A recorded op keeps an address, so blocks are neither moved nor given back while the arena lives. Not for
several threads at once.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

SMALLEST = 64  # bytes; also the alignment of every array


def aligned(count: int) -> np.ndarray:
    """(count,) uint8 whose first byte lies at a multiple of 64; NumPy asks for huge pages where they exist."""
    raw = np.empty(count + SMALLEST, np.uint8)
    start = -raw.ctypes.data % SMALLEST
    return raw[start : start + count]


class Arena:
    """Gives arrays out of blocks whose sizes are powers of two; `blocks` are all there are, (bytes,) uint8 each."""

    def __init__(self) -> None:
        self.blocks: list[np.ndarray] = []
        self._free: dict[int, list[int]] = {}  # size -> addresses, the one used last at the end

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array like `np.empty`; its block is free again when it and every view of it are gone."""
        found = np.dtype(dtype)
        count = max(prod(shape) * found.itemsize, SMALLEST)
        return np.asarray(_Lease(self, count, shape, found))

    def unleased(self, array: np.ndarray) -> np.ndarray:
        """The same array, but its block may be given to others although this view is held."""
        for block in self.blocks:
            offset = array.ctypes.data - block.ctypes.data
            if 0 <= offset < len(block):
                return np.ndarray(array.shape, array.dtype, block.data, offset, array.strides)
        return array

    def take(self, count: int) -> tuple[list[int], int]:
        """The free blocks of a size, and the address of one that was among them: the smallest that fits, or new."""
        size = 1 << (count - 1).bit_length()
        for fitting in (size, 2 * size):  # twice that is less than four times what is needed
            free = self._free.setdefault(fitting, [])
            if free:
                return free, free.pop()
        block = aligned(size)
        self.blocks.append(block)
        return self._free[size], block.ctypes.data


class _Lease:
    """What the arrays of one block hold in common, and the memory with it: it is free when the last of them is gone."""

    _free: list[int] | None = None  # until it is made, before which an interrupt may come

    def __init__(self, arena: Arena, count: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        free, self._address = arena.take(count)
        self._free, self._arena = free, arena
        data = self._address, False
        self.__array_interface__ = {"data": data, "shape": shape, "typestr": dtype.str, "version": 3}

    def __del__(self) -> None:
        if self._free is not None:
            self._free.append(self._address)
