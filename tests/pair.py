"""The embedded pair, loaded once for all tests that need a real model."""

from functools import cache

import foretoken


@cache
def embedded(format="auto", drafter="auto"):
    return foretoken.load(format=format, drafter=drafter)


# Of the kind that the pair was trained for; elsewhere its drafter hardly guesses a token.
ENTRY = "harbor (noun): a sheltered port where ships can take on or discharge cargo"
QUESTION = [{"role": "user", "content": f"Write this dictionary entry as JSON.\n\n{ENTRY}"}]
CODE = "def add(a, b):\n    return a + b\n\n\ndef "
