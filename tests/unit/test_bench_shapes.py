"""Random models in the shapes of the released ones: sizes, the path that a folder takes, and what they refuse."""

import numpy as np
import pytest

from foretoken import engine
from foretoken.bench import shapes
from foretoken.bench import subject as subjects
from foretoken.bench.subject import Rounds
from foretoken.config import drafter_config, pairing_problems, target_config
from foretoken.errors import InputError, WeightsError
from foretoken.ops import native, reference
from foretoken.weights import gemma4, memory

# Specification, section 0: parameters of the text tensors, target and drafter.
PARAMETERS = {
    "e2b": (4.629e9, 77.7e6),
    "e4b": (7.463e9, 78.5e6),
    "12b": (11.907e9, 422.86e6),
    "26b-a4b": (25.233e9, 419.7e6),
    "31b": (30.697e9, 469.5e6),
}


def configs_of(name):
    shape = shapes.SHAPES[name]
    return target_config(shapes.target_json(shape)), drafter_config(shapes.drafter_json(shape))


@pytest.mark.parametrize("name", PARAMETERS)
def test_sizes_are_those_of_the_released_models(name):
    for config, expected in zip(configs_of(name), PARAMETERS[name], strict=True):
        assert shapes.num_parameters(gemma4.plan(config)) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", shapes.SHAPES)
def test_configs_are_whole_and_fit_each_other(name):
    target, drafter = configs_of(name)
    assert target.unknown_fields == drafter.unknown_fields == ()
    assert pairing_problems(target, drafter) == []


@pytest.mark.parametrize("format", ["f32", "bf16", "q8", "q4"])
def test_drafted_equals_plain(format):
    subject = shapes.build("tiny", format)
    runner, texts = engine.Engine(subject.target, 16), []
    for horizon in (0, 4):
        sequence = subject.sequence(subject.prompt(50), runner.pool(90), horizon, new_tokens=40)
        while not sequence.is_full:
            runner.step([sequence])
        assert sequence.error is None and np.isfinite(sequence.hidden).all()
        texts.append(sequence.tokens)
    assert texts[0] == texts[1] and len(texts[0]) == 90
    assert len(set(texts[0][50:])) > 5, "a text, not one token again and again"


def test_rounds_start_from_the_same_place_every_time():
    subject = shapes.build("tiny", "q8")
    rounds = Rounds(subject, 30)
    before = list(rounds.sequence.tokens)
    assert all(rounds.verify(rows) > 0 for rows in (1, 4, 17, 1))
    assert rounds.draft(4) > 0
    assert rounds.sequence.tokens == before and rounds.sequence.cache.length == 30
    drafted = rounds.sequence.stats.drafted_by_position
    assert (len(drafted), sum(drafted)) == (16, 3 + 16 + 2 * 4), "17 rows are a draft of 16; drafting plays two rounds"
    for rows in (0, 18):
        with pytest.raises(InputError, match="1 to 17"):
            rounds.verify(rows)


def test_native_and_twins_take_the_same_weights():
    of_native, of_twins = (shapes.build("tiny", "q4", None, ops).target.weights for ops in (native, reference))
    assert np.array_equal(of_native.layers[3].down.data, of_twins.layers[3].down.data)


def test_memory_is_counted_before_it_is_taken(monkeypatch):
    subject = shapes.build("tiny", "q4")
    target, drafter = subject.target.weights, subject.drafter.assistant.weights
    assert subject.packed_bytes > target.embed.data.nbytes + drafter.head.data.nbytes
    monkeypatch.setattr(memory, "available_bytes", lambda: 1 << 30)
    with pytest.raises(WeightsError, match=r"shape 31b needs .* in format bf16, .* Format q4 needs"):
        shapes.build("31b", "bf16")


def test_the_table_is_mapped_from_a_file_without_a_name(monkeypatch):
    monkeypatch.setattr(gemma4, "MAPPED_VALUES", 1 << 10)
    subject = shapes.build("tiny", "q8", None)
    table = subject.target.weights.per_layer_table
    assert (table.n, table.k, table.layout) == (1024, 128, "rows")
    assert subject.table_bytes == table.data.nbytes > 0 and not table.data.any() and not table.data.flags.writeable
    assert np.isfinite(Rounds(subject, 20).sequence.hidden).all()


@pytest.mark.parametrize(("name", "format"), [("e3b", "q4"), ("e2b", "q5"), ("e2b", "auto")])
def test_what_is_not_known_is_refused(name, format):
    with pytest.raises(InputError, match="expected one of"):
        shapes.build(name, format)


def test_a_context_beyond_the_model_is_refused():
    with pytest.raises(InputError, match="4096"):
        Rounds(shapes.build("tiny", "q8", None), 4096)


def test_a_long_context_is_filled_with_noise(monkeypatch):
    """The last chunk sees it: its rows differ from those of an empty past, and rounds go on from there."""
    monkeypatch.setattr(subjects, "MOST_READ", 100)
    monkeypatch.setattr(subjects, "CHUNK", 16)
    subject = shapes.build("tiny", "q8", None)
    filled = Rounds(subject, 300)
    assert filled.sequence.cache.length == 300
    pool = filled.sequence.cache.pool
    table = filled.sequence.cache.tables["full"]
    assert all(
        np.abs(keys[table[0]].astype(np.float32)).mean() > 0.5
        for i, keys in pool.keys.items()
        if pool.layers[i].kind == "full"
    )
    assert filled.verify(4) > 0 and filled.sequence.cache.length == 300
    monkeypatch.setattr(subjects, "_fill", lambda cache, length: None)
    read = Rounds(subject, 300)
    assert np.isfinite(filled.sequence.hidden).all()
    assert not np.array_equal(filled.sequence.hidden, read.sequence.hidden)
