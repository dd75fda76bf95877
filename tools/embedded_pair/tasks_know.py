"""Chat tasks on the sources: definitions, documentation, code, prose.

Makers are pure: the same generator state gives the same pair.
"""

from __future__ import annotations

import re
from random import Random

from sources import DocEntry, Function, Gloss, plain
from tasks_data import dumps
from words import FIELDS, Pair, ask, fenced


def define(rng: Random, g: Gloss) -> Pair:
    text = rng.choice(
        [
            "Define {0}.",
            "Define {0}.",
            "What does {0} mean?",
            'What is the meaning of "{0}"?',
            "Define the {1} {0}.",
            "Give a short definition of {0}.",
        ]
    ).format(g.word, g.pos)
    answer = f"**{g.word}** ({g.pos}): {g.meaning}."
    if g.kind:
        answer += f"\nKind of: {g.kind}."
    if g.synonyms:
        answer += f"\nAlso: {', '.join(g.synonyms)}."
    if g.examples:
        answer += f'\nExample: "{g.examples[0]}"'
    return text, answer


def define_use(rng: Random, g: Gloss) -> Pair:
    """The definition is given; only its form changes."""
    base = f"{g.word} ({g.pos}): {g.meaning}"
    if rng.random() < 0.5:
        return ask(
            rng, "Which word does this definition belong to?", base
        ), f"The {g.pos} **{g.word}** means: {g.meaning}."
    return ask(rng, "Write this dictionary entry as JSON.", base), fenced(
        dumps({"word": g.word, "pos": g.pos, "meaning": g.meaning}), "json"
    )


def explain(rng: Random, e: DocEntry) -> Pair:
    what = {"function": "function", "class": "class", "method": "method"}.get(e.role, e.role)
    body = e.body[0] if len(e.body[0]) > 120 or len(e.body) == 1 else "\n\n".join(e.body[:2])
    kind = rng.randrange(4)
    if kind == 0:
        return rng.choice([f"Explain {e.name}.", f"What does `{e.name}` do?"]), f"`{e.signature}`\n\n{body}"
    if kind == 1:
        return f"Explain the {what} `{e.signature}`.", f"`{e.signature}`\n\n{body}"
    if kind == 2:
        return (
            f"Document the {what} `{e.signature}` of {e.page.split('/')[-1].split('.')[0]}.",
            f"`{e.signature}`\n\n{body}",
        )
    return f"Write the reST entry for the {what} `{e.signature}`.", f".. {e.role}:: {e.signature}\n\n   {body}"


def docs_find(rng: Random, e: DocEntry) -> Pair:
    """Copy the sentence about a name out of a passage, or turn an entry into reST."""
    passage = " ".join(e.body)
    sentences = re.split(r"(?<=[.!?]) (?=[A-Z`*])", passage)
    codes = [c for c in re.findall(r"`[^`]+`|\*\w+\*", passage) if passage.count(c) == 1]
    if rng.random() < 0.5 and len(sentences) > 1 and codes and len(passage) < 900:
        code = rng.choice(codes)
        return ask(
            rng, rng.choice([f"Which sentence mentions {code}?", f"Quote the sentence about {code}."]), passage
        ), next(s for s in sentences if code in s)
    if len(e.body[0]) > 450:
        return None
    if rng.random() < 0.5:
        return ask(
            rng, "Write this as a reST directive.", f"{e.signature}: {e.body[0]}"
        ), f".. {e.role}:: {e.signature}\n\n   {e.body[0]}"
    return ask(
        rng, "Write this as a Markdown section.", f".. {e.role}:: {e.signature}\n\n   {e.body[0]}"
    ), f"### `{e.signature}`\n\n{e.body[0]}"


def write_function(rng: Random, fn: Function) -> Pair:
    head = fn.code.split("\n")[0].rstrip(":")
    first = plain(fn.doc.split("\n\n")[0].replace("\n", " ")) if fn.doc else ""
    if rng.random() < 0.4 or not first:
        lines = fn.code.split("\n")
        cut = rng.randrange(1, max(2, len(lines) // 2 + 1))
        return ask(
            rng, rng.choice(["Complete this function.", "Finish this Python function:"]), fenced("\n".join(lines[:cut]))
        ), fenced(fn.code)
    if not first or len(first) > 200:
        return None
    text = rng.choice(
        [
            f'Write a function `{head}` with the docstring "{first}"',
            f"Write a Python function {fn.name}({', '.join(fn.args)}): {first}",
            f"Write `{head}`. {first}",
        ]
    )
    return text, fenced(fn.code)


def write_class(rng: Random) -> Pair:
    name = rng.choice(
        [
            "Point",
            "Person",
            "Book",
            "Node",
            "Task",
            "Order",
            "Car",
            "Account",
            "Event",
            "Message",
            "Shape",
            "Token",
            "User",
            "Item",
            "Record",
        ]
    )
    fields = rng.sample(FIELDS, rng.randrange(2, 4))
    if rng.random() < 0.3:
        types = [rng.choice(["int", "str", "float", "bool"]) for _ in fields]
        lines = ["from dataclasses import dataclass", "", "@dataclass", f"class {name}:"] + [
            f"    {f}: {t}" for f, t in zip(fields, types, strict=True)
        ]
        typed = ", ".join(f"{f}: {t}" for f, t in zip(fields, types, strict=True))
        return rng.choice(
            [f"Write a dataclass {name} with {typed}.", f"Write a Python dataclass `{name}` ({typed})."]
        ), fenced("\n".join(lines))
    lines = [f"class {name}:", f"    def __init__(self, {', '.join(fields)}):"] + [
        f"        self.{f} = {f}" for f in fields
    ]
    wants = []
    if rng.random() < 0.6:
        wants.append("__repr__")
        lines += [
            "",
            "    def __repr__(self):",
            f'        return f"{name}({", ".join(f"{f}={{self.{f}!r}}" for f in fields)})"',
        ]
    if rng.random() < 0.3:
        wants.append("__eq__")
        lines += [
            "",
            "    def __eq__(self, other):",
            "        return " + " and ".join(f"self.{f} == other.{f}" for f in fields),
        ]
    tail = f" and the methods {' and '.join(wants)}" if wants else ""
    return rng.choice(
        [
            f"Write a class {name} with the fields {', '.join(fields)}{tail}.",
            f"Write a Python class `{name}` with {', '.join(fields)}{tail}.",
        ]
    ), fenced("\n".join(lines))


def write_property(rng: Random) -> Pair:
    field, n = rng.choice(FIELDS), rng.randrange(4)
    if n == 0:
        return f"Write a property `{field}` with a setter.", fenced(
            f"@property\ndef {field}(self):\n    return self._{field}\n\n"
            f"@{field}.setter\ndef {field}(self, value):\n    self._{field} = value"
        )
    if n == 1:
        return f"Write a function that returns the largest {field} of a list of records.", fenced(
            f"def largest_{field}(records):\n    return max(record.{field} for record in records)"
        )
    if n == 2:
        return f"Write a function that sorts records by {field}.", fenced(
            f"def sort_by_{field}(records):\n    return sorted(records, key=lambda record: record.{field})"
        )
    return f"Write a test for the function get_{field}.", fenced(
        f"def test_get_{field}():\n    record = make_record({field}=1)\n    assert get_{field}(record) == 1"
    )


def continue_verses(rng: Random, verses: list[str]) -> Pair:
    if len(verses) < 4:
        return None
    i = rng.randrange(len(verses) - 3)
    given, n = rng.randrange(1, 3), rng.randrange(1, 3)
    text = rng.choice(
        [
            "Continue this passage.",
            "Continue:",
            "What comes next?",
            f"Write the next {'verse' if n == 1 else f'{n} verses'}.",
        ]
    )
    return ask(rng, text, "\n".join(verses[i : i + given])), "\n".join(verses[i + given : i + given + n])


def number_verses(rng: Random, verses: list[str]) -> Pair:
    i = rng.randrange(max(1, len(verses) - 3))
    some = verses[i : i + rng.randrange(2, 4)]
    start = i + 1
    if rng.random() < 0.5:
        return ask(
            rng,
            rng.choice([f"Number these verses from {start}.", f"Put verse numbers before these, from {start}:"]),
            "\n".join(some),
        ), "\n".join(f"{start + k} {v}" for k, v in enumerate(some))
    return ask(rng, rng.choice(["Quote the last verse.", "Repeat the last of these verses."]), "\n".join(some)), some[
        -1
    ]
