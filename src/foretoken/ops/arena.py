"""Memory for recorded wirings: the place of an array is taken again as soon as nobody holds the array.

Python's own reference counts say when a wiring is done with an array, so a model of many layers needs a handful of
blocks. A recorded op keeps an address, so blocks are neither moved nor given back while the arena lives. Not for
several threads at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

SMALLEST = 64  # bytes; also the alignment of every array
LOOSEST = 4  # an array takes a free block of at most so many times its size


def aligned(count: int) -> np.ndarray:
    """(count,) uint8 whose first byte lies at a multiple of 64; NumPy asks for huge pages where they exist."""
    raw = np.empty(count + SMALLEST, np.uint8)
    start = -raw.ctypes.data % SMALLEST
    return raw[start : start + count]


class Arena:
    """Gives arrays out of blocks whose sizes are powers of two; `blocks` are all there are, (bytes,) uint8 each."""

    def __init__(self) -> None:
        self.blocks: list[np.ndarray] = []
        self._free: list[np.ndarray] = []

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array like `np.empty`; its block is free again when it and every view of it are gone."""
        dtype = np.dtype(dtype)
        count = max(int(np.prod(shape)) * dtype.itemsize, SMALLEST)
        return np.asarray(_Lease(self._free, self._block(count), shape, dtype))

    def unleased(self, array: np.ndarray) -> np.ndarray:
        """The same array, but its block may be given to others although this view is held."""
        for block in self.blocks:
            offset = array.ctypes.data - block.ctypes.data
            if 0 <= offset < len(block):
                return np.ndarray(array.shape, array.dtype, block.data, offset, array.strides)
        return array

    def _block(self, count: int) -> np.ndarray:
        """The smallest free block that fits, of equals the one used last, or a new one."""
        fitting = [i for i, block in enumerate(self._free) if count <= len(block) <= LOOSEST * count]
        if fitting:
            return self._free.pop(min(reversed(fitting), key=lambda i: len(self._free[i])))
        self.blocks.append(aligned(1 << (count - 1).bit_length()))
        return self.blocks[-1]


class _Lease:
    """What the arrays of one block hold in common: the block is free when the last of them is gone."""

    _block: np.ndarray | None = None  # until it is made, before which an interrupt may come

    def __init__(self, free: list[np.ndarray], block: np.ndarray, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._free, self._block = free, block
        address = (block.ctypes.data, False)
        self.__array_interface__ = {"data": address, "shape": shape, "typestr": dtype.str, "version": 3}

    def __del__(self) -> None:
        if self._block is not None:
            self._free.append(self._block)
