"""Fits the chance of a draft token to the drafter's confidence: the prior of `foretoken.horizon.chance`.

    python bench/fit_chance.py bench/prompts/small tools/embedded_pair/heldout_prompts.jsonl

Rounds of six draft tokens, at temperature 0 and 0.8, answers of 90 tokens; loops are left out. A token counts as long
as those before it were right. The weights come from the first set; loss (nats) and expected calibration error over ten
bins are shown for both. What was tried beside these features and gained less than 0.005 nats on the second set: the
class of the token or of the one before it (digit, space, punctuation, beginning of a word), the survival so far, the
margin to the next candidate (0.0000) and the entropy over the candidates (0.0035).
"""

import argparse
from math import log
from pathlib import Path

import numpy as np

import foretoken
from foretoken.bench.calibration import calibration_error
from foretoken.bench.loops import is_loop
from foretoken.bench.prompts import load
from foretoken.ops import log_odds

HORIZON = 6


def samples(model, prompts):
    """Features (n, 6) in the order of `MODEL_PRIOR`, and whether the target wrote the token (n,)."""
    features, outcomes = [], []
    for number, prompt in enumerate(prompt for own in prompts.values() for prompt in own):
        for temperature in (0.0, 0.8):
            rounds = []
            model.trace = rounds.append
            result = model.generate(
                **prompt, temperature=temperature, top_k=0, top_p=1.0, seed=number, horizon=HORIZON, max_tokens=90
            )
            if not is_loop(result.tokens):
                add(rounds, features, outcomes)
    return np.array(features), np.array(outcomes, dtype=float)


def add(rounds, features, outcomes):
    last_share = 0.5
    for line in rounds:
        for depth, p in enumerate(line["confidence"][: line["accepted"] + 1]):
            odds = log_odds(p)
            is_sampled = float(line["temperature"] > 0)
            features.append((1.0, odds, log(1 + depth), is_sampled, is_sampled * odds, last_share))
            outcomes.append(depth < line["accepted"])
        if line["drafted"]:
            last_share = line["accepted"] / line["drafted"]


def fitted(features, outcomes, ridge=1.0):
    """Newton's method for the logistic loss."""
    weights = np.zeros(features.shape[1])
    for _ in range(40):
        p = chances(features, weights)
        curvature = (features * (p * (1 - p))[:, None]).T @ features + ridge * np.eye(len(weights))
        weights += np.linalg.solve(curvature, features.T @ (outcomes - p) - ridge * weights)
    return weights


def chances(features, weights):
    return 1 / (1 + np.exp(-features @ weights))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prompts", type=Path, help="to fit: a JSONL file of prompts, or a folder of them")
    parser.add_argument("heldout", type=Path, help="to check")
    parser.add_argument("--model")
    parser.add_argument("--drafter", default="auto")
    options = parser.parse_args()
    model = foretoken.load(options.model, drafter=options.drafter)
    sets = {path.name: samples(model, load(path)) for path in (options.prompts, options.heldout)}
    weights = fitted(*sets[options.prompts.name])
    print("weights", [round(float(value), 3) for value in weights])
    for name, (features, outcomes) in sets.items():
        p = np.clip(chances(features, weights), 1e-6, 1 - 1e-6)
        loss = -np.mean(outcomes * np.log(p) + (1 - outcomes) * np.log(1 - p))
        error = calibration_error(p, outcomes)
        print(f"{name}: {len(p)} tokens, {outcomes.mean():.1%} right, loss {loss:.4f}, calibration error {error:.3f}")


if __name__ == "__main__":
    main()
