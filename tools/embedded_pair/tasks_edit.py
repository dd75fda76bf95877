"""Chat tasks that change given text: code edits and rewritten sentences.

Makers are pure: the same generator state gives the same pair.
"""

from __future__ import annotations

import re
from random import Random

from sources import Function
from words import ANIMAL, CITY, COLOR, FIRST, JOB, NEWNAME, THING, Pair, ask, fenced


def edit_rename(rng: Random, fn: Function) -> Pair:
    names = [a for a in fn.args if len(a) > 1 and len(re.findall(rf"\b{a}\b", fn.code)) > 1]
    if not names:
        return None
    old, new = rng.choice(names), rng.choice(NEWNAME)
    if re.search(rf"\b{new}\b", fn.code):
        return None
    text = rng.choice(
        [
            "Rename `{0}` to `{1}` in this code.",
            "Rename the variable {0} to {1}.",
            "In this function, change the name {0} to {1}:",
            "Please rename the argument `{0}` to `{1}`.",
        ]
    )
    return ask(rng, text.format(old, new), fenced(fn.code)), fenced(re.sub(rf"\b{old}\b", new, fn.code))


def edit_function_name(rng: Random, fn: Function) -> Pair:
    new = rng.choice(["run", "get", "make", "find", "read", "load", "check", "build"]) + "_" + rng.choice(NEWNAME)
    text = rng.choice(
        [
            "Rename the function `{0}` to `{1}`.",
            "Change the function's name from {0} to {1}.",
            "Call this function {1} instead of {0}:",
        ]
    )
    return ask(rng, text.format(fn.name, new), fenced(fn.code)), fenced(re.sub(rf"\b{fn.name}\b", new, fn.code))


def edit_add_argument(rng: Random, fn: Function) -> Pair:
    match = re.match(r"def \w+\(([^()\n]*)\):", fn.code)
    if not match or "*" in match[1]:
        return None
    arg = rng.choice(
        [
            "verbose=False",
            "timeout=None",
            "debug=False",
            "default=None",
            "strict=True",
            "limit=10",
            "encoding='utf-8'",
            "flags=0",
            "quiet=False",
            "depth=1",
        ]
    )
    inner = f"{match[1]}, {arg}" if match[1].strip() else arg
    code = fn.code[: match.start(1)] + inner + fn.code[match.end(1) :]
    text = rng.choice(
        [
            "Add an argument `{0}` to this function.",
            "Add the parameter {0} at the end of the signature.",
            "Give this function a new argument {0}:",
        ]
    )
    return ask(rng, text.format(arg), fenced(fn.code)), fenced(code)


def edit_docstring(rng: Random, fn: Function) -> Pair:
    if fn.doc:
        match = re.search(r'\n +r?"""[\s\S]*?"""', fn.code)
        if not match:
            return None
        code = fn.code[: match.start()] + fn.code[match.end() :]
        if code.count("\n") < 1:
            return None
        return ask(
            rng, rng.choice(["Remove the docstring.", "Delete the docstring from this function."]), fenced(fn.code)
        ), fenced(code)
    match = re.match(r"def .*:\n", fn.code)
    if not match:
        return None
    doc = (
        rng.choice(["Return", "Compute", "Check", "Update", "Read", "Write", "Handle"])
        + " the "
        + rng.choice(NEWNAME)
        + "."
    )
    code = fn.code[: match.end()] + f'    """{doc}"""\n' + fn.code[match.end() :]
    return ask(rng, f'Add the docstring "{doc}" to this function.', fenced(fn.code)), fenced(code)


def edit_constant(rng: Random, fn: Function) -> Pair:
    found = re.findall(r"'[A-Za-z_ ]{2,16}'|\"[A-Za-z_ ]{2,16}\"|\b[1-9]\d*\b|\bTrue\b|\bFalse\b|\bNone\b", fn.code)
    if not found:
        return None
    old = rng.choice(found)
    new = {"True": "False", "False": "True", "None": rng.choice(["0", "''", "False"])}.get(old)
    if new is None:
        new = str(rng.randrange(2, 100)) if old[0].isdigit() else old[0] + rng.choice(NEWNAME) + old[0]
    code = re.sub(rf"(?<!\w){re.escape(old)}(?!\w)", lambda _: new, fn.code)
    text = rng.choice(["Replace {0} with {1} in this code.", "Change {0} to {1}.", "Replace every {0} by {1}:"])
    return ask(rng, text.format(f"`{old}`", f"`{new}`"), fenced(fn.code)), fenced(code)


def edit_comment(rng: Random, fn: Function) -> Pair:
    note = f"{rng.choice(['TODO: check', 'NOTE: see', 'Handles', 'Uses', 'Returns'])} the {rng.choice(NEWNAME)}"
    return ask(rng, f'Add the comment "{note}" above this function.', fenced(fn.code)), fenced(f"# {note}\n{fn.code}")


EDITS = [edit_rename, edit_rename, edit_function_name, edit_add_argument, edit_docstring, edit_constant, edit_comment]


def rewrite_case(rng: Random, text: str) -> Pair:
    if rng.random() < 0.5:
        return ask(
            rng,
            rng.choice(
                ["Write this in upper case.", "Convert to upper case:", "Rewrite this sentence in capital letters."]
            ),
            text,
        ), text.upper()
    return ask(rng, rng.choice(["Write this in lower case.", "Convert to lower case:"]), text), text.lower()


def rewrite_word(rng: Random, text: str) -> Pair:
    words = list(re.findall(r"\b[a-z]{4,12}\b", text))
    if not words:
        return None
    old, new = rng.choice(words), rng.choice(THING + ANIMAL + COLOR + JOB)
    instruction = rng.choice(
        ['Replace "{0}" with "{1}".', "Replace the word {0} by {1}.", "Rewrite this, with {1} instead of {0}:"]
    )
    return ask(rng, instruction.format(old, new), text), re.sub(rf"\b{old}\b", new, text)


def rewrite_repeat(rng: Random, text: str) -> Pair:
    kind = rng.randrange(4)
    if kind == 0:
        return ask(
            rng, rng.choice(["Repeat this text exactly.", "Copy this text.", "Say this again, word for word:"]), text
        ), text
    if kind == 1:
        return ask(rng, "Put this in quotation marks.", text), f'"{text}"'
    if kind == 2:
        return ask(rng, "Quote this as a Markdown block quote.", text), f"> {text}"
    start = rng.choice(["It is said that ", "Remember: ", "In short, ", "Note that ", "As they say, "])
    return ask(rng, f'Begin the sentence with "{start.strip()}".', text), start + text[0].lower() + text[1:]


def rewrite_person(rng: Random, _: str) -> Pair:
    name, job, city, thing = rng.choice(FIRST), rng.choice(JOB), rng.choice(CITY), rng.choice(THING)
    verbs = [
        ("works", "worked"),
        ("lives", "lived"),
        ("buys", "bought"),
        ("sees", "saw"),
        ("sells", "sold"),
        ("finds", "found"),
        ("keeps", "kept"),
        ("likes", "liked"),
    ]
    (v1, p1), (v2, p2) = rng.sample(verbs[2:], 2)
    color, animal = rng.choice(COLOR), rng.choice(ANIMAL)
    present = f"{name} {v1} a {color} {thing} in {city} and {v2} the {animal} of the {job}."
    past = f"{name} {p1} a {color} {thing} in {city} and {p2} the {animal} of the {job}."
    if rng.random() < 0.5:
        return ask(
            rng, rng.choice(["Rewrite this sentence in the past tense.", "Put this in the past tense:"]), present
        ), past
    if rng.random() < 0.5:
        return ask(
            rng, rng.choice(["Rewrite this sentence in the present tense.", "Put this in the present tense:"]), past
        ), present
    other = rng.choice(FIRST)
    return ask(rng, f"Write this about {other} instead of {name}.", past), past.replace(name, other)


def rewrite_list(rng: Random, text: str) -> Pair:
    parts = [p.strip() for p in re.split(r"[.;:,] ", text.rstrip(".")) if p.strip()]
    if not 2 <= len(parts) <= 7:
        return None
    if rng.random() < 0.5:
        return ask(rng, rng.choice(["Write this as a bullet list.", "Turn this into bullet points:"]), text), "\n".join(
            f"- {p}" for p in parts
        )
    return ask(rng, rng.choice(["Write this as a numbered list.", "Number the parts of this:"]), text), "\n".join(
        f"{i}. {p}" for i, p in enumerate(parts, 1)
    )


REWRITES = [rewrite_case, rewrite_word, rewrite_word, rewrite_repeat, rewrite_person, rewrite_list]
