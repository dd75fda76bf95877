"""The embedded pair, loaded once for all tests that need a real model."""

from functools import cache

import foretoken


@cache
def embedded(format="auto", drafter="auto"):
    return foretoken.load(format=format, drafter=drafter)


QUESTION = [{"role": "user", "content": "Define the word «harbor»."}]
CODE = "def add(a, b):\n    return a + b\n\n\ndef "
