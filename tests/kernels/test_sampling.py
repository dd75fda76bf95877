"""sample_row and top_clusters: the generator's published vectors, ties, filters, and the distribution drawn."""

import time
from threading import Thread

import numpy as np
import pytest
from kernels.kernel_checks import assert_within, floats, same_bits

from foretoken import _core
from foretoken.errors import ShapeError
from foretoken.ops import native, reference

PLAIN = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": 1, "position": 0}


def draw(logits, ids=None, module=native, **changes):
    how = PLAIN | changes
    return module.sample_row(logits, ids, *how.values())


# source: kat_vectors of Random123 1.14, philox4x32 10
@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ([0, 0, 0, 0], [0, 0], [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_philox(counter, key, expected):
    out = np.empty(4, np.uint32)
    _core.philox(np.array(counter, np.uint32), np.array(key, np.uint32), out)
    assert out.tolist() == expected
    assert reference._philox(np.array([counter]), key[0] | key[1] << 32)[0].tolist() == expected


def test_noise():
    words = np.array([0, 1, 2, 255, 1 << 16, 1 << 31, (1 << 32) - 300, (1 << 32) - 1] * 3, np.uint32)

    def run():
        out = np.empty(len(words), np.float32)
        _core.noise(words, out)
        return out

    u = np.minimum((words.astype(np.float64) + 0.5) * 2.0**-32, 1 - 2.0**-24)
    expected = -np.log(-np.log1p(-u))
    # Relative rounding of u, and near u = 1 of 1 - u, whose logarithm's slope is 1 / (1 - u).
    bound = 2.0**-22 * (np.abs(expected) + 1) + 2.0**-25 * u / ((1 - u) * -np.log1p(-u))
    assert_within(same_bits(run), expected, bound)
    assert run().max() < 22.9


def test_greedy_and_ties(rng):
    logits = floats(rng, 1000)
    for isa in native.isas():
        native.set_isa(isa)
        for at in (0, 15, 16, 999):
            row = logits.copy()
            row[at] = row[501] = 9
            assert draw(row, temperature=0.0) == min(at, 501)
        ids = rng.permutation(5000)[:1000].astype(np.int32)
        row = logits.copy()
        row[[3, 77, 500]] = 9
        assert draw(row, ids, temperature=9e-6) == ids[[3, 77, 500]].min()
    assert draw(np.array([-np.inf, -3.5], np.float32), temperature=0.0) == 1


@pytest.mark.parametrize("size", [1, 5, 300, 5000])
@pytest.mark.parametrize("top_k", [0, 1, 2, 40, 299])
@pytest.mark.parametrize("top_p", [1.0, 0.95, 0.3, 1e-6])
@pytest.mark.parametrize("min_p", [0.0, 0.1])
def test_filters_against_twin(size, top_k, top_p, min_p, rng):
    for trial in range(6):
        logits = np.round(floats(rng, size, scale=2.5), 1)  # rounded: many ties
        ids = rng.permutation(10 * size)[:size].astype(np.int32) if trial % 2 else None
        how = {"top_k": top_k, "top_p": top_p, "min_p": min_p, "seed": trial << 40, "position": trial}
        how["temperature"] = [0.3, 1.0, 2.0][trial % 3]
        expected = draw(logits, ids, reference, **how)
        for isa in native.isas():
            native.set_isa(isa)
            assert draw(logits, ids, **how) == expected


def test_order_of_entries_is_nothing(rng):
    logits, ids = np.round(floats(rng, 700, scale=2), 1), rng.permutation(9000)[:700].astype(np.int32)
    shuffle = rng.permutation(700)
    for seed in range(20):
        for how in ({}, {"top_k": 50}, {"top_p": 0.8}, {"top_k": 300, "top_p": 0.5}, {"min_p": 0.05}):
            assert draw(logits, ids, seed=seed, **how) == draw(logits[shuffle], ids[shuffle], seed=seed, **how)


def test_subset_draws_the_same_token(rng):
    """The noise belongs to the token id: leaving out tokens that were not drawn changes nothing."""
    logits = floats(rng, 1000)
    for seed in range(20):
        token = draw(logits, seed=seed)
        rest = np.unique([token, *range(0, 1000, 3)]).astype(np.int32)
        assert draw(logits[rest], rest, seed=seed) == token


@pytest.mark.parametrize("how", [{}, {"temperature": 0.5}, {"top_k": 5}, {"top_p": 0.7}, {"min_p": 0.2}])
def test_distribution(how):
    """Chi-squared of 20,000 draws; positions and seeds both vary."""
    logits = np.array([1.0, 0.2, -0.4, 2.0, 0.0, -1.0, 1.5, 0.9, -2.0, 0.4], np.float32)
    p = np.exp(logits.astype(np.float64) / how.get("temperature", 1.0))
    p /= p.sum()
    order = np.argsort(-p)
    kept = order[: how.get("top_k", 10)]
    if "top_p" in how:
        kept = order[: np.searchsorted(np.cumsum(p[order]), how["top_p"]) + 1]
    if "min_p" in how:
        kept = np.flatnonzero(p >= how["min_p"] * p.max())
    counts = np.bincount([draw(logits, seed=i % 50, position=i // 50, **how) for i in range(20000)], minlength=10)
    assert counts.sum() == counts[kept].sum()
    expected = p[kept] / p[kept].sum() * 20000
    chi = ((counts[kept] - expected) ** 2 / expected).sum()
    free = max(1, len(kept) - 1)
    assert chi < free + 5 * np.sqrt(2 * free) + 5


@pytest.mark.parametrize("size", [262144, 262208])
def test_whole_vocabulary(rng, size):
    logits = floats(rng, size, scale=3)
    for how in ({}, {"top_k": 64}, {"top_p": 0.95}, {"top_p": 0.999, "temperature": 1.5}, {"min_p": 0.01}):
        expected = draw(logits, module=reference, seed=2**64 - 1, position=2**40, **how)
        for isa in native.isas():
            native.set_isa(isa)
            assert draw(logits, seed=2**64 - 1, position=2**40, **how) == expected


@pytest.mark.parametrize("scale", [0.0, 0.5, 3, 12])
def test_passing_over_noise_that_cannot_win_changes_no_token(scale, rng):
    """Flat rows let small scores win, steep ones hardly ever."""
    for seed in range(60):
        logits = floats(rng, 2000, scale=scale)
        expected = draw(logits, module=reference, seed=seed, position=3 * seed)
        for isa in native.isas():
            native.set_isa(isa)
            assert draw(logits, seed=seed, position=3 * seed) == expected


def test_the_longest_row_and_one_longer():
    """Equal scores weigh most: their whole numbers fill the sum of top-p to the last bit but one."""
    logits = np.zeros((1 << 19) - 1, np.float32)
    assert 0 <= draw(logits, top_p=0.5) < 1 << 18
    assert draw(logits, temperature=0.0) == 0
    with pytest.raises(ShapeError, match="expected 1 to 2"):
        draw(np.zeros(1 << 19, np.float32))


@pytest.mark.parametrize("size", [(1 << 15) - 1, (1 << 15) + 1, 3 * (1 << 15) + 1025, 262_144])
def test_the_parts_of_a_vocabulary_are_one_row(size, rng):
    """Threads share it: the largest anywhere, the first of equals, and a NaN wherever it is."""
    logits = floats(rng, size)
    native.set_threads(3)
    places = [at for at in (0, 1, 1023, 1024, 5000, (1 << 15) - 1, 1 << 15, 70_000, size - 1) if at < size]
    for isa in native.isas():
        native.set_isa(isa)
        for first, at in enumerate(places):
            row = logits.copy()
            row[places[first:]] = 9
            assert draw(row, temperature=0.0) == at
            row[at] = 40
            assert draw(row) == at  # also where noise is added, for none makes up for so much
            row[at] = np.nan
            for temperature in (0.0, 1.0):
                with pytest.raises(ShapeError, match="NaN"):
                    draw(row, temperature=temperature)
        row = -np.abs(logits) - 1
        row[-1] = -0.5
        assert draw(row, temperature=0.0) == size - 1
        row[[size // 3, size - 2]] = -0.0, 0.0
        assert draw(row, temperature=0.0) == size // 3


def test_a_token_is_drawn_while_another_thread_has_the_pool(rng):
    native.set_isa("scalar")  # so it takes most of a second, with two threads on any machine
    native.set_threads(2)
    weight, x = native.pack(floats(rng, 2048, 2048), "f32", "panels"), floats(rng, 1024, 2048)
    out, logits = np.empty((1024, 2048), np.float32), floats(rng, 262_144)
    other = Thread(target=native.linear, args=(x, weight, out))
    other.start()
    time.sleep(0.03)
    assert draw(logits, temperature=0.0) == logits.argmax()
    is_busy = other.is_alive()
    other.join()
    assert is_busy


def test_masked_tokens_never_win(rng):
    logits = np.full(100, -np.inf, np.float32)
    logits[7] = -80
    for how in ({}, {"top_k": 10}, {"top_p": 0.5}, {"temperature": 100.0}, {"temperature": 0.0}):
        assert draw(logits, **how) == 7


def test_hostile_rows(rng):
    good = floats(rng, 50)
    for bad in (np.nan, np.inf):
        row = good.copy()
        row[33] = bad
        for temperature in (0.0, 1.0):
            with pytest.raises(ShapeError):
                draw(row, temperature=temperature)
    with pytest.raises(ShapeError):
        draw(np.full(4, -np.inf, np.float32))
    with pytest.raises(ShapeError):
        draw(np.zeros(0, np.float32))
    for change in (
        {"temperature": -1.0},
        {"temperature": np.nan},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_p": np.nan},
        {"min_p": -0.1},
        {"min_p": 1.5},
    ):
        with pytest.raises(ShapeError):
            draw(good, **change)


@pytest.mark.parametrize("size", [1, 16, 50, 2048, 5003])
def test_top_clusters(size, rng):
    scores = np.round(floats(rng, size), 1)
    scores[rng.random(size) < 0.3] = -np.inf
    for count in (0, 1, min(32, size), min(64, size), size // 2, size):
        got, expected = native.top_clusters(scores, count), reference.top_clusters(scores, count)
        assert got.dtype == np.int32 and got.tolist() == expected.tolist()
    for bad in (size + 1, -1):
        with pytest.raises(ShapeError):
            native.top_clusters(scores, bad) if bad > 0 else reference.top_clusters(scores, bad)
