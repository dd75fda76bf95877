"""The self-test itself: it covers what it says, and finds what we break on purpose. On tiny models, so in seconds."""

from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
from pair import embedded

from foretoken import selftest
from foretoken.cache import Cache, PagePool
from foretoken.horizon import MAX_HORIZON
from foretoken.models.gemma4 import Gemma4
from foretoken.ops import PAGE, native
from foretoken.prefix import PrefixStore
from foretoken.sampling import Sampler
from foretoken.selftest import cases
from foretoken.selftest.cases import Case, Run
from foretoken.selftest.drafters import rounds_len
from foretoken.selftest.runner import Runner
from foretoken.selftest.texts import Library, Plain
from foretoken.selftest.toys import toy

EXPERTS = selftest.Subject("experts", "q8", partial(toy, "experts", "q8"), is_tiny=True)


@pytest.fixture(autouse=True)
def fast_ops(monkeypatch):
    """The best instruction set only, or the scalar kernels would take most of the time."""
    was = native.isa(), native.threads()
    monkeypatch.setattr(cases, "TINY_SLOW_SHARE", 0.0)
    yield
    native.set_isa(was[0])
    native.set_threads(was[1])


def compare(tokens=900):
    """The report of a run on tiny models only, and its rows that differ or failed."""
    report = selftest.run([EXPERTS], tokens)
    return report, [row for row in report["cases"] if row["different"] or row["error"]]


def test_no_difference_and_all_conditions():
    report, wrong = compare(3000)
    coverage = report["coverage"]
    assert report["compared"] >= 3000 and report["different"] == report["errors"] == 0 and not wrong
    assert coverage["model"].keys() == {"experts", "unified", "gemma3"}
    assert coverage["format"].keys() == {"q4", "q8", "bf16"}
    assert coverage["horizon"].keys() == {str(horizon) for horizon in (*range(MAX_HORIZON + 1), "auto")}
    assert {"0", "8"} <= coverage["neighbours"].keys()
    assert coverage["drafter"].keys() == {"mtp", "suffix", "both", "wrong", "forced", "none"}
    assert min(coverage[name] for name in ("prefix_hits", "prefix_misses", "left_early")) > 0
    assert coverage["drafted_past_3_windows"] > 100
    assert coverage["rejections"]["seen"] > 0


def test_one_horizon_with_every_source():
    """Also the planner's, whose drafts depend on measured times: the text never does."""
    for horizon in ("auto", 5):
        report = selftest.run([EXPERTS], 900, horizons=(horizon,))
        assert report["different"] == report["errors"] == 0 and report["compared"] >= 900
        assert report["coverage"]["horizon"].keys() == {str(horizon)}
        assert {"mtp", "suffix", "both", "wrong", "forced"} <= report["coverage"]["drafter"].keys()
        assert report["coverage"]["temperature"].keys() > {"0.0"}


def test_the_same_cases_every_time():
    assert compare(300)[0] == compare(300)[0]


def test_the_embedded_pair():
    report = selftest.run([selftest.Subject("embedded", "q8", embedded)], 300)
    assert report["compared"] >= 300
    assert report["different"] == report["errors"] == 0


def test_a_rejection_at_every_index():
    model = toy("unified", "q8")
    plain = Plain(model)
    runner, text = Runner(model, plain), Library(model).short(2)
    for horizon in range(1, MAX_HORIZON + 1):
        case = Case(text, horizon, "forced", rounds_len(horizon))
        (written,) = runner.write(Run(native.isas()[-1], 1, 7, [case]))
        assert written.tokens == plain.tokens(text, case.length)
    assert runner.rejected == {(h, i) for h in range(1, MAX_HORIZON + 1) for i in range(h + 1)}
    assert len(runner.rejected) == selftest.NUM_REJECTIONS


def test_a_tiny_model_with_experts_is_like_the_large_one():
    full, sliding = toy("experts", "q4").target.config.layers[-1], toy("experts", "q4").target.config.layers[0]
    assert full.num_experts > full.top_experts > 1 and full.k_eq_v
    assert full.num_kv_heads < sliding.num_kv_heads and full.head_len > sliding.head_len


# ---- faults on purpose -----------------------------------------------------------------------------------------


def test_finds_a_row_that_is_not_rolled_back(monkeypatch):
    """The cache itself notices in the end, and says so in every answer of the pass."""
    plain = Cache.roll_back
    monkeypatch.setattr(Cache, "roll_back", lambda self, rows: plain(self, max(rows - 1, 0)))
    report, wrong = compare(300)
    assert report["different"] > 0 and any("CacheError" in row["error"] for row in wrong)


def test_finds_noise_of_the_wrong_position(monkeypatch):
    plain = Sampler.token

    def token(self, logits, history, recent=(), ids=None):
        return plain(self, logits, list(history[: len(history) - (len(recent) > 3)]), recent, ids)

    monkeypatch.setattr(Sampler, "token", token)
    _, wrong = compare()
    assert wrong and all(row["horizon"] > 3 and row["temperature"] > 0 for row in wrong)


def test_finds_pages_that_are_written_although_shared(monkeypatch):
    monkeypatch.setattr(PagePool, "own", lambda self, kind, table, page: None)
    _, wrong = compare(900)
    assert wrong and all(row["prefix"] for row in wrong)


def test_finds_a_prompt_that_begins_almost_like_another(monkeypatch):
    def take(self, tokens, others=()):
        keys = [key for key in self._entries if len(key) < len(tokens) and key[:-1] == tuple(tokens[: len(key) - 1])]
        return self._entries[max(keys, key=len)].fork() if keys else Cache(self._pool)

    monkeypatch.setattr(PrefixStore, "take", take)
    _, wrong = compare(900)
    assert wrong and all(row["cached"] for row in wrong)


def test_finds_a_window_that_forgets_what_a_roll_back_needs(monkeypatch):
    plain = Cache.begin_pass

    def begin_pass(self, rows):
        plain(self, rows)
        if 1 < rows <= MAX_HORIZON + 1:  # as if the draft's rows were sure to stay
            self._drop_pages_before("sliding", (self.length + rows - self.pool.windows["sliding"] + 1) // PAGE)

    monkeypatch.setattr(Cache, "begin_pass", begin_pass)
    report, wrong = compare(300)
    assert report["different"] > 0 and any("needs that page" in row["error"] for row in wrong)


def changed_logits(monkeypatch, change):
    """Every pass gives change(logits, caches of the pass) instead."""
    plain = Gemma4.scored

    @contextmanager
    def scored(self, ids, segments, keep):
        with plain(self, ids, segments, keep) as (hidden, logits):
            yield hidden, change(logits, len(set(segments.rows[0].tolist())))

    monkeypatch.setattr(Gemma4, "scored", scored)


def test_finds_rows_of_a_neighbour(monkeypatch):
    changed_logits(monkeypatch, lambda logits, num_sequences: np.roll(logits, num_sequences // 4, axis=0))
    _, wrong = compare()
    assert wrong and all(row["neighbours"] > 2 for row in wrong)


@pytest.mark.skipif(len(native.isas()) < 2, reason="this processor has one instruction set")
def test_finds_an_instruction_set_with_other_bits(monkeypatch):
    best = native.isas()[-1]
    noise = np.linspace(0, 0.5, toy("experts", "q8").target.config.vocab_len, dtype=np.float32)
    changed_logits(monkeypatch, lambda logits, _: logits + noise * (native.isa() != best))
    monkeypatch.setattr(cases, "TINY_SLOW_SHARE", 0.5)
    _, wrong = compare(300)
    assert wrong and all(row["isa"] != best for row in wrong)


def test_counts_a_failing_answer_as_different(monkeypatch):
    plain = Sampler.token

    def token(self, logits, history, recent=(), ids=None):
        if len(recent) == 5:
            raise IndexError("broken")
        return plain(self, logits, history, recent, ids)

    monkeypatch.setattr(Sampler, "token", token)
    report, wrong = compare(300)
    assert report["errors"] == len([row for row in wrong if "broken" in row["error"]]) > 0
    assert report["different"] > 0
