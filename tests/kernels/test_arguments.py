"""Hostile arguments raise ShapeError and never crash; the process-wide choices check theirs."""

import dataclasses
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from kernels.kernel_checks import assert_bits, empty, floats

from foretoken.errors import InputError, ShapeError
from foretoken.ops import PAGE, native

F32 = np.float32


def zeros(*shape, dtype=F32):
    return np.zeros(shape, dtype)


def bad_arrays(shape):
    """Arrays that look like float32 `shape` but are not."""
    yield "text"
    yield 3.0
    yield zeros(*shape, dtype=np.float64)
    yield zeros(*shape, dtype=np.int32)
    yield zeros(*shape, dtype=">f4")
    yield zeros(*shape, 1)
    yield zeros(*shape[:-1], shape[-1] + 1)
    yield zeros(*shape[:-1], 2 * shape[-1])[..., ::2]
    yield zeros(*shape)[..., ::-1]
    yield np.frombuffer(bytearray(4 * int(np.prod(shape)) + 1), np.uint8)[1:].view(F32).reshape(shape)


@pytest.fixture
def weight(rng):
    return native.pack(floats(rng, 20, 40), "q8", "panels")


def test_linear(weight):
    for bad in bad_arrays((2, 40)):
        with pytest.raises(ShapeError):
            native.linear(bad, weight, zeros(2, 20))
    for bad in bad_arrays((2, 20)):
        with pytest.raises(ShapeError):
            native.linear(zeros(2, 40), weight, bad)
    with pytest.raises(TypeError):
        native.linear(None, weight, zeros(2, 20))
    frozen = zeros(2, 20)
    frozen.flags.writeable = False
    overlapping = np.lib.stride_tricks.as_strided(zeros(100), (2, 20), (4, 4))
    backwards = zeros(2, 20)[::-1]
    for bad in (frozen, overlapping, backwards, zeros(3, 20)):
        with pytest.raises(ShapeError):
            native.linear(zeros(2, 40), weight, bad)
    native.linear(zeros(0, 40), weight, zeros(0, 20))


def test_packed(weight):
    changes = [
        {"n": 33}, {"n": -1}, {"n": 2**40}, {"k": 0}, {"k": 65}, {"k": "a"}, {"format": "q4"}, {"format": "q5"},
        {"layout": "x"}, {"format": 3}, {"data": weight.data[:-1]}, {"data": weight.data.view(np.int8)}, {"data": None},
    ]  # fmt: skip
    for change in changes:
        with pytest.raises(ShapeError):
            native.linear(zeros(1, 40), dataclasses.replace(weight, **change), zeros(1, 20))
    with pytest.raises(ShapeError):
        native.linear(zeros(1, 40), object(), zeros(1, 20))
    for bad in (zeros(0, 4), zeros(4, 0), zeros(4), zeros(4, 4, dtype=np.float64)):
        with pytest.raises(ShapeError):
            native.pack(bad, "f32", "rows")
    with pytest.raises(ShapeError):
        native.pack(zeros(4, 4), "q5", "rows")


def test_ids(weight):
    for bad in ([20], [-1], [2**31 - 1], [0, -(2**31)]):
        with pytest.raises(ShapeError, match="ids"):
            native.embed(np.array(bad, np.int32), weight, 1.0, zeros(len(bad), 40))
    with pytest.raises(ShapeError):
        native.embed(np.array([1], np.int64), weight, 1.0, zeros(1, 40))
    for bad in ([5], [-1], [2**31 - 1]):
        with pytest.raises(ShapeError, match="clusters"):
            native.cluster_logits(zeros(40), weight, np.array(bad, np.int32), 4, zeros(4))
    for length in (0, -4, 21, 2**62):
        with pytest.raises(ShapeError):
            native.cluster_logits(zeros(40), weight, zeros(1, dtype=np.int32), length, zeros(4))
    with pytest.raises(ShapeError):
        native.per_layer(zeros(1, 40), zeros(1, dtype=np.int32), weight, zeros(7), 1e-6, 1.0, 1.0, zeros(1, 40))


def test_rows():
    for bad in bad_arrays((2, 24)):
        with pytest.raises(ShapeError):
            native.rms_norm(bad, None, 1e-6, zeros(2, 24))
        with pytest.raises(ShapeError):
            native.gelu_mul(zeros(2, 24), bad, zeros(2, 24))
        with pytest.raises(ShapeError):
            native.norm_add(zeros(2, 24), zeros(24), 1e-6, 1.0, bad)
    with pytest.raises(ShapeError):
        native.rms_norm(zeros(2, 24), zeros(23), 1e-6, zeros(2, 24))
    for head_len, c, s in ((7, None, None), (0, None, None), (8, zeros(2, 5), zeros(2, 5)), (8, zeros(2, 4), None),
                           (8, zeros(2, 4), zeros(2, 3)), (8, zeros(1, 4), zeros(1, 4)), (-8, None, None)):  # fmt: skip
        with pytest.raises(ShapeError):
            native.head_norm_rope(zeros(2, 24), head_len, None, 1e-6, c, s)
    with pytest.raises(ShapeError):
        native.linear(zeros(2, 24), native.pack(zeros(3, 24), "f32", "panels"), zeros(2, 3), 0.0)
    with pytest.raises(ShapeError):
        native.rope_rows(np.array([-1], np.int32), np.ones(4, F32))
    with pytest.raises(ShapeError):
        native.rope_rows(np.array([1], np.int32), np.array([np.nan], F32))


def test_attention_arguments():
    keys, values = zeros(2, 1, 4, 8, 16, dtype=np.float16), zeros(2, 1, PAGE, 8, dtype=np.float16)
    ids = {"tables": [[0, 1]], "row_segment": [0], "begin": [0], "end": [100]}

    def run(q=None, keys=keys, values=values, out=None, **changes):
        given = {name: np.array(v, np.int32) for name, v in (ids | changes).items()}
        native.attention(
            zeros(1, 16) if q is None else q, keys, values, *given.values(), zeros(1, 16) if out is None else out
        )

    run()
    hostile = [
        {"tables": [[0, 2]]}, {"tables": [[0, -1]]}, {"tables": [[-7, 1]]}, {"tables": [0, 1]}, {"row_segment": [1]},
        {"row_segment": [-1]}, {"row_segment": [0, 0]}, {"end": [129]}, {"end": [2**31 - 1]}, {"begin": [-1]},
        {"begin": [-(2**31)]}, {"begin": []}, {"q": zeros(1, 12)}, {"q": zeros(1, 0)}, {"q": zeros(2, 16)},
        {"out": zeros(1, 8)}, {"values": values[:1]}, {"keys": keys[..., ::2]}, {"keys": keys.astype(F32)},
        {"values": zeros(2, 1, PAGE, 9, dtype=np.float16)}, {"keys": zeros(2, 1, 4, 0, 16, dtype=np.float16)},
    ]  # fmt: skip
    for change in hostile:
        with pytest.raises(ShapeError):
            run(**change)
    run(begin=[2**31 - 1], end=[-(2**31)])  # sees no key
    run(tables=[[0, -1]], end=[64])


def test_append_arguments():
    keys, values = zeros(2, 1, 4, 8, 16, dtype=np.float16), zeros(2, 1, PAGE, 8, dtype=np.float16)

    def run(k=None, tables=((0, 1),), segment=(0,), position=(0,), keys=keys):
        k = zeros(1, 8) if k is None else k
        arrays = (np.array(a, np.int32) for a in (tables, segment, position))
        native.append_kv(k, zeros(1, 8), keys, values, *arrays)

    run()
    frozen = keys.copy()
    frozen.flags.writeable = False
    hostile = [
        {"k": zeros(1, 9)}, {"k": zeros(2, 8)}, {"tables": ((5, 1),)}, {"segment": (1,)}, {"position": (-1,)},
        {"position": (128,)}, {"position": (2**31 - 1,)}, {"keys": frozen},
    ]  # fmt: skip
    for change in hostile:
        with pytest.raises(ShapeError):
            run(**change)


def test_threads_and_isa():
    for bad in (0, -1, 257):
        with pytest.raises(ShapeError):
            native.set_threads(bad)
    native.set_threads(5)
    assert native.threads() == 5
    assert native.isas()[0] == "scalar" and native.isa() in native.isas()
    with pytest.raises(InputError, match="scalar"):
        native.set_isa("sse9")


def test_isa_from_environment():
    code = "from foretoken.ops import native; print(native.isa())"
    for name, answer in (("scalar", "scalar"), ("nonsense", "InputError")):
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"FORETOKEN_ISA": name}, capture_output=True, text=True
        )
        assert answer in done.stdout + done.stderr


def test_python_threads_share_the_pool(rng, weight):
    native.set_threads(3)
    w = native.pack(floats(rng, 600, 320), "q8", "panels")
    x = floats(rng, 9, 320)
    expected, failures = empty(9, 600), []
    native.linear(x, w, expected)

    def work():
        for _ in range(50):
            out = empty(9, 600)
            native.linear(x, w, out)
            if not np.array_equal(out, expected):
                failures.append(1)

    callers = [threading.Thread(target=work) for _ in range(4)]
    for t in callers:
        t.start()
    for n in (1, 2, 4, 3):
        native.set_threads(n)
    for t in callers:
        t.join()
    assert not failures
    again = empty(9, 600)
    native.linear(x, w, again)
    assert_bits(again, expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork(rng, weight):
    """A child of fork has none of the worker threads and must not wait for them."""
    native.set_threads(3)
    x, out = floats(rng, 4, 40), empty(4, 20)
    native.linear(x, weight, out)
    pid = os.fork()
    if pid == 0:
        again = empty(4, 20)
        native.linear(x, weight, again)
        native.set_threads(2)
        os._exit(0 if np.array_equal(again, out) else 1)
    assert os.waitpid(pid, 0)[1] == 0
