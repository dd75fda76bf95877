"""A replayed pass has the bits of the ops called one by one: target and drafter, every row count, whatever the pool."""

import gc
import weakref
from contextlib import ExitStack

import numpy as np
import pytest
from golden_models import NAMES, pair

from foretoken.cache import Cache, PagePool, read_only_segments, segments
from foretoken.models import gemma4
from foretoken.ops import DRAW, NO_STOP, Stop, native
from foretoken.sampling import Sampling

LENGTH = 200


def models(name):
    return pair(name, "native f16")


def ids_of(target, count, seed):
    return np.random.default_rng(seed).integers(0, target.config.vocab_len, count).astype(np.int32)


def filled(target, pool, lengths):
    """Caches of so many positions, on the ops one by one."""
    caches = [Cache(pool) for _ in lengths]
    for seed, (cache, length) in enumerate(zip(caches, lengths, strict=True)):
        cache.begin_pass(length)
        target.forward(ids_of(target, length, seed), segments([cache], [length]), np.zeros(0, np.int32))
        cache.end_pass()
    return caches


def pass_of(target, caches, counts, seed, keep=None, is_direct=False):
    """Hidden rows, logits and all pages after a pass, which is then undone."""
    with ExitStack() as stack:
        for cache, count in zip(caches, counts, strict=True):
            cache.begin_pass(count)
            stack.callback(cache.roll_back, count)
            stack.callback(cache.end_pass)
        ids, table = ids_of(target, sum(counts), seed), segments(caches, counts)
        keep = np.arange(len(ids), dtype=np.int32) if keep is None else np.array(keep, np.int32)
        if is_direct:
            hidden = target.forward(ids, table, keep)
            return hidden, target.logits(hidden), [pages.copy() for pages in caches[0].pool.arrays]
        with target.scored(ids, table, keep) as (hidden, logits):
            return hidden.copy(), logits.copy(), [pages.copy() for pages in caches[0].pool.arrays]


def assert_same(found, expected):
    assert np.array_equal(found[0], expected[0]) and np.array_equal(found[1], expected[1])
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(found[2], expected[2], strict=True))


def compare(target, caches, counts, seed, keep=None):
    expected = pass_of(target, caches, counts, seed, keep, is_direct=True)
    assert_same(pass_of(target, caches, counts, seed, keep), expected)


@pytest.mark.parametrize("name", NAMES)
def test_target(name):
    """1 to 17 rows, twice, so that each shape is recorded once and replayed once; then across a page border."""
    target = models(name)[0]
    (cache,) = filled(target, PagePool(target.cache_layers, LENGTH, 1, 64), [50])
    for seed in range(2):
        for rows in range(1, 18):
            compare(target, [cache], [rows], seed)


@pytest.mark.parametrize("name", NAMES)
def test_target_with_some_rows_kept(name):
    target = models(name)[0]
    (cache,) = filled(target, PagePool(target.cache_layers, LENGTH, 1, 64), [20])
    for seed in range(3):
        for rows, keep in ((5, [4]), (5, [1, 3]), (40, [seed]), (1, [])):
            compare(target, [cache], [rows], seed, keep)


@pytest.mark.parametrize("name", NAMES)
def test_several_sequences_in_pools_that_come_and_go(name):
    """Programs stay; pools of other sizes take turns, one of them likely where a dropped one lay."""
    target = models(name)[0]
    other = PagePool(target.cache_layers, 2 * LENGTH, 3, 64)
    others = filled(target, other, [30, 7, 62])
    for seed in range(3):
        pool = PagePool(target.cache_layers, LENGTH, 3, 64)
        caches = filled(target, pool, [3, 61, 30])
        for counts in ([2, 5, 1], [1, 1, 1], [5, 2, 1]):
            compare(target, caches, counts, seed)
            compare(target, others, counts, seed)
        gone = weakref.ref(pool)
        del pool, caches
        gc.collect()
        assert gone() is None


def draws(count, seed):
    how = [Sampling(0.8, 20, 0.9, seed=seed + g).draws(70 + g) for g in range(count)]
    return np.array(how, dtype=DRAW)


def chain_of(assistant, caches, seed, count, is_direct=False):
    """Tokens, chances and hidden rows of a chain: in one, or by single steps and single draws."""
    num = len(caches)
    tokens = ids_of(assistant.target, num, seed)
    hidden = np.random.default_rng(seed).standard_normal((num, assistant.target.config.hidden_len)).astype(np.float32)
    table, how = read_only_segments(caches), draws(num, seed)
    if not is_direct:
        with assistant.chain(tokens, hidden, table, how, count) as found:
            return [found[0][:, :count].copy(), found[1][:, :count].copy(), found[2].copy()]
    drawn, chances = np.zeros((num, count), np.int32), np.zeros((num, count), np.float32)
    for _ in range(count):
        found, hidden = assistant.step(tokens, hidden, table)
        for g, row in enumerate(found):
            place = how[g : g + 1].view(np.uint8)
            native.draw(row.logits, row.ids, place, tokens[g : g + 1], drawn[g], chances[g])
    return [drawn, chances, hidden]


@pytest.mark.parametrize("name", NAMES)
def test_drafter(name):
    target, assistant = models(name)
    for lengths in ([40], [5, 64, 21]):
        for seed in range(2):  # another pool each time
            caches = filled(target, PagePool(target.cache_layers, LENGTH, len(lengths), 64), lengths)
            for count in (1, 4, 16):
                expected = chain_of(assistant, caches, seed, count, is_direct=True)
                found = chain_of(assistant, caches, seed, count)
                assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("ops", ["native f16", "twins"])
def test_a_chain_ends_behind_the_token_with_which_all_of_its_sequences_are_over(ops):
    """Recorded or replayed, its tokens are the first of the chain that goes on."""
    target, assistant = pair(NAMES[0], ops)
    lengths = [5, 64]
    caches = filled(target, PagePool(target.cache_layers, LENGTH, len(lengths), 64), lengths)
    table, tokens = read_only_segments(caches), ids_of(target, 2, 0)
    hidden = np.zeros((2, target.config.hidden_len), np.float32)

    def chain(assistant, *stops):
        how = np.array([Sampling(0.8, seed=3).draws(70, 0, stop) for stop in stops], dtype=DRAW)
        with assistant.chain(tokens, hidden, table, how, 8) as (drawn, chances, _, after):
            return drawn.copy(), chances.copy(), after.copy().view(DRAW)[:, 0]

    drawn, chances, whole = chain(assistant, NO_STOP, NO_STOP)
    assert whole["count"].tolist() == [8, 8] and whole["survival"].tolist() == [1.0, 1.0]
    all_kept = Stop(0.02, 0.0, 1.0, 0.0)  # a chance is taken at its word
    survival = np.cumprod(np.clip(chances[:, :8], 1 / (1 + np.exp(4.0)), 1 / (1 + np.exp(-4.5))), axis=1)
    ends = [int(np.argmax(own < 0.02)) + 1 if (own < 0.02).any() else 8 for own in survival]
    _, fresh = pair(NAMES[0], ops)
    for _ in range(2):
        found, _, after = chain(fresh, all_kept, all_kept)
        assert after["count"].tolist() == [max(ends)] * 2 and max(ends) < 8
        assert np.array_equal(found[:, : max(ends)], drawn[:, : max(ends)])
        assert after["survival"] == pytest.approx(survival[:, max(ends) - 1], rel=1e-4)
    assert chain(fresh, NO_STOP, all_kept)[2]["count"].tolist() == [8, 8]
    over = all_kept._replace(least=2.0)  # than which no survival is larger: one step is made all the same
    assert chain(fresh, over, over)[2]["count"].tolist() == [1, 1]


@pytest.mark.parametrize("name", NAMES)
def test_single_steps_of_the_drafter(name):
    target, assistant = models(name)
    for seed in range(3):
        caches = filled(target, PagePool(target.cache_layers, LENGTH, 2, 64), [9, 33])
        tokens, table = ids_of(target, 2, seed), read_only_segments(caches)
        hidden = np.random.default_rng(seed).standard_normal((2, target.config.hidden_len)).astype(np.float32)
        expected, after = assistant.step(tokens, hidden, table)
        with assistant.stepped(tokens, hidden, table) as (found, following):
            assert np.array_equal(following, after)
            for one, other in zip(found, expected, strict=True):
                assert np.array_equal(one.logits, other.logits)
                assert (one.ids is None) == (other.ids is None)
                assert one.ids is None or np.array_equal(one.ids, other.ids)


def test_another_instruction_set_and_thread_count_without_a_new_recording():
    target = models("e2b")[0]
    (cache,) = filled(target, PagePool(target.cache_layers, LENGTH, 1, 64), [30])
    expected = pass_of(target, [cache], [4], 1)
    was = native.isa(), native.threads()
    try:
        for isa in native.isas():
            for threads in (1, 3):
                native.set_isa(isa)
                native.set_threads(threads)
                assert_same(pass_of(target, [cache], [4], 1), expected)
    finally:
        native.set_isa(was[0])
        native.set_threads(was[1])


def test_a_dropped_model_is_gone():
    kept = models("e2b")[0]
    target = gemma4.Gemma4(kept.config, kept.weights, native)
    caches = filled(target, PagePool(target.cache_layers, LENGTH, 1, 64), [10])
    for seed in range(2):
        pass_of(target, caches, [3], seed)
    gone = weakref.ref(target)
    del target
    assert gone() is None
