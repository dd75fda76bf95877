import numpy as np
import pytest

from foretoken.errors import InputError
from foretoken.ops import native
from foretoken.sampling import Sampler, Sampling, answer_seed, likeliest


@pytest.mark.parametrize(
    "values",
    [
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"temperature": "warm"},
        {"temperature": True},
        {"top_p": 0.0},
        {"top_p": 1.01},
        {"min_p": -0.1},
        {"min_p": 2},
        {"top_k": -1},
        {"top_k": 2.0},
        {"seed": -1},
        {"seed": 1 << 64},
        {"repetition_penalty": 0.0},
        {"presence_penalty": float("nan")},
        {"frequency_penalty": 101},
        {"logit_bias": {-1: 1.0}},
        {"logit_bias": {3: float("inf")}},
    ],
)
def test_bad_values_raise(values):
    with pytest.raises(InputError, match=next(iter(values))):
        Sampling(**values)


def test_greedy_below_the_limit_of_temperature():
    assert Sampling(temperature=9e-6).is_greedy
    assert not Sampling(temperature=1e-5).is_greedy


def draw(logits, history=(), recent=(), ids=None, prompt_len=0, **options):
    sampler = Sampler(Sampling(**options), native, prompt_len)
    row = np.array(logits, dtype=np.float32)
    token = sampler.token(row, list(history), list(recent), None if ids is None else np.array(ids, dtype=np.int32))
    return token, row.tolist()


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits():
    token, row = draw([4.0, -2.0, 3.0], history=[0], recent=[1], repetition_penalty=2.0)
    assert row == [2.0, -4.0, 3.0]
    assert token == 2


def test_presence_and_frequency_count_the_answer_only():
    row = draw([0.0] * 4, history=[0, 1, 1, 2], recent=[2], prompt_len=2, presence_penalty=1.0, frequency_penalty=0.5)[
        1
    ]
    assert row == [0.0, -1.5, -2.0, 0.0]  # id 1 once in the answer, id 2 twice, id 0 in the prompt only


def test_bias_and_suppressed_ids():
    token, row = draw([5.0, 1.0, 1.0], logit_bias={1: 2.0}, suppressed=(0,))
    assert row == [-np.inf, 3.0, 1.0]
    assert token == 1


def test_candidates_are_processed_by_their_ids():
    options = {"logit_bias": {7: -4.0, 99: 1.0}, "suppressed": (5, 1), "repetition_penalty": 2.0}
    token, row = draw([6.0, 5.0, 2.0], history=[7], ids=[5, 7, 2], **options)
    assert row == [-np.inf, 0.5, 2.0]
    assert token == 2


def test_candidates_that_are_all_suppressed_are_left():
    assert draw([1.0, 2.0], ids=[5, 7], suppressed=(5, 7))[0] == 7


def test_counts_follow_a_growing_history():
    sampler = Sampler(Sampling(frequency_penalty=1.0), native, 1)
    history = [3]
    for _ in range(3):
        row = np.zeros(4, dtype=np.float32)
        row[2] = 2.5
        history.append(sampler.token(row, history))
    assert history == [3, 2, 2, 2]
    row = np.array([0, 0, 2.5, 0], dtype=np.float32)
    assert sampler.token(row, history) == 0  # 2.5 − 3 is below zero


def test_counts_that_an_interrupt_left_half_grown():
    """The table of all tokens has grown, that of the answer has not, and nothing is counted."""
    sampling = Sampling(temperature=0.0, presence_penalty=2.0)
    sampler, whole = Sampler(sampling, native, 1), Sampler(sampling, native, 1)
    sampler._seen, sampler._counted_len = np.zeros(99, dtype=np.int32), -1
    logits = np.array([1.0, 3.0, 2.0], dtype=np.float32)
    assert sampler.token(logits.copy(), [0, 1]) == whole.token(logits, [0, 1]) == 2


def by_definition(row, ids, history, recent, prompt_len, repetition, presence, frequency):
    """numerics.md, token by token."""
    out = row.copy()
    answer = [*history, *recent][prompt_len:]
    for at, token in enumerate(range(len(row)) if ids is None else ids):
        if token in history or token in recent:
            out[at] = out[at] / np.float32(repetition) if out[at] > 0 else out[at] * np.float32(repetition)
        if times := answer.count(token):
            out[at] -= np.float32(presence) + np.float32(frequency) * np.float32(times)
    return out


@pytest.mark.parametrize("seed", range(4))
def test_penalties_are_the_definition_bit_by_bit_however_they_are_asked(seed):
    rng = np.random.default_rng(seed)
    values = {"repetition_penalty": 1.3, "presence_penalty": 0.7, "frequency_penalty": 0.11}
    sampler = Sampler(Sampling(**values), native, 5)
    history = rng.integers(0, 60, 8).tolist()
    for _ in range(12):
        recent = rng.integers(0, 60, rng.integers(0, 4)).tolist()
        row = rng.standard_normal(60).astype(np.float32)
        ids = None
        if rng.random() < 0.5:  # as the drafter asks, with its candidates only
            ids = rng.permutation(60)[:20].astype(np.int32)
            row = row[:20]
        expected = by_definition(row, ids, history, recent, 5, *values.values())
        sampler.token(row, history, recent, ids)
        assert row.tobytes() == expected.tobytes()
        history += rng.integers(0, 60, rng.integers(0, 3)).tolist()


def test_numbers_of_numpy_are_welcome():
    assert Sampling(temperature=np.float32(0.5), top_k=np.int64(3), logit_bias={np.int64(5): np.float32(1)}).top_k == 3
    assert type(Sampling(temperature=np.float32(0.5)).temperature) is float, "a trace is JSON, and planning is compiled"
    assert type(Sampling(temperature=1).temperature) is int


def test_likeliest_are_best_first_with_ties_to_the_lowest_id():
    logprobs, ids = likeliest(np.array([1.0, 3.0, 3.0, 2.0, 3.0], dtype=np.float32), 3)
    assert ids.tolist() == [1, 2, 4]
    assert np.exp(logprobs).sum() == pytest.approx(1.0)


def test_seeds_of_several_answers():
    seeds = [answer_seed(5, i) for i in range(50)]
    assert seeds[0] == 5
    assert len(set(seeds)) == 50
    assert seeds == [answer_seed(5, i) for i in range(50)]
