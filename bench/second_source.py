"""What the text itself brings as second source: both together against the model's own drafter alone, domain by domain.

    python bench/second_source.py [--model MODEL --drafter DRAFTER --format q4 --prompts PATH --horizons 2,4,8]

The same greedy answers plainly, with the drafter alone, and with the drafter and the text (`suffix`), in turn; answers
that fall into a loop are left out. Speeds are over plain decoding; `both over alone` compares turn by turn, at each
horizon and of each one's best. `mix` is the time of all answers together.
"""

import json
import sys
from functools import partial

import foretoken
from foretoken.bench import prompts, script
from foretoken.bench.answers import PLAIN, require_drafter, require_prompts, timed
from foretoken.bench.loops import is_loop
from foretoken.bench.timing import Times, fields, interleaved
from foretoken.cli import terminal
from foretoken.drafters.choice import Choice
from foretoken.errors import InputError
from foretoken.horizon import parse_horizon


def measure(options):
    """By domain, and of all answers as "mix": the fields of `figures`; `same_text` of every answer."""
    for horizon in options.horizons:
        parse_horizon(horizon)
    model = foretoken.load(options.model, drafter=options.drafter, format=options.format)
    asked = prompts.load(options.prompts or prompts.default_set(options.model is None), options.limit)
    require_drafter(model)
    require_prompts(model, asked)
    both = model.drafter
    if not isinstance(both, Choice) or both.suffix is None or len(both.models) != 1:
        raise InputError(f"the drafter is {both.name}, expected one model and the text, as in mtp=PATH,suffix.")
    (alone,) = both.models.values()
    cases = [("plain", PLAIN), *((source, h) for h in options.horizons for source in ("alone", "both"))]
    places = prompts.places(asked)
    answers = {}

    def write(place, case):
        model.drafter = alone if case[0] == "alone" else both
        answer = timed(model, case[1], options.max_tokens, **asked[place[1]][place[0]])
        answers.setdefault(place, {}).setdefault(case, []).append(answer)
        return answer.seconds

    for case in cases:  # the first run of a shape is slow
        write(places[0], case)
    runs = {(place, case): partial(write, place, case) for place in places for case in cases}
    with terminal.progress("second source") as advance:
        times = interleaved(runs, options.repeats, advance, has_warm_up=False)
    texts = {place: [one.result.tokens for found in own.values() for one in found] for place, own in answers.items()}
    kept = [place for place in places if not is_loop(texts[place][0])]
    domains = {domain: [place for place in kept if place[1] == domain] for domain in asked}
    return {
        "domains": {
            domain: figures(own, cases, times, answers) if own else None
            for domain, own in ({**domains, "mix": kept}).items()
        },
        "loops": len(places) - len(kept),
        "same_text": all(text == own[0] for own in texts.values() for text in own),
    }


def figures(places, cases, times, answers):
    """`alone`, `both`: speed over plain and tokens a round by horizon; `both_over_alone`, also of each best."""
    spent = {
        case: Times(tuple(map(sum, zip(*(times[place, case].seconds for place in places), strict=True))))
        for case in cases
    }
    speed = {case: spent["plain", PLAIN].over(own) for case, own in spent.items()}
    found = {"answers": len(places)}
    fastest = {}
    for source in ("alone", "both"):
        own = {h: speed[of, h] for of, h in cases if of == source}
        per_round = {h: _tokens_per_round(answers[place][source, h][-1] for place in places) for h in own}
        found[source] = {**fields("speedup", own), "tokens_per_round": per_round}
        fastest[source] = max((case for case in cases if case[0] in (source, "plain")), key=lambda c: speed[c].value)
    ratios = {h: spent["alone", h].over(spent["both", h]) for of, h in cases if of == "both"}
    ratios["best"] = spent[fastest["alone"]].over(spent[fastest["both"]])
    return {**found, "best": {s: h for s, (_, h) in fastest.items()}, **fields("both_over_alone", ratios)}


def _tokens_per_round(timed_answers):
    tokens = rounds = 0
    for one in timed_answers:
        tokens += one.timed_tokens
        rounds += one.result.stats.rounds
    return round(tokens / rounds, 3) if rounds else None


def main():
    parser = script.answers_parser(__doc__)
    parser.add_argument("--horizons", type=lambda text: text.split(","), default="2,4,8,auto")
    options = parser.parse_args()
    report = measure(options)
    if options.json:
        print(json.dumps(report))
        return
    for domain, own in report["domains"].items():
        if own is None:
            print(f"{domain}: loops only")
            continue
        print(f"{domain}, {own['answers']} answers; best alone {own['best']['alone']}, both {own['best']['both']}")
        for h in (*options.horizons, "best"):
            low, high = own["both_over_alone_quartiles"][h] or (float("nan"), float("nan"))
            shown = [
                f"{source} {own[source]['speedup'][h]:.2f} ({own[source]['tokens_per_round'][h]:.2f} a round)"
                for source in ("alone", "both")
                if h != "best"
            ]
            print(
                f"  {h:>4}  both over alone {own['both_over_alone'][h]:.2f} ({low:.2f} to {high:.2f})", *shown, sep="  "
            )
    print(f"loops {report['loops']}, same text {report['same_text']}")


if __name__ == "__main__":
    sys.exit(script.run(main, terminal.say))
