"""Programs: recorded once, replayed on new inputs; memory that a wiring is done with is used again; nothing leaks."""

import gc
import weakref
from threading import Barrier, Thread

import numpy as np
import pytest

from foretoken.errors import ShapeError
from foretoken.ops import arena, native, reference
from foretoken.ops.arena import Arena

RNG = np.random.default_rng(5)
TABLE = RNG.standard_normal((40, 32)).astype(np.float32)


class Pages:
    """Stands for a pool that has no pages."""

    arrays: list = []  # noqa: RUF012


PAGES = Pages()


def read_only(array):
    array.flags.writeable = False
    return array


class Wiring:
    """Embeds, doubles by a norm of its own, and takes some rows; counts how often Python runs it."""

    def __init__(self, ops):
        self.ops, self.calls = ops, 0
        packed = ops.pack(TABLE, "f32", "rows")
        read_only(packed.data)
        self.weight, self.norm = packed, read_only(np.full(32, 2.0, np.float32))

    def __call__(self, ids, keep):
        self.calls += 1
        x = self.ops.empty((len(ids), 32))
        self.ops.embed(ids, self.weight, 1.0, x)
        for _ in range(5):
            y = self.ops.empty(x.shape)
            self.ops.rms_norm(x, self.norm, 1e-6, y)
            x = y
        return (self.ops.take_rows(x, keep),)


def run(programs, wiring, ids, keep):
    inputs = [np.array(ids, np.int32), np.array(keep, np.int32)]
    with programs.run((len(ids), len(keep)), wiring, inputs, [], PAGES) as (out,):
        return out.copy()


@pytest.mark.parametrize("ops", [native, reference], ids=["native", "twins"])
def test_a_program_computes_what_the_wiring_does(ops):
    wiring, programs = Wiring(ops), ops.Programs()
    for _ in range(3):
        for ids, keep in (([1, 2, 3], [2]), ([9], [0]), ([7, 8, 39], [1]), ([4, 4, 0], [0, 2])):
            (expected,) = wiring(np.array(ids, np.int32), np.array(keep, np.int32))
            assert np.array_equal(run(programs, wiring, ids, keep), expected)
    if ops is native:
        assert wiring.calls == 12 + 3  # every pass to compare with, and one recording per shape


def test_a_refused_value_leaves_the_program_as_it_was():
    wiring, programs = Wiring(native), native.Programs()
    first = run(programs, wiring, [1, 2], [0, 1])
    for ids, keep in (([1, 40], [0, 1]), ([-1, 2], [0, 1]), ([1, 2], [0, 2])):
        with pytest.raises(ShapeError, match="expected 0 to"):
            run(programs, wiring, ids, keep)
    assert np.array_equal(run(programs, wiring, [1, 2], [0, 1]), first)
    assert wiring.calls == 1


def test_a_recording_that_fails_is_forgotten():
    wiring, programs = Wiring(native), native.Programs()
    with pytest.raises(ShapeError):
        run(programs, wiring, [99], [0])
    expected = wiring(np.array([3], np.int32), np.array([0], np.int32))[0]
    assert np.array_equal(run(programs, wiring, [3], [0]), expected)
    assert native.empty((2,)).base is None  # nothing is being recorded any more


def record(wiring, *inputs):
    with native.Programs().run(0, wiring, list(inputs), [], PAGES) as outputs:
        return [output.copy() for output in outputs]


def test_what_numpy_computes_is_refused():
    """It would be the same in every later run: wrong numbers without a word."""
    out_of_numpy = (lambda x: x * 2, lambda x: x[np.array([0])], lambda x: np.concatenate([x, x]), np.array)
    for compute in out_of_numpy:

        def wiring(x, compute=compute):
            y = compute(x)
            out = native.empty(y.shape)
            native.copy(y, out)
            return (out,)

        with pytest.raises(ShapeError, match="cannot record"):
            record(wiring, np.ones((2, 3), np.float32))


def test_ops_that_answer_to_python_are_refused():
    for op in (native.finite, lambda row: native.sample_row(row, None, 0.0, 0, 1.0, 0.0, 1, 1)):
        with pytest.raises(ShapeError, match="cannot record"):
            record(lambda x, op=op: op(x), np.ones(4, np.float32))


def test_programs_do_not_nest():
    def wiring(x):
        record(wiring, np.ones((1, 1), np.float32))

    with pytest.raises(ShapeError, match="recorded on this thread already"):
        record(wiring, np.ones((1, 1), np.float32))


def test_times_runs_over_what_the_last_run_left():
    def wiring(x):
        native.gelu_mul(x, x, x)
        return (x,)

    x, programs = np.full((1, 4), 1.5, np.float32), native.Programs()
    expected = x.copy()
    for _ in range(3):
        native.gelu_mul(expected, expected, expected)
    for _ in range(2):  # recorded, then replayed
        with programs.run(0, wiring, [x], [], PAGES, times=3) as (out,):
            assert np.array_equal(out, expected)
    assert np.all(x == 1.5)


def test_inputs_must_fit_what_was_recorded():
    wiring, programs = Wiring(native), native.Programs()
    inputs = [np.array([1, 2], np.int32), np.array([0], np.int32)]
    with programs.run(0, wiring, inputs, [], PAGES):
        pass
    for wrong in ([inputs[0]], [inputs[0][:1], inputs[1]], [inputs[0], None], [inputs[0], inputs[1].astype(np.int64)]):
        with pytest.raises(ShapeError), programs.run(0, wiring, wrong, [], PAGES):
            pass


def test_programs_are_bounded(monkeypatch):
    monkeypatch.setattr(native, "MAX_PROGRAMS", 2)
    wiring, programs = Wiring(native), native.Programs()
    for count in (1, 2, 1, 3, 1, 2):  # 2 is the oldest when 3 comes
        run(programs, wiring, list(range(count)), [0])
    assert wiring.calls == 4


def test_threads_do_not_share_results():
    wiring, programs, barrier, wrong = Wiring(native), native.Programs(), Barrier(4), []

    def work(seed):
        rng = np.random.default_rng(seed)
        barrier.wait()
        for _ in range(200):
            ids = rng.integers(0, 40, 3).astype(np.int32)
            with programs.run(3, wiring, [ids, np.array([2], np.int32)], [], PAGES) as (out,):
                if not np.array_equal(out, wiring(ids, np.array([2], np.int32))[0]):
                    wrong.append(ids)

    threads = [Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_memory_is_used_again_once_nobody_holds_it():
    arena = Arena()
    first = arena.empty((3, 5), np.float32)
    part = first[1:]
    address = first.ctypes.data
    del first
    assert arena.empty((15,), np.float32).ctypes.data != address  # `part` still holds it
    del part
    assert arena.empty((15,), np.int32).ctypes.data == address
    for _ in range(50):
        arena.empty((2, 4), np.float32)
    assert len(arena.blocks) == 2
    assert all(block.ctypes.data % 64 == 0 for block in arena.blocks)


def test_an_array_outlives_its_arena():
    array = Arena().empty((1000,), np.float32)
    array[:] = 7
    gc.collect()
    assert np.all(array == 7)


def test_nothing_is_kept_alive():
    class Owned(Pages):
        pass

    wiring, programs, pages = Wiring(native), native.Programs(), Owned()
    inputs = [np.array([1], np.int32), np.array([0], np.int32)]
    for _ in range(2):
        with programs.run(1, wiring, inputs, [], pages):
            pass
    gone = [weakref.ref(pages), weakref.ref(wiring), weakref.ref(programs)]
    del pages, wiring
    assert gone[0]() is None and gone[1]() is None
    del programs
    assert gone[2]() is None


def test_a_lease_that_an_interrupt_kept_from_its_block_ends_quietly():
    arena._Lease.__new__(arena._Lease).__del__()


def test_an_array_keeps_the_memory_of_its_arena():
    blocks = arena.Arena()
    array, gone = blocks.empty((1000,), np.float32), weakref.ref(blocks)
    view = array[10:]
    del blocks, array
    assert gone() is not None
    del view
    assert gone() is None
