"""What `foretoken distill` does without torch: data, texts and their file, records, shapes, clusters."""

import errno
import json
import os
import sys
from dataclasses import replace

import numpy as np
import pytest
from checkpoints import GOLDEN
from pair import embedded

from foretoken import config as configs
from foretoken import distill
from foretoken.cache import PAGE, Cache, CacheLayer, PagePool
from foretoken.distill import clusters, records, shape, sources, writing
from foretoken.distill.shape import Sizes
from foretoken.errors import CacheError, InputError, WeightsError
from foretoken.ops import native

TARGETS = ("e2b", "e4b", "12b", "26b", "31b", "g3-text", "g3")


# ---- data


def test_short_paragraphs_are_joined_and_nothing_is_lost():
    text = "\n\n".join(["a" * 100, "b" * 150, " \n", "c" * 300, "d"])
    assert list(sources.passages(text)) == ["a" * 100 + "\n\n" + "b" * 150, "c" * 300, "d"]


def test_a_folder_is_read_in_the_order_of_names(tmp_path):
    (tmp_path / "b.txt").write_text("plain text")
    (tmp_path / "a.jsonl").write_text('{"prompt": "go on"}\n\n{"text": "passage"}\n')
    (tmp_path / "c.md").write_text("not read")
    assert [(s.text, s.is_prompt) for s in sources.read([tmp_path])] == [
        ("go on", True), ("passage", False), ("plain text", False)
    ]  # fmt: skip


def test_the_last_answer_is_left_to_the_target(tmp_path):
    ask, answer = {"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": [ask, answer, ask, answer]}))
    assert sources.read([tmp_path])[0].messages == [ask, answer, ask]


BAD_LINES = [
    "{",
    "[]",
    '{"messages": []}',
    '{"prompt": 3}',
    '{"text": " "}',
    '{"messages": [1]}',
    r'{"text": "\ud800"}',
]


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_bad_line_is_named(tmp_path, line):
    (tmp_path / "a.jsonl").write_text('{"prompt": "x"}\n' + line)
    with pytest.raises(InputError, match="line 2 of"):
        sources.read([tmp_path / "a.jsonl"])


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"  \n\n "])
def test_bad_files_are_refused(tmp_path, content):
    path = tmp_path / "a.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.txt"):
        sources.read([path])


def test_prompts_are_cut_elsewhere_in_the_next_round_and_decided_by_the_seed():
    model, found = embedded(), [sources.Source("word " * 200) for _ in range(6)]

    def ask(seed):
        return list(sources.prompts(found, model.tokenizer, None, seed, rounds=2))

    prompts = ask(1)
    assert [p.number for p in prompts] == list(range(12))
    assert sorted(p.source for p in prompts[:6]) == sorted(p.source for p in prompts[6:]) == list(range(6))
    assert all(sources.MIN_CUT <= len(p.ids) < sources.MAX_CUT for p in prompts)
    assert len({len(p.ids) for p in prompts}) > 3
    assert prompts == ask(1) != ask(2)


def test_chat_needs_a_template():
    source = sources.Source("", [{"role": "user", "content": "x"}])
    with pytest.raises(InputError, match="no chat template"):
        next(sources.prompts([source], embedded().tokenizer, None, 1, 1))


# ---- texts


def quiet(*_):
    return None


def texts(path, tokens=600):
    model = embedded(drafter="none")
    lines = [sources.Source(text) for text in ["In the beginning", "def add(a, b):", "heron (noun)", "1, 2, 3"] * 4]
    prompts = sources.prompts(lines, model.tokenizer, None, 1, rounds=3)
    return writing.write(model, prompts, path, 1, tokens, None, lambda: False, quiet)


def test_texts_are_the_targets_own_and_survive_in_their_file(tmp_path):
    path = tmp_path / "texts.jsonl"
    written = texts(path)
    greedy = [text for text in written.texts if text.temperature == 0]
    assert 0 < len(greedy) < len(written.texts)
    for text in greedy[:2]:
        answer = embedded().generate(text.ids[: text.start], max_tokens=200, temperature=0, horizon=0)
        assert text.ids[text.start :] == answer.tokens
    again = writing.load(path)
    assert again.texts == written.texts and again.asked == written.asked and again.loops == written.loops


def test_passages_are_read_beside_what_was_written(tmp_path):
    model, path = embedded(drafter="none"), tmp_path / "texts.jsonl"
    written = texts(path, 120)
    lines = [sources.Source(f"passage {i} of several, each with words enough to be read") for i in range(60)]
    found = [*lines, sources.Source("a prompt is no passage, however many words", is_prompt=True)]
    writing.add_given(written, sources.beginnings(found, model.tokenizer, 1, 256), path, lambda: False)
    given = [text for text in written.texts if text.is_given]
    longest = max(len(text.ids) for text in given)
    room = writing.GIVEN_SHARE * written.tokens
    assert room <= sum(len(text.ids) for text in given) < room + longest
    assert all(text.ids == model.tokenizer.encode(lines[text.source].text, add_bos=True) for text in given)
    assert not any(text.is_held_out for text in given) and len({text.source for text in given}) == len(given)
    again = writing.load(path)
    assert again.texts == written.texts and again.tokens == written.tokens and again.asked == written.asked
    writing.add_given(again, sources.beginnings(found, model.tokenizer, 1, 256), path, lambda: False)
    assert writing.load(path).texts == written.texts, "a resume adds none twice"


def test_a_passage_is_no_longer_than_the_target_can_read():
    found = [sources.Source("one word after the other " * 400), sources.Source("short")]
    for longest in (40, 10_000):
        lengths = {len(p.ids) for p in sources.beginnings(found, embedded().tokenizer, 1, longest)}
        assert max(lengths) == min(longest, sources.LONGEST_PROMPT) and min(lengths) < 10


def test_a_line_cut_off_is_dropped_and_a_damaged_one_said(tmp_path):
    path = tmp_path / "texts.jsonl"
    line = json.dumps({"number": 4, "seconds": 1.5, "left_out": "loop"}) + "\n"
    path.write_text(line + line[:20])
    found = writing.load(path)
    assert (found.asked, found.loops, found.seconds, path.read_text()) == (5, 1, 1.5, line)
    path.write_text('{"number": 1}\n')
    with pytest.raises(WeightsError, match="damaged at byte 0"):
        writing.load(path)


# ---- records


def test_records_are_what_the_engine_had(tmp_path):
    model = embedded(drafter="none")
    ids = model.tokenizer.encode("In the beginning God created the heaven and the earth.") * 30  # beyond one pass
    ids = ids[: records.PASS_ROWS + 70]
    text = writing.Text(1, 1, 10, 0.0, ids)
    found = records.record(model, [text, text], tmp_path / "r", lambda: False, quiet)
    assert found.first.tolist() == [0, len(ids), 2 * len(ids)]
    assert np.array_equal(found.hidden[: len(ids)], found.hidden[len(ids) :])
    short = ids[:90]
    stream = model.stream(short, max_tokens=1, temperature=0, logprobs=3)
    list(stream)
    (row,) = stream.result.logprobs
    assert found.likely[89, :3].tolist() == [one.token for one in row.top]
    np.testing.assert_allclose(np.log(found.chance[89, :3]), [one.logprob for one in row.top], rtol=1e-4)
    assert found.keys["full"].shape == (2 * len(ids), 1, 128) and found.values["sliding"].dtype == np.float16
    assert np.abs(found.keys["full"].astype(np.float32)).min(axis=2).shape == (2 * len(ids), 1)
    assert (np.abs(found.keys["sliding"]).sum(axis=(1, 2)) > 0).all()


def test_recording_stops_between_texts_and_goes_on(tmp_path):
    model = embedded(drafter="none")
    some = [writing.Text(i, i, 4, 0.0, model.tokenizer.encode(f"text {i} of some") * 3) for i in range(3)]
    asked = iter([False, True])
    assert records.record(model, some, tmp_path / "r", lambda: next(asked), quiet) is None
    told = []
    found = records.record(model, some, tmp_path / "r", lambda: False, lambda done, *_: told.append(done))
    assert told == found.first[2:].tolist(), "the first text is not read again"
    whole = records.record(model, some, tmp_path / "other", lambda: False, quiet)
    assert np.array_equal(found.hidden, whole.hidden) and np.array_equal(found.likely, whole.likely)


def test_records_of_other_texts_are_refused(tmp_path):
    model = embedded(drafter="none")
    text = writing.Text(0, 0, 4, 0.0, model.tokenizer.encode("some text of a target"))
    records.record(model, [text], tmp_path / "r", lambda: False, quiet)
    with pytest.raises(WeightsError, match="other texts"):
        records.record(model, [text, text], tmp_path / "r", lambda: False, quiet)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="needs posix_fallocate")
def test_the_disk_has_room_for_records_before_they_are_written(tmp_path, monkeypatch):
    """Writing through a map into a file with holes would end the process where the disk is full."""
    model, found = embedded(drafter="none"), [writing.Text(1, 1, 0, 0.0, [5] * 3000)]
    taken = []
    monkeypatch.setattr(os, "posix_fallocate", lambda file, at, size: taken.append((at, size)))
    assert records.record(model, found, tmp_path, lambda: True, lambda *_: None) is None
    assert sorted(taken) == sorted((0, path.stat().st_size) for path in tmp_path.glob("*.npy"))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(InputError, match="No space left on device"):
        records.record(model, found, tmp_path, lambda: True, lambda *_: None)


def test_a_cache_gives_back_what_was_appended():
    layer = CacheLayer(0, "sliding", 2, 4, 100)
    cache, rng = Cache(PagePool([layer], 1000, 1, 200)), np.random.default_rng(0)
    k, v = (rng.normal(size=(400, 8)).astype(np.float32) for _ in range(2))
    for start in (0, 200):
        cache.begin_pass(200)
        positions = np.arange(start, start + 200, dtype=np.int32)
        tables, rows = cache.tables["sliding"][None], np.zeros(200, np.int32)
        own = slice(start, start + 200)
        native.append_kv(k[own], v[own], cache.pool.keys[0], cache.pool.values[0], tables, rows, positions)
        cache.end_pass()
    keys, values = cache.read(0, 201, 399)
    np.testing.assert_array_equal(keys, k[201:399].reshape(-1, 2, 4).astype(np.float16))
    np.testing.assert_array_equal(values, v[201:399].reshape(-1, 2, 4).astype(np.float16))
    for start, stop in ((0, PAGE), (390, 401), (5, 5)):
        with pytest.raises(CacheError, match="not all stored"):
            cache.read(0, start, stop)


# ---- shapes


@pytest.mark.parametrize("name", TARGETS)
def test_a_new_drafter_fits_every_kind_of_target(name):
    target = configs.load_target_config(GOLDEN / name)
    config = shape.checked(target, shape.config_data(target, Sizes(hidden=32)))
    assert configs.pairing_problems(target, config) == []
    assert [layer.kind for layer in config.layers] == ["sliding"] * 3 + ["full"]
    assert config.head_vocab_len == target.vocab_len


@pytest.mark.parametrize(
    ("parameters", "head_len"),
    [
        ({"rope_type": "default", "rope_theta": 1e6}, 256),
        ({"rope_type": "default", "rope_theta": 10_000.0}, 256),
        ({"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.25}, 512),
        ({"rope_type": "proportional", "rope_theta": 1e6, "factor": 8.0}, 256),
        ({"rope_type": "default", "rope_theta": 123_457.0}, 128),
    ],
)
def test_frequencies_are_written_so_that_they_come_back(parameters, head_len):
    own = shape._frequencies(parameters, head_len)
    target = configs.load_target_config(GOLDEN / "e2b")
    wide = [layer if layer.kind != "full" else replace(layer, head_len=head_len) for layer in target.layers]
    target = replace(target, rope={"full": own}, layers=tuple(wide))
    found = shape.rope(target, "full")
    np.testing.assert_array_equal(shape._frequencies(found, head_len), own)
    assert found["rope_theta"] == parameters["rope_theta"]


@pytest.mark.parametrize(
    ("sizes", "word"),
    [
        (Sizes(hidden=33), "hidden"),
        (Sizes(hidden=128), "hidden"),
        (Sizes(hidden=32, head_vocab=257), "head-vocab"),
        (Sizes(hidden=32, clusters=7), "clusters"),
    ],
)
def test_sizes_that_cannot_be_are_refused(sizes, word):
    with pytest.raises(InputError, match=word):
        shape.config_data(configs.load_target_config(GOLDEN / "e2b"), sizes)


def test_the_head_of_a_large_vocabulary_is_as_released():
    assert shape._clusters(262144, -1) == 2048 and shape._clusters(32768, -1) == 2048
    assert shape._clusters(256, -1) == 0, "most of it would be looked at"


# ---- clusters


def test_clusters_are_equal_and_hold_what_is_alike():
    rng = np.random.default_rng(0)
    centres = np.eye(8, 16, dtype=np.float32) * 3
    table = (np.repeat(centres, 16, 0) + rng.normal(size=(128, 16)) * 0.1).astype(np.float32)
    mixed = rng.permutation(128)
    order = clusters.ordering(table[mixed], 8, seed=1)
    assert sorted(order.tolist()) == list(range(128))
    groups = mixed[order].reshape(8, 16) // 16  # the true group of every member
    pure = sum(np.bincount(group, minlength=8).max() for group in groups)
    assert pure > 100, "random clusters would keep about 40 together"


# ---- runs


def test_a_folder_is_used_for_one_run(tmp_path):
    (tmp_path / "a.txt").write_text("some text")
    plan = distill.Plan([str(tmp_path / "a.txt")], sizes=Sizes(hidden=64))
    distill.prepare(tmp_path / "out", plan)
    assert distill.prepare(tmp_path / "out", None) == plan
    with pytest.raises(InputError, match="--resume"):
        distill.prepare(tmp_path / "out", plan)
    with pytest.raises(InputError, match="no run to go on"):
        distill.prepare(tmp_path / "nothing", None)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    with pytest.raises(InputError, match="holds a model"):
        distill.prepare(tmp_path / "model", plan)


@pytest.mark.parametrize(
    "changes",
    [
        {"data": 5},
        {"data": [5]},
        {"minutes": "x"},
        {"tokens": None},
        {"seed": [1]},
        {"sizes": {"hidden": "a"}},
        {"sizes": [1]},
        {"sizes": {"no": 1}},
    ],
    ids=str,
)
def test_a_damaged_plan_is_no_run_to_go_on_with(tmp_path, changes):
    plan = distill.Plan(["a.txt"], minutes=1, sizes=Sizes(hidden=64))
    plan.save(tmp_path / "work")
    assert distill.prepare(tmp_path, None) == plan
    path = tmp_path / "work" / distill.PLAN
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(InputError, match="no run to go on"):
        distill.prepare(tmp_path, None)


def test_torch_that_is_missing_is_said_with_the_way_to_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match=r"pip install 'foretoken-mtp\[train\]'"):
        distill.need_torch()


@pytest.mark.parametrize("vocab_len", [5, 33, 200, 5000])
def test_the_likeliest_tokens_are_those_of_a_whole_sort(vocab_len):
    logits = np.round(np.random.default_rng(0).standard_normal((4, vocab_len)), 1).astype(np.float32)  # many are equal
    ids, chances = records._likeliest(logits)
    order = np.argsort(-logits, axis=1, kind="stable")[:, : records.LIKELY]
    exact = np.exp(logits.astype(np.float64))
    exact /= exact.sum(1, keepdims=True)
    assert np.array_equal(ids, order)
    np.testing.assert_allclose(chances, np.take_along_axis(exact, order, 1), rtol=1e-5)
