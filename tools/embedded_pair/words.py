# ruff: noqa: SIM905
"""Word lists for invented records, and the two helpers every task maker uses."""

from __future__ import annotations

from random import Random

Pair = tuple[str, str] | None  # (request, answer), or None when the record does not suit

FIRST = """
    Ada Ben Carla David Elena Frank Grace Hugo Ines Jack Karin Liam Mona Nils Olga Paul Rosa Sven Tara Victor
    Wanda Yara Zoe Anna Peter Maria Thomas Julia Martin Laura
""".split()
LAST = """
    Archer Baker Cole Dunn Evans Fischer Grant Hill Irving Jones Keller Lopez Moore Novak Olsen Price Quinn
    Reed Stone Turner Vogel Ward Young Brown Carter Lang Meyer Silva Costa Berg
""".split()
CITY = """
    Oslo Paris Leeds Lisbon Berlin Vienna Dublin Madrid Prague Turin Ghent Basel Porto Lyon Bergen Krakow
    Zurich Bristol Malmo Seville
""".split()
JOB = """
    baker teacher nurse pilot farmer lawyer driver painter singer doctor writer tailor gardener plumber
    chemist librarian carpenter engineer waiter sailor
""".split()
COLOR = "red blue green yellow black white purple orange brown grey".split()
THING = """
    lamp chair book table pencil bottle clock jacket basket mirror hammer kettle blanket bicycle violin camera
    ladder candle pillow teapot
""".split()
FRUIT = "apple pear plum cherry grape lemon orange banana melon peach fig mango kiwi lime apricot".split()
ANIMAL = """
    dog cat horse cow sheep goat duck goose rabbit mouse fox wolf bear deer owl eagle heron otter seal whale
""".split()
NEWNAME = """
    value item data result entry node count total index buffer source target name key text line other first
    last current limit size path parts state flags options extra info record
""".split()
FIELDS = """
    name age city email id title price color size status owner width height path count level kind label year
    score
""".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()


def fenced(code: str, lang: str = "python") -> str:
    return f"```{lang}\n{code}\n```"


def ask(rng: Random, instruction: str, material: str) -> str:
    """Instruction and material, in either order."""
    if rng.random() < 0.85:
        return f"{instruction}\n\n{material}"
    return f"{material}\n\n{instruction}"
