"""Drafted text equals plain text for every agreement pattern and horizon, driven by a toy model on a real cache."""

from itertools import product

import numpy as np
import pytest
from toy import LENGTH, PROMPT, VOCAB, OracleDrafter, ToyTarget, sequence, write

from foretoken import engine, speculative
from foretoken.horizon import MAX_HORIZON


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("horizon", [1, 2, 3, 4, 5])
def test_every_agreement_pattern(horizon, temperature):
    plain = write(temperature=temperature).tokens
    for bits in product([True, False], repeat=horizon + 1):
        drafter = OracleDrafter(plain, lambda position, bits=bits: bits[position % len(bits)])
        assert write(horizon=horizon, drafter=drafter, temperature=temperature).tokens == plain


@pytest.mark.parametrize("horizon", range(MAX_HORIZON + 1))
def test_every_horizon_with_random_agreement(horizon):
    plain = write(temperature=0.7).tokens
    rng = np.random.default_rng(horizon)
    drafter = OracleDrafter(plain, lambda position: rng.random() < 0.8)
    assert write(horizon=horizon, drafter=drafter, temperature=0.7).tokens == plain


@pytest.mark.parametrize("chunk", [1, 7, 64, 512])
def test_chunking_does_not_change_the_text(chunk):
    prompt = [i * i % VOCAB for i in range(90)]
    drafter = OracleDrafter(write(prompt=prompt).tokens, lambda position: position % 3 > 0)
    assert write(prompt=prompt, chunk=chunk, horizon=4, drafter=drafter).tokens == write(prompt=prompt).tokens


def test_a_perfect_draft_is_kept_whole_and_a_wrong_one_not_at_all():
    plain = write().tokens
    perfect = write(horizon=4, drafter=OracleDrafter(plain, lambda position: True)).stats
    wrong = write(horizon=4, drafter=OracleDrafter(plain, lambda position: False)).stats
    assert perfect.accepted == perfect.drafted > 0 and perfect.rejections == 0
    assert wrong.accepted == 0 and wrong.rejections > 0
    assert wrong.rounds == LENGTH - len(PROMPT) - 1  # one token a round, the first one from the prompt


def test_invariants_of_the_round(monkeypatch):
    target, settle, seen = ToyTarget(), speculative.settle, []

    def checked(state, asked, scored):
        assert state.cache.length == len(state.tokens) - 1 + len(asked)  # open rows on top of (a)
        settle(state, asked, scored)
        assert state.cache.length == len(state.tokens) - 1  # (a)
        newest = state.sampler.token(state.hidden.copy(), state.tokens[:-1])
        assert newest == state.last  # (b): the toy's hidden row is its logits
        seen.append(len(asked))

    monkeypatch.setattr(speculative, "settle", checked)
    plain = write(target=target).tokens
    write(target=target, horizon=5, drafter=OracleDrafter(plain, lambda position: position % 4 != 0))
    assert max(seen) == 6


@pytest.mark.parametrize("end_at", range(20, 26))
def test_no_row_is_spent_on_the_end_of_an_answer_or_behind_it(monkeypatch, end_at):
    settle, asked = speculative.settle, []

    def noted(state, rows, scored):
        asked.append(list(rows))
        settle(state, rows, scored)

    target = ToyTarget(vocab=4000)
    plain = write(target=target).tokens
    monkeypatch.setattr(speculative, "settle", noted)
    runner = engine.Engine(target, 512)
    s = sequence(runner, runner.pool(LENGTH + 20), horizon=5, drafter=OracleDrafter(plain, lambda position: True))
    s.stop_ids = {plain[end_at]}
    while len(s.tokens) <= end_at:
        runner.step([s])
    assert s.tokens == plain[: end_at + 1]  # the last round writes the stop, and nothing behind it
    assert all(plain[end_at] not in rows for rows in asked)
    assert s.stats.accepted == s.stats.drafted == sum(len(rows) - 1 for rows in asked) > 0


@pytest.mark.parametrize("end", [7, 8, 9, 12, 23])
@pytest.mark.parametrize("horizon", [0, 1, 4, 16])
def test_budget_is_exact(end, horizon):
    plain = write().tokens
    drafter = OracleDrafter(plain, lambda position: True)
    assert write(end=end, horizon=horizon, drafter=drafter).tokens == plain[:end]


def test_neighbours_do_not_change_the_text():
    target = ToyTarget()
    prompts = [PROMPT, [2, 2, 9], [i % 5 for i in range(70)]]
    solo = [write(target=target, prompt=p).tokens for p in prompts]
    runner = engine.Engine(target, 16)
    pool = runner.pool(LENGTH + 20, num_sequences=len(prompts))
    drafters = [OracleDrafter(solo[0], lambda p: p % 2 == 0), None, OracleDrafter(solo[2], lambda p: p % 5 > 0)]
    running = [
        sequence(runner, pool, prompt=p, horizon=h, drafter=d)
        for p, h, d in zip(prompts, (3, 0, 6), drafters, strict=True)
    ]
    while any(not s.is_full for s in running):
        runner.step([s for s in running if not s.is_full])
    assert [s.tokens for s in running] == solo


@pytest.mark.parametrize("horizon", [0, 3])
def test_distribution_of_tokens_is_the_targets(horizon):
    """Chi-squared over 4000 seeds: the token after a 4, where the drafter guesses 5, against softmax."""
    target = ToyTarget(sharpness=1.0)
    at = len(PROMPT) + 1  # position of the second token of the answer; the first belongs to no round
    drafter = OracleDrafter([*PROMPT, 4, 5, 5, 5, 5], lambda position: True) if horizon else None
    counts, total = np.zeros(VOCAB), 0
    for seed in range(4000):
        s = write(target=target, horizon=horizon, drafter=drafter, end=at + 4, temperature=1.0, seed=seed)
        if s.tokens[at - 1] == 4:
            counts[s.tokens[at]] += 1
            total += 1
    seen = [*PROMPT, 4]
    logits = target.row(seen, seen).astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum() * total
    assert total > 100 and expected.min() > 1
    assert ((counts - expected) ** 2 / expected).sum() < 31.3  # 11 degrees of freedom, 99.9 %


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("horizon", [1, 4, 16])
def test_penalties_see_the_draft_before_each_row(horizon, temperature):
    """Row i must count the draft's first i tokens, or drafted text would repeat where plain text does not."""
    penalties = {"repetition_penalty": 1.3, "presence_penalty": 0.4, "frequency_penalty": 0.2, "logit_bias": {3: 0.5}}
    plain = write(temperature=temperature, **penalties).tokens
    assert plain != write(temperature=temperature).tokens
    drafter = OracleDrafter(plain, lambda position: position % 5 != 0)
    drafted = write(temperature=temperature, horizon=horizon, drafter=drafter, **penalties)
    assert drafted.tokens == plain
    assert drafted.stats.accepted > 0
