import pytest

from foretoken.cache import Cache, CacheLayer, PagePool
from foretoken.errors import CacheError
from foretoken.prefix import EVERY, PrefixStore, checkpoints

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
    assert store.take(tokens).length == 200  # 300 would leave nothing to compute
    assert store.take([*tokens, 7]).length == 300
    assert store.take([*tokens[:60], 999]).length == 50
    assert store.take([5, *tokens]).length == 0


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
