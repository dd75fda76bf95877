import numpy as np
import pytest

from foretoken.cache import PAGE, Cache, CacheLayer, PagePool, read_only_segments, segments
from foretoken.errors import CacheError

LAYERS = [CacheLayer(0, "sliding", 1, 4, 100), CacheLayer(1, "full", 1, 4, None)]


def pool(positions=1000, num_sequences=1, pass_rows=17):
    return PagePool(LAYERS, positions, num_sequences, pass_rows)


def run_pass(cache, rows):
    cache.begin_pass(rows)
    cache.end_pass()


def test_length_follows_passes_and_roll_back():
    cache = Cache(pool())
    run_pass(cache, 10)
    run_pass(cache, 5)
    cache.roll_back(3)
    assert cache.length == 12
    cache.roll_back(2)
    assert cache.length == 10


@pytest.mark.parametrize("rows", [6, -1])
def test_roll_back_beyond_the_last_pass_raises(rows):
    cache = Cache(pool())
    run_pass(cache, 10)
    run_pass(cache, 5)
    with pytest.raises(CacheError, match="last pass added 5"):
        cache.roll_back(rows)


def test_roll_back_twice_stays_within_the_last_pass():
    cache = Cache(pool())
    run_pass(cache, 10)
    run_pass(cache, 5)
    cache.roll_back(4)
    with pytest.raises(CacheError):
        cache.roll_back(2)


def test_sliding_pages_are_dropped_and_full_pages_kept():
    cache = Cache(pool())
    for _ in range(50):
        run_pass(cache, 17)
    assert cache.length == 850
    first = int(np.flatnonzero(cache.tables["sliding"] >= 0)[0])
    before_last_pass = 850 - 17
    assert first == (before_last_pass - 100 + 1) // PAGE
    assert (cache.tables["full"][: 850 // PAGE + 1] >= 0).all()


def test_every_visible_page_survives_any_roll_back():
    rng = np.random.default_rng(0)
    cache = Cache(pool())
    while cache.length < 900:
        rows = int(rng.integers(1, 18))
        run_pass(cache, rows)
        cache.roll_back(int(rng.integers(0, rows + 1)))
        view = read_only_segments([cache]).views["sliding"]
        pages = cache.tables["sliding"][view.begin[0] // PAGE : -(-cache.length // PAGE)]
        assert (pages >= 0).all()


def test_release_gives_every_page_back():
    p = pool()
    total = {kind: p.free_pages(kind) for kind in ("sliding", "full")}
    cache = Cache(p)
    for rows in (17, 17, 17, 17, 3):
        run_pass(cache, rows)
    cache.roll_back(2)
    cache.release()
    assert {kind: p.free_pages(kind) for kind in total} == total


def test_fork_shares_pages_and_copies_on_write():
    p = pool(num_sequences=2)
    cache = Cache(p)
    run_pass(cache, 10)
    page = int(cache.tables["full"][0])
    p.keys[1][page] = 3
    other = cache.fork()
    assert other.tables["full"][0] == page
    other.begin_pass(1)
    assert other.tables["full"][0] != page
    assert (p.keys[1][other.tables["full"][0]] == 3).all()
    other.abort_pass()
    other.release()
    cache.begin_pass(1)
    assert cache.tables["full"][0] == page


def test_positions_and_views():
    p = pool(num_sequences=2)
    first, second = Cache(p), Cache(p)
    run_pass(first, 17)
    view = segments([first, second], [2, 3]).views["sliding"]
    assert view.positions.tolist() == [17, 18, 0, 1, 2]
    assert view.end.tolist() == [18, 19, 1, 2, 3]
    assert view.row_segment.tolist() == [0, 0, 1, 1, 1]


def test_window_edge():
    cache = Cache(pool())
    for _ in range(10):
        run_pass(cache, 17)
    view = segments([cache], [1]).views["sliding"]
    assert view.end[0] - view.begin[0] == 100  # the window counts the query itself
    drafter = read_only_segments([cache]).views["sliding"]
    assert drafter.begin[0] == 170 - 99 and drafter.end[0] == 170


def test_too_many_rows_and_a_full_cache_raise():
    cache = Cache(pool(positions=20))
    with pytest.raises(CacheError, match="expected 1 to 17"):
        cache.begin_pass(18)
    run_pass(cache, 17)
    with pytest.raises(CacheError, match="holds 20"):
        cache.begin_pass(4)


def test_no_page_left_raises():
    p = pool(positions=PAGE)
    run_pass(Cache(p), 1)
    with pytest.raises(CacheError, match="in use"):
        Cache(p).begin_pass(1)


def test_pass_state_is_checked():
    cache = Cache(pool())
    with pytest.raises(CacheError):
        cache.end_pass()
    cache.begin_pass(1)
    with pytest.raises(CacheError):
        cache.begin_pass(1)
    with pytest.raises(CacheError):
        cache.roll_back(0)


def test_an_interrupt_while_a_page_is_dropped_never_leaves_it_to_two_owners(monkeypatch):
    shared = pool(num_sequences=3)
    kept = Cache(shared)
    run_pass(kept, 10)
    other, plain = kept.fork(), shared.drop

    def interrupted(kind, page):
        plain(kind, page)
        raise KeyboardInterrupt

    monkeypatch.setattr(shared, "drop", interrupted)
    with pytest.raises(KeyboardInterrupt):
        other.begin_pass(1)  # writes into the shared page, so it takes one of its own
    monkeypatch.setattr(shared, "drop", plain)
    other.begin_pass(1)
    assert all(other.tables[kind][0] != kept.tables[kind][0] for kind in shared.windows)


def test_recount_finds_what_an_interrupt_has_lost():
    shared = pool(num_sequences=2)
    free = {kind: shared.free_pages(kind) for kind in shared.windows}
    cache = Cache(shared)
    run_pass(cache, 10)
    shared.take("full")  # nobody has it
    shared.share("sliding", int(cache.tables["sliding"][0]))
    shared.recount()
    assert {kind: shared.free_pages(kind) for kind in shared.windows} == {kind: n - 1 for kind, n in free.items()}
    cache.release()
    assert {kind: shared.free_pages(kind) for kind in shared.windows} == free
