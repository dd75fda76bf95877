import pytest

from foretoken.cache import Cache, CacheLayer, PagePool
from foretoken.errors import CacheError
from foretoken.prefix import EVERY, LEAST, PrefixStore, checkpoints, shared_len

LAYERS = [CacheLayer(0, "sliding", 1, 4, 100), CacheLayer(1, "full", 1, 4, None)]
NO_LIMIT = 1 << 40


@pytest.fixture
def pool():
    return PagePool(LAYERS, 1000, 4, 64)


def filled(pool, length):
    cache = Cache(pool)
    while cache.length < length:
        cache.begin_pass(min(64, length - cache.length))
        cache.end_pass()
    return cache


def test_the_longest_beginning_is_taken_and_a_token_is_left(pool):
    store = PrefixStore(pool, NO_LIMIT)
    tokens = list(range(300))
    for length in (50, 200, 300):
        store.keep(tokens[:length], filled(pool, length))
    assert store.take(tokens).length == 299  # all 300 would leave nothing to compute
    assert store.take([*tokens, 7]).length == 300
    assert store.take([*tokens[:60], 999]).length == 50
    assert store.take([5, *tokens]).length == 0


def test_an_entry_is_cut_where_its_windows_reach(pool):
    store = PrefixStore(pool, NO_LIMIT)
    store.keep(range(90), filled(pool, 90))  # shorter than the window: anywhere
    assert store.take([*range(40), 999]).length == 40
    assert store.take(range(LEAST)).length == 0  # one token less than that is left: not worth a page's copy
    assert store.take(range(LEAST + 1)).length == LEAST
    store.clear()
    long = filled(pool, 400)  # passes of 64 rows: the last one began at 384, pages before 384 - 99 are gone
    store.keep(range(400), long)
    assert long.first_cut == 256 + 99
    assert store.take([*range(355), 999]).length == 355
    assert store.take([*range(354), 999]).length == 0
    taken = store.take([*range(360), 999])
    assert taken.length == 360 and (taken.tables["full"][:6] == long.tables["full"][:6]).all()
    assert (taken.tables["full"][6:] == -1).all()


def test_a_text_in_progress_is_taken_up_too(pool):
    store, running = PrefixStore(pool, NO_LIMIT), filled(pool, 50)
    taken = store.take(range(80), [([*range(48), 7, 7, 7], running)])
    assert taken.length == 48 and taken.tables["full"][0] == running.tables["full"][0]
    assert len(store) == 0
    with pytest.raises(CacheError, match="fork of 51 positions, expected 0 to 50"):
        running.fork(51)


def test_shared_len():
    assert shared_len([1, 2, 3], (1, 2, 4, 5)) == 2
    assert shared_len([1, 2], [1, 2, 3]) == 2
    assert shared_len([], [1]) == 0 and shared_len([2], [1]) == 0


def test_an_entry_outlives_its_maker_and_is_not_changed_by_its_taker(pool):
    store = PrefixStore(pool, NO_LIMIT)
    cache = filled(pool, 70)
    page = int(cache.tables["full"][1])
    pool.keys[1][page] = 3
    store.keep(range(70), cache)
    cache.release()
    taken = store.take(range(71))
    taken.begin_pass(1)
    own = int(taken.tables["full"][1])
    assert own != page and (pool.keys[1][own] == 3).all()


def test_the_budget_forgets_the_least_recently_used(pool):
    one = pool.page_bytes("full") + pool.page_bytes("sliding")
    store = PrefixStore(pool, 2 * one)
    for first in (1, 2, 3):
        store.keep([first] * 30, filled(pool, 30))
        store.take([1] * 31)  # the first is used again and again
    assert len(store) == 2
    assert [store.take([first] * 31).length for first in (1, 2, 3)] == [30, 0, 30]


def test_pages_of_entries_are_counted_once(pool):
    store, cache, one = PrefixStore(pool, NO_LIMIT), filled(pool, 130), pool.page_bytes("full")
    one += pool.page_bytes("sliding")
    store.keep(range(130), cache)
    longer = cache.fork()
    longer.begin_pass(62)
    longer.end_pass()  # the last page was not full: it is copied, and full then
    store.keep(range(192), longer)
    store.keep(range(LEAST - 1), filled(pool, LEAST - 1))  # nobody would ever take it
    assert len(store) == 2 and store._bytes() == 4 * one
    store._held["full"].clear()  # as after an interrupt
    store.recount()
    assert store._bytes() == 4 * one
    store.take(range(193))
    store._evict()
    assert store._bytes() == 3 * one
    store.clear()
    assert store._bytes() == 0


def test_nothing_is_kept_without_a_budget(pool):
    store = PrefixStore(pool, 0)
    store.keep(range(30), filled(pool, 30))
    assert len(store) == 0


def test_make_room_gives_pages_back(pool):
    total = pool.num_pages("full")
    store = PrefixStore(pool, NO_LIMIT)
    for first in range(3):
        cache = filled(pool, 130)
        store.keep([first] * 130, cache)
        cache.release()
    assert pool.free_pages("full") == total - 9
    store.make_room({"full": total - 5, "sliding": 0})
    assert pool.free_pages("full") == total - 3
    store.clear()
    assert pool.free_pages("full") == total


def test_length_must_match(pool):
    with pytest.raises(CacheError, match="holds 30"):
        PrefixStore(pool, NO_LIMIT).keep(range(29), filled(pool, 30))


def test_checkpoints():
    turns = [1, 2, 106, 3, 106, 4, 5, 106, 6]
    assert checkpoints(turns, frozenset({106}), 0) == [3, 8, 9]
    assert checkpoints(turns, frozenset({106}), 3) == [8, 9]
    assert checkpoints([0] * (2 * EVERY + 5), frozenset({106}), 0) == [EVERY, 2 * EVERY, 2 * EVERY + 5]
