"""Fixtures of the kernel tests."""

from collections.abc import Iterator

import numpy as np
import pytest

from foretoken.ops import native


@pytest.fixture(autouse=True)
def restore_choice() -> Iterator[None]:
    isa, is_intel, threads = native.isa(), native.is_intel(), native.threads()
    yield
    native.set_isa(isa)
    native.take_for_intel(is_intel)
    native.set_threads(threads)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20260401)
