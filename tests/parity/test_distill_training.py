"""A short training on the embedded target: held-out acceptance rises, a resume gives the same, the result drafts."""

import json
import os

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pair import CODE, ENTRY, embedded  # noqa: E402

import foretoken  # noqa: E402
from foretoken import distill  # noqa: E402
from foretoken.distill import Listener, Plan, Sizes, copying, records, shape, training, writing  # noqa: E402
from foretoken.distill.batches import Rounds  # noqa: E402
from foretoken.errors import InputError  # noqa: E402

pytestmark = pytest.mark.torch
STEPS = 40
WORDS = ["harbor", "salt", "heron", "river", "stone", "letter", "winter", "garden", "music", "silver"]


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    monkeypatch.setattr(training, "ROUNDS", 12)
    monkeypatch.setattr(training, "EVALUATIONS", 2)
    monkeypatch.setattr(training, "product_dtype", lambda: torch.float32)  # not by the clock
    monkeypatch.setenv("FORETOKEN_CACHE_DIR", str(tmp_path / "cache"))


def plan_of(tmp_path, **changes):
    data = tmp_path / "data.jsonl"
    kinds = ("Define the noun {}.", "Write this dictionary entry as JSON.\n\n" + ENTRY.replace("harbor", "{}"))
    lines = [{"messages": [{"role": "user", "content": kind.format(word)}]} for word in WORDS for kind in kinds]
    data.write_text("\n".join(map(json.dumps, lines)))
    sizes = Sizes(hidden=64, layers=2, mlp=64, **changes.pop("sizes", {}))
    return Plan([str(data)], **{"steps": STEPS, "tokens": 2500, "sizes": sizes, "threads": 1, **changes})


def listener(stop_after=None):
    """Asks to stop after so many steps of training."""
    seen = {"stage": "", "count": 0}

    def stage(name):
        seen.update(stage=name, count=0)

    def advance(*_):
        seen["count"] += 1

    def should_stop():
        return stop_after is not None and "learns" in seen["stage"] and seen["count"] >= stop_after

    return Listener(stage, advance, lambda _: None, should_stop)


def run(out, plan, **options):
    distill.prepare(out, plan)
    return distill.run(embedded(drafter="none"), plan, out, listener(**options))


def weights_of(out):
    return (out / "model.safetensors").read_bytes()


def test_it_rises_drafts_and_resumes_exactly(tmp_path):
    plan = plan_of(tmp_path)
    whole = run(tmp_path / "whole", plan)
    assert whole.is_finished and whole.steps == STEPS
    assert whole.survival[0] > whole.survival_before[0]
    assert whole.survival == sorted(whole.survival, reverse=True)

    part = run(tmp_path / "part", plan, stop_after=7)
    assert not part.is_finished and part.stage == "training" and part.steps == 7
    assert not (tmp_path / "part" / "config.json").exists(), "nothing half-made is left for a model"
    again = distill.run(
        embedded(drafter="none"), distill.prepare(tmp_path / "part", None), tmp_path / "part", listener()
    )
    assert again.is_finished and (again.texts, again.best_step) == (whole.texts, whole.best_step)
    assert weights_of(tmp_path / "part") == weights_of(tmp_path / "whole")

    model = foretoken.load(drafter=tmp_path / "whole")
    drafted = model.generate(CODE, max_tokens=60, temperature=0, horizon=4)
    assert drafted.tokens == embedded(drafter="none").generate(CODE, max_tokens=60, temperature=0, horizon=0).tokens
    assert drafted.stats.acceptance_rate > 0
    curve = json.loads((tmp_path / "whole" / "curves.json").read_text())
    assert curve[0]["step"] == 0 and curve[-1]["step"] == STEPS


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_leaves_a_run_that_goes_on(tmp_path):
    out, plan = tmp_path / "out", plan_of(tmp_path, steps=6)
    assert not run(out, plan, stop_after=3).is_finished
    kept = (out / "work" / "checkpoint.pt").read_bytes()
    (out / "work" / "checkpoint.tmp").symlink_to("/dev/full")
    with pytest.raises(InputError, match=r"out cannot be written: No space left on device\. .*--resume"):
        distill.run(embedded(drafter="none"), plan, out, listener(stop_after=1))
    assert (out / "work" / "checkpoint.pt").read_bytes() == kept
    assert not os.path.lexists(out / "work" / "checkpoint.tmp")
    assert distill.run(embedded(drafter="none"), plan, out, listener()).is_finished


def test_a_given_drafter_is_tuned_with_a_short_head(tmp_path):
    plan = plan_of(tmp_path, steps=2, sizes={"head_vocab": 1024, "clusters": 64})
    run(tmp_path / "first", plan)
    made = foretoken.load(drafter=tmp_path / "first").drafter.assistant
    assert (made.config.head_vocab_len, made.config.num_clusters) == (1024, 64)
    ids = made.weights.head_ids
    texts = [json.loads(line) for line in (tmp_path / "first" / "work" / "texts.jsonl").read_text().splitlines()]
    counts = np.zeros(4096, int)
    for text in (line["text"] for line in texts if "text" in line):
        if text["source"] % 10:  # the others are held out
            np.add.at(counts, text["ids"], 1)
    left_out = np.setdiff1d(np.arange(4096), ids)
    assert counts[left_out].max() <= counts[ids].min()
    tuned = run(tmp_path / "tuned", plan_of(tmp_path, steps=2, start=str(tmp_path / "first")))
    assert tuned.is_finished
    assert json.loads((tmp_path / "tuned" / "config.json").read_text())["head_vocab_size"] == 1024
    assert weights_of(tmp_path / "tuned") != weights_of(tmp_path / "first")


def test_places_to_copy_from_are_those_where_copying_is_right():
    ids = [7, 8, 9, 7, 8, 5, 9, 7, 8]
    assert list(copying.places(ids, 1)) == [(3, 1), (6, 3), (7, 4)]  # 8 at 4 is followed by 5, not by 9
    assert list(copying.places(ids, 6)) == [(6, 3), (7, 4)]


def test_of_a_given_passage_is_learnt_what_the_target_would_say(tmp_path):
    target = embedded(drafter="none")
    ids = target.tokenizer.encode("def add(first, second):\n    return first + second\n", add_bos=True)
    some = [writing.Text(1, 1, 1, 0.0, ids, is_given=given) for given in (False, True)]
    recorded = records.record(target, some, tmp_path / "records", lambda: False, lambda *_: None)
    config = shape.checked(target.target.config, shape.config_data(target.target.config, plan_of(tmp_path).sizes))
    rounds = Rounds(recorded, config, target.target, np.arange(config.vocab_len))
    own, given = (rounds.fixed([index], 4) for index in (0, 1))
    at = np.linspace(1, len(ids) - 2, 4).astype(int)
    first = int(recorded.first[1])
    assert own.labels[0, :, 0].tolist() == [ids[b + 1] for b in at]
    assert given.labels[0, :, 0].tolist() == recorded.likely[first + at, 0].tolist()
    assert given.labels[0, :, 0].tolist() != own.labels[0, :, 0].tolist()
    assert torch.equal(own.embedded, given.embedded), "what is fed is the text's"


def test_too_few_texts_are_said(tmp_path):
    data = tmp_path / "one.txt"
    data.write_text("one passage")
    with pytest.raises(InputError, match="Give more passages"):
        run(tmp_path / "out", Plan([str(data)], steps=1, tokens=1000, threads=1))


@pytest.mark.parametrize("has_repeats", [False, True])
def test_the_loss_looks_at_few_scores_and_means_all(has_repeats):
    """Its value and gradient are those of whole distributions; likely rows repeat where tokens share a cluster."""
    torch.manual_seed(3)
    n, rows, most = 40, 90, 12
    scores = (3 * torch.randn(n, rows)).requires_grad_()
    labels, chance = torch.randint(-1, rows, (n,)), 0.9 * torch.rand(n, most).softmax(-1)
    likely = torch.stack([torch.randperm(rows)[:most] for _ in range(n)])
    likely[:, 3] = -1
    if has_repeats:
        likely = torch.randint(-1, 8, (n, most))
    share = training._merged(likely, chance) if has_repeats else chance
    found = training._loss(scores, labels, likely, share)

    logq = scores.log_softmax(-1)
    hard = -logq.gather(1, labels.clamp_min(0)[:, None])[:, 0] * (labels >= 0)
    p = torch.zeros_like(logq).scatter_add_(1, likely.clamp_min(0), chance * (likely >= 0))
    overlap = torch.minimum(p, logq.exp()).sum(1)
    weight = torch.exp(-3 * overlap.detach())
    expected = 0.5 * hard + 0.5 * (weight * -(p * logq).sum(1) + (1 - weight) * (1 - overlap))

    assert torch.allclose(found, expected, atol=1e-5)
    gradients = [torch.autograd.grad(loss.sum(), scores, retain_graph=True)[0] for loss in (found, expected)]
    assert torch.allclose(*gradients, atol=1e-6)
