"""append_kv and attention: twin, instruction sets, row rule, page order, masks, threads."""

import numpy as np
import pytest
from kernels.kernel_checks import EPS, assert_bits, assert_within, each_thread_count, empty, floats, same_bits

from foretoken.errors import ShapeError
from foretoken.ops import PAGE, native, reference


class Cache:
    """Filled pages of two segments in scattered order."""

    def __init__(self, rng, heads, head_len, length):
        slots = -(-length // PAGE)
        pages = 2 * slots + 3
        self.heads, self.head_len, self.length = heads, head_len, length
        self.keys = np.full((pages, heads, PAGE // 16, head_len, 16), np.nan, np.float16)
        self.values = np.full((pages, heads, PAGE, head_len), np.nan, np.float16)
        self.tables = rng.permutation(pages)[: 2 * slots].reshape(2, slots).astype(np.int32)
        positions = np.tile(np.arange(length, dtype=np.int32), 2)
        segments = np.repeat(np.arange(2, dtype=np.int32), length)
        rows = floats(rng, 2 * length, heads * head_len), floats(rng, 2 * length, heads * head_len)
        native.append_kv(*rows, self.keys, self.values, self.tables, segments, positions)

    def arrays(self):
        return self.keys, self.values, self.tables


def run_attention(cache, q, segments, begin, end, module=native):
    out = empty(*q.shape)
    module.attention(q, *cache.arrays(), segments, begin, end, out)
    return out


def spans(rng, rows, length):
    begin = rng.integers(0, length, rows).astype(np.int32)
    end = np.array([rng.integers(b, length + 1) for b in begin], np.int32)
    begin[0], end[0] = 0, length
    return rng.integers(0, 2, rows).astype(np.int32), begin, end


@pytest.mark.parametrize(("heads", "group", "head_len"), [(1, 1, 16), (1, 8, 64), (2, 3, 20), (1, 4, 8), (2, 2, 128)])
@pytest.mark.parametrize("length", [1, 63, 256, 700])
def test_against_twin(heads, group, head_len, length, rng):
    cache, q = Cache(rng, heads, head_len, length), floats(rng, 6, heads * group * head_len, scale=head_len**-0.5)
    segments, begin, end = spans(rng, 6, length)
    got = same_bits(lambda: run_attention(cache, q, segments, begin, end))
    expected = run_attention(cache, q, segments, begin, end, reference)
    # A score errs by head_len roundings of |q| |k|, and moves a weight by as much, relatively; sums add their own.
    values = np.nanmax(np.abs(cache.values)).astype(np.float64)
    scores = np.abs(q).max() * np.nanmax(np.abs(cache.keys)).astype(np.float64) * head_len
    assert_within(got, expected, (2 * head_len * scores + 300) * EPS * values)
    seen = begin < end
    assert (got[~seen] == 0).all()
    for i in range(6):  # row rule
        one = run_attention(cache, q[i : i + 1], segments[i : i + 1], begin[i : i + 1], end[i : i + 1])
        assert_bits(one, got[i : i + 1])
    for _ in each_thread_count(1, 2, 3):
        assert_bits(run_attention(cache, q, segments, begin, end), got)


@pytest.mark.parametrize(("heads", "group", "head_len"), [(1, 1, 64), (1, 4, 64), (1, 5, 128), (1, 9, 40), (3, 4, 64)])
@pytest.mark.parametrize("rows", [1, 3])
def test_heads_are_cut_among_threads(heads, group, head_len, rows, rng):
    """Where rows and chunks are too few for all threads; the twin's bound is checked above."""
    cache, q = Cache(rng, heads, head_len, 300), floats(rng, rows, heads * group * head_len, scale=head_len**-0.5)
    segments, begin = np.zeros(rows, np.int32), np.array([0, 40, 256][:rows], np.int32)
    for length in (256, 300):
        end = np.full(rows, length, np.int32)
        native.set_threads(1)
        expected = run_attention(cache, q, segments, begin, end)
        for _ in each_thread_count(2, 3, 4, 16):
            assert_bits(run_attention(cache, q, segments, begin, end), expected)


def test_dropped_pages_change_nothing(rng):
    cache, q = Cache(rng, 1, 32, 900), floats(rng, 2, 64)
    args = np.array([0, 0], np.int32), np.array([600, 641], np.int32), np.array([900, 900], np.int32)
    before = run_attention(cache, q, *args)
    cache.keys[cache.tables[0, :9]] = np.nan
    cache.tables[0, :9] = -1
    assert_bits(run_attention(cache, q, *args), before)
    with pytest.raises(ShapeError, match="needs that page"):
        run_attention(cache, q, args[0], args[1] - 64, args[2])


def test_many_rows_in_slices(rng):
    """More rows than the scratch holds chunk results for."""
    cache, q = Cache(rng, 1, 512, 1100), floats(rng, 300, 8 * 512, scale=0.05)
    segments, begin, end = spans(rng, 300, 1100)
    got = run_attention(cache, q, segments, begin, end)
    for i in (0, 150, 299):
        one = run_attention(cache, q[i : i + 1], segments[i : i + 1], begin[i : i + 1], end[i : i + 1])
        assert_bits(one, got[i : i + 1])


@pytest.mark.parametrize(
    ("heads", "group", "head_len"), [(1, 8, 64), (2, 3, 20), (3, 2, 16), (1, 16, 8), (2, 5, 272), (1, 4, 130)]
)
def test_rows_that_share_a_chunk(heads, group, head_len, rng):
    """Every row as if it were alone: windows, later positions, nothing at all, and values that only neighbours see."""
    cache, q = Cache(rng, heads, head_len, 700), floats(rng, 24, heads * group * head_len, scale=head_len**-0.5)
    segments = np.repeat(np.array([0, 1], np.int32), [21, 3])
    end = np.arange(560, 584, dtype=np.int32)
    begin = np.where(np.arange(24) % 3, end - 300, 0).astype(np.int32)
    for row, seen in {2: (3, 20), 3: (200, 210), 5: (40, 40), 6: (255, 257), 13: (555, 556), 20: (0, 1)}.items():
        begin[row], end[row] = seen
    infinite = 0, 41, 555, 570, 583
    for position in infinite:
        cache.values[cache.tables[0, position // PAGE], :, position % PAGE] = np.inf
    got = alone_and_together(cache, q, segments, begin, end)
    for row in range(24):
        sees = [int(begin[row]) <= at < end[row] for at in infinite]
        assert np.isfinite(got[row]).all() == (segments[row] == 1 or not any(sees))


@pytest.mark.parametrize(("group", "head_len"), [(3, 16), (5, 300), (6, 20), (8, 64)])
def test_rows_that_see_nothing_in_common(group, head_len, rng):
    """Between what they see lie pages that are gone."""
    cache, q = Cache(rng, 1, head_len, 700), floats(rng, 12, group * head_len, scale=head_len**-0.5)
    spans_of = [(0, 5), (200, 210), (3, 60), (255, 257), (0, 1), (193, 256), (10, 10), (1, 2), (400, 401), (5, 9)]
    begin, end = (np.array(ends, np.int32) for ends in zip(*spans_of, (600, 640), (0, 64), strict=True))
    cache.tables[0, [1, 2, 5, 7, 8, 10]] = -1
    alone_and_together(cache, q, np.zeros(12, np.int32), begin, end)


def alone_and_together(cache, q, segments, begin, end):
    """What all rows give together, by one and by many threads, after checking that each alone gives its part."""
    native.set_threads(1)
    got = same_bits(lambda: run_attention(cache, q, segments, begin, end))
    for row in range(len(q)):
        own = slice(row, row + 1)
        alone = same_bits(lambda own=own: run_attention(cache, q[own], segments[own], begin[own], end[own]))
        assert_bits(alone, got[own], f"row {row}")
    for _ in each_thread_count(2, 3, 4, 9):
        assert_bits(run_attention(cache, q, segments, begin, end), got)
    return got


def test_large_scores(rng):
    """Differences far beyond exp's range: the weights of all but the best key vanish, exactly, everywhere."""
    cache, q = Cache(rng, 1, 64, 300), floats(rng, 2, 64, scale=100)
    args = np.zeros(2, np.int32), np.zeros(2, np.int32), np.full(2, 300, np.int32)
    got = same_bits(lambda: run_attention(cache, q, *args))
    assert np.isfinite(got).all()


@pytest.mark.parametrize("head_len", [1, 16, 20, 64])
def test_append(head_len, rng):
    shape = 3, 2, PAGE // 16, head_len, 16
    k, v = floats(rng, 5, 2 * head_len, scale=1e3), floats(rng, 5, 2 * head_len, scale=1e-6)
    tables, segments = np.array([[2, 0], [1, -1]], np.int32), np.array([0, 0, 1, 0, 1], np.int32)
    positions = np.array([0, 127, 63, 64, 17], np.int32)

    def run(module=native):
        keys, values = np.zeros(shape, np.float16), np.zeros((3, 2, PAGE, head_len), np.float16)
        module.append_kv(k, v, keys, values, tables, segments, positions)
        return np.concatenate([keys.ravel(), values.ravel()])

    assert_bits(same_bits(run), run(reference))
