"""Chat tasks on invented records: JSON and lists.

Makers are pure: the same generator state gives the same pair.
"""

from __future__ import annotations

import json
from random import Random

from words import ANIMAL, CITY, COLOR, DAYS, FIELDS, FIRST, FRUIT, JOB, LAST, MONTHS, THING, Pair, ask, fenced


def person(rng: Random) -> dict:
    first, last = rng.choice(FIRST), rng.choice(LAST)
    record = {"name": f"{first} {last}", "age": rng.randrange(18, 80), "city": rng.choice(CITY), "job": rng.choice(JOB)}
    if rng.random() < 0.4:
        record["email"] = f"{first.lower()}@{rng.choice(['example.com', 'example.org', 'mail.example'])}"
    if rng.random() < 0.3:
        record["active"] = rng.random() < 0.5
    if rng.random() < 0.2:
        record["hobbies"] = rng.sample(["chess", "music", "running", "cooking", "reading", "sailing"], 2)
    return record


def product(rng: Random) -> dict:
    record = {
        "id": rng.randrange(100, 1000),
        "item": rng.choice(THING),
        "color": rng.choice(COLOR),
        "price": round(rng.randrange(100, 9999) / 100, 2),
    }
    if rng.random() < 0.4:
        record["stock"] = rng.randrange(0, 200)
    if rng.random() < 0.3:
        record["size"] = {"width": rng.randrange(5, 100), "height": rng.randrange(5, 100)}
    return record


def dumps(record: object) -> str:
    return json.dumps(record, indent=2)


def json_from_sentence(rng: Random) -> Pair:
    if rng.random() < 0.6:
        r = person(rng)
        text = rng.choice(
            [
                "{name} is {age} years old, lives in {city} and works as a {job}.",
                "{name}, {age}, is a {job} from {city}.",
                "The {job} {name} lives in {city} and is {age} years old.",
            ]
        ).format(**r)
        record = {k: r[k] for k in ("name", "age", "city", "job")}
    else:
        r = product(rng)
        text = rng.choice(
            [
                "Item {id} is a {color} {item} and costs {price}.",
                "We sell a {color} {item} (number {id}) for {price}.",
                "The {color} {item} with id {id} has a price of {price}.",
            ]
        ).format(**r)
        record = {k: r[k] for k in ("id", "item", "color", "price")}
    return ask(
        rng,
        rng.choice(
            [
                "Turn this into JSON.",
                f"Write this as JSON with the keys {', '.join(record)}.",
                "Fill a JSON object from this sentence:",
            ]
        ),
        text,
    ), fenced(dumps(record), "json")


def json_change(rng: Random) -> Pair:
    record = rng.choice([person, product])(rng)
    old = fenced(dumps(record), "json")
    new = dict(record)
    kind = rng.randrange(4)
    key = rng.choice(list(record))
    if kind == 0:
        fresh = (person if "name" in record else product)(rng)
        if key not in fresh:
            return None
        new[key] = fresh[key]
        text = rng.choice(
            ["Change `{0}` to {1}.", "Set {0} to {1} in this JSON.", "Update the field {0} to {1}:"]
        ).format(key, json.dumps(fresh[key]))
    elif kind == 1:
        del new[key]
        text = rng.choice(["Remove the field `{0}`.", "Delete {0} from this JSON."]).format(key)
    elif kind == 2:
        key = rng.choice([f for f in FIELDS if f not in record])
        new[key] = rng.choice([rng.randrange(1, 99), rng.choice(COLOR), True, None])
        text = rng.choice(["Add a field `{0}` with the value {1}.", "Add {0}: {1} to this JSON."]).format(
            key, json.dumps(new[key])
        )
    else:
        fresh = rng.choice([f for f in FIELDS if f not in record])
        new = {fresh if k == key else k: v for k, v in record.items()}
        text = rng.choice(["Rename the key `{0}` to `{1}`.", "In this JSON, rename {0} to {1}."]).format(key, fresh)
    return ask(rng, text, old), fenced(dumps(new), "json")


def json_from_table(rng: Random) -> Pair:
    rows = [{k: v for k, v in person(rng).items() if k in ("name", "age", "city")} for _ in range(rng.randrange(2, 4))]
    if rng.random() < 0.5:
        rows = [{"item": rng.choice(THING), "color": rng.choice(COLOR), "count": rng.randrange(1, 90)} for _ in rows]
    table = ",".join(rows[0]) + "\n" + "\n".join(",".join(str(v) for v in r.values()) for r in rows)
    if rng.random() < 0.6:
        return ask(rng, rng.choice(["Convert this CSV to JSON.", "Turn this table into a JSON list:"]), table), fenced(
            dumps(rows), "json"
        )
    return ask(rng, "Convert this JSON to CSV.", fenced(dumps(rows), "json")), table


def json_fill(rng: Random) -> Pair:
    record = rng.choice([person, product])(rng)
    lines = "\n".join(f"{k}: {json.dumps(v) if not isinstance(v, str) else v}" for k, v in record.items())
    empty = dict.fromkeys(record)
    if rng.random() < 0.5:
        return ask(rng, "Turn this record into JSON.", lines), fenced(dumps(record), "json")
    return f"Fill this JSON:\n\n{fenced(dumps(empty), 'json')}\n\nwith these values:\n\n{lines}", fenced(
        dumps(record), "json"
    )


JSONS = [json_from_sentence, json_change, json_change, json_from_table, json_fill]


def list_numbers(rng: Random) -> Pair:
    step, start, n = rng.randrange(1, 11), rng.randrange(0, 60), rng.randrange(5, 13)
    seq = [str(start + i * step) for i in range(n + 4)]
    return ask(
        rng,
        rng.choice([f"Continue this list with {n} more numbers.", f"Write the next {n} numbers."]),
        ", ".join(seq[:4]),
    ), ", ".join(seq[4:])


def list_cycle(rng: Random) -> Pair:
    cycle = rng.choice([DAYS, MONTHS])
    start, n = rng.randrange(12), rng.randrange(4, 8)
    seq = [cycle[(start + i) % len(cycle)] for i in range(n + 3)]
    return f"Continue this list with {n} more entries: {', '.join(seq[:3])}", ", ".join(seq[3:])


def list_items(rng: Random) -> Pair:
    items = rng.sample(rng.choice([FRUIT, ANIMAL, THING, JOB, CITY, FIRST]), rng.randrange(4, 9))
    kind = rng.randrange(5)
    plain_list = ", ".join(items)
    if kind == 0:
        return ask(rng, rng.choice(["Number these.", "Write this as a numbered list."]), plain_list), "\n".join(
            f"{i}. {x}" for i, x in enumerate(items, 1)
        )
    if kind == 1:
        return ask(rng, "Write this as a bullet list.", plain_list), "\n".join(f"- {x}" for x in items)
    if kind == 2:
        return ask(
            rng, rng.choice(["Sort this list alphabetically.", "Put these in alphabetical order:"]), plain_list
        ), ", ".join(sorted(items))
    if kind == 3:
        return ask(rng, "Reverse this list.", plain_list), ", ".join(reversed(items))
    return ask(rng, "Write this as a Python list of strings.", plain_list), fenced(f"items = {json.dumps(items)}")


def list_times(rng: Random) -> Pair:
    k, n = rng.randrange(2, 13), rng.randrange(5, 11)
    return rng.choice(
        [f"Write the multiplication table of {k} up to {n}.", f"Count by {k}, as a table, up to {n} times {k}."]
    ), "\n".join(f"{i} x {k} = {i * k}" for i in range(1, n + 1))


LISTS = [list_numbers, list_cycle, list_items, list_items, list_times]
