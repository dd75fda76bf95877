"""`foretoken distill`: a drafter for a target, made or tuned on this machine's processor.

The target writes texts with our own engine, in the format in which it will be deployed; what a drafter is fed is read
off it; a small torch model learns to guess on. Every stage is kept in OUT/work and gone on with after an interruption.
torch is imported only inside `run`: the rest of the package does without it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretoken import config as configs
from foretoken.api import Model
from foretoken.config import read_json
from foretoken.distill import folder, records, shape, sources, writing
from foretoken.distill.shape import Sizes
from foretoken.errors import ConfigError, InputError
from foretoken.files import write_atomically
from foretoken.ops import native

if TYPE_CHECKING:
    from foretoken.distill.batches import Rounds
    from foretoken.distill.training import Course

DATA_ROUNDS = 4  # how often the same passages are given to the target, cut elsewhere
TEXT_SHARE = 0.25  # of the minutes, at most, the target writes
MIN_TEXTS = 8
PLAN = "plan.json"
PLAN_TYPES: dict[str, Any] = {  # `data` and `sizes` aside
    "model": str | None, "start": str | None, "format": str, "minutes": float | int | None, "steps": int | None,
    "tokens": int, "seed": int, "threads": int | None,
}  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What was asked for; kept in the work folder, so that a resume asks for the same."""

    data: list[str]
    model: str | None = None
    start: str | None = None  # the folder of an assistant to be tuned
    format: str = "auto"
    minutes: float | None = None
    steps: int | None = None
    tokens: int = 400_000
    seed: int = 1
    threads: int | None = None
    sizes: Sizes = field(default_factory=Sizes)

    def save(self, work: Path) -> None:
        """Keep it in a work folder, which is made; raises InputError."""
        try:
            work.mkdir(parents=True, exist_ok=True)
            write_atomically(work / PLAN, json.dumps(asdict(self), indent=1).encode())
        except OSError as error:
            raise InputError(f"{work} cannot be written: {error.strerror or error}.") from error

    @classmethod
    def load(cls, work: Path) -> Plan:
        """Raises InputError where there is none, or it is not one of ours."""
        try:
            data = read_json(work / PLAN)
            _check_types(data)
            known = {f.name for f in fields(cls)}
            return cls(**{k: v for k, v in data.items() if k in known - {"sizes"}}, sizes=Sizes(**data["sizes"]))
        except (ConfigError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"{work.parent} holds no run to go on with: {error}") from error


def _check_types(data: dict[str, Any]) -> None:
    """Raise TypeError for a plan that is not as it was saved; what its values may be is checked where they are used."""
    wrong = [name for name, kind in PLAN_TYPES.items() if name in data and not isinstance(data[name], kind)]
    if not isinstance(data["data"], list) or not all(isinstance(path, str) for path in data["data"]):
        wrong.append("data")
    if not all(isinstance(size, int) for size in data["sizes"].values()):
        wrong.append("sizes")
    if wrong:
        raise TypeError(f"{' and '.join(wrong)} in {PLAN} have values of another kind.")


@dataclass
class Report:
    """What came of a run so far. `survival` is the held-out share of rounds whose drafts 1 … i were right, by i."""

    is_finished: bool = False
    stage: str = ""
    texts: int = 0
    tokens: int = 0
    loops: int = 0
    steps: int = 0
    seconds: float = 0.0
    loss: float | None = None
    best_step: int = 0  # the drafter that is written stems from this one
    survival_before: list[float] = field(default_factory=list)
    survival: list[float] = field(default_factory=list)
    bytes: int = 0
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Listener:
    """Who is told: stage(name), advance(done, in all, note), say(line); should_stop() is asked again and again."""

    stage: Callable[[str], None]
    advance: Callable[[int, int, str], None]
    say: Callable[[str], None]
    should_stop: Callable[[], bool]


def need_torch() -> None:
    """Raises InputError with the command that installs torch, where it is missing."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise InputError(
            "distill needs torch. Install it with: pip install 'foretoken-mtp[train]'; "
            "in a checkout: pip install '.[train]'"
        ) from error


def prepare(out: Path, plan: Plan | None) -> Plan:
    """The work folder of a new run, or the plan of an earlier one where `plan` is None; raises InputError."""
    work = out / "work"
    if plan is None:
        if not os.path.exists(work / PLAN):
            raise InputError(f"{out} holds no run to go on with. Leave --resume out to begin one.")
        return Plan.load(work)
    if os.path.exists(work / PLAN):
        raise InputError(f"{out} holds a run already. Go on with --resume, or name another folder.")
    if os.path.exists(out / "config.json"):
        raise InputError(f"{out} holds a model already. Name another folder.")
    sources.read([Path(path) for path in plan.data])  # refuse bad data before a model is loaded
    plan.save(work)
    return plan


def run(model: Model, plan: Plan, out: Path, to: Listener) -> Report:
    """Write texts, record, train, and write the assistant; what is there already is gone on with.

    model   the target, loaded in the format of deployment
    returns a report that is not finished where `to.should_stop` said so
    raises  InputError, also where the disk is full: then what is there is whole, and a resume goes on with it;
            ConfigError, WeightsError
    """
    try:
        return _run(model, plan, out, to)
    except OSError as error:
        raise InputError(
            f"{out} cannot be written: {error.strerror or error}. Free some space and go on with --resume."
        ) from error


def _run(model: Model, plan: Plan, out: Path, to: Listener) -> Report:
    need_torch()
    import torch

    torch.set_num_threads(native.threads())
    work, report = out / "work", Report()
    config_data, generation = _config(model, plan)
    config = shape.checked(model.target.config, config_data)
    written = _write(model, plan, work, report, to)
    if to.should_stop():
        return report
    report.stage = "recording"
    to.stage("The target reads them")
    texts = _within(written.texts, records.budget(model, work), report, to)
    recorded = records.record(model, texts, work / "records", to.should_stop, to.advance)
    if recorded is None:
        return report
    from foretoken.distill.training import Training

    report.stage = "training"
    to.stage("The drafter learns")
    weights, rounds = _start(model, plan, config, recorded)
    training = Training(weights, config, rounds, plan.seed, work / "checkpoint.pt")
    report.is_finished = training.run(_progress(plan, written.seconds), to.should_stop, _told(to, training.course))
    _take(report, training.course)
    if report.is_finished:
        folder.write(out, config_data, generation, training.best)
        report.bytes = folder.size_of(out)
        without = folder.write_curves(out, training.course.curve)
        report.notes += [f"no picture of the curves: {without}"] if without else []
    return report


def _config(model: Model, plan: Plan) -> tuple[dict[str, Any], dict[str, Any]]:
    """config.json and generation_config.json of the drafter: a given one's own, or new ones."""
    if plan.start is None:
        return shape.config_data(model.target.config, plan.sizes), folder.generation_config(model.defaults.eos_ids)
    path = Path(plan.start)
    from foretoken import weights

    weights.load(path, configs.load_drafter_config(path), "bf16", native)  # every check of the runtime
    generation = path / "generation_config.json"
    return read_json(path / "config.json"), read_json(generation) if os.path.exists(generation) else {}


def _start(
    model: Model, plan: Plan, config: configs.DrafterConfig, recorded: records.Records
) -> tuple[dict[str, Any], Rounds]:
    """Weights that training begins with, and the rounds that it learns on."""
    from foretoken.distill import copying, start, training
    from foretoken.distill.batches import Rounds

    if plan.start is not None:
        weights = start.given(Path(plan.start))
        return weights, Rounds(recorded, config, model.target, folder.ids_of(weights, config.vocab_len))
    weights = start.new(config, model.target, recorded, writing.frequencies(recorded.texts), plan.seed)
    rounds = Rounds(recorded, config, model.target, folder.ids_of(weights, config.vocab_len))
    copies = copying.with_copying(weights, config, model.target, recorded, plan.seed)
    return weights if copies is None else training.better(copies, weights, config, rounds), rounds


def _write(model: Model, plan: Plan, work: Path, report: Report, to: Listener) -> writing.Written:
    """The texts of `plan`, from the file where they are there already."""
    report.stage = "writing"
    to.stage("The target writes texts")
    path, ready = work / "texts.jsonl", work / "texts.done"
    if os.path.exists(ready):
        written = writing.load(path)
    else:
        seconds = None if plan.minutes is None else plan.minutes * 60 * TEXT_SHARE
        found = sources.read([Path(p) for p in plan.data])
        prompts = sources.prompts(found, model.tokenizer, model.chat_template, plan.seed, DATA_ROUNDS)
        written = writing.write(model, prompts, path, plan.seed, plan.tokens, seconds, to.should_stop, to.advance)
    own = written.own
    report.texts, report.tokens, report.loops = len(own), written.tokens, written.loops
    if to.should_stop():
        return written
    held_out = sum(text.is_held_out for text in own)
    if len(own) < MIN_TEXTS or not 0 < held_out < len(own):
        raise InputError(
            f"the target wrote {len(own)} texts that can be used, {held_out} of them held out; "
            f"{written.loops} were left out as loops. Give more passages, more minutes or more tokens."
        )
    if not os.path.exists(ready):
        passages = sources.beginnings(found, model.tokenizer, plan.seed, model.context_len)
        writing.add_given(written, passages, path, to.should_stop)
        if to.should_stop():
            return written
        ready.touch()
    given = len(written.texts) - len(own)
    to.say(
        f"{len(own)} texts of {written.tokens} tokens, {written.loops} left out because they loop; "
        f"{given} of your passages are read as well"
    )
    return written


def _within(texts: list[writing.Text], budget: int, report: Report, to: Listener) -> list[writing.Text]:
    """As many texts as may be recorded."""
    kept, total = [], 0
    for text in texts:
        total += len(text.ids)
        if total <= budget:
            kept.append(text)
    to.say(f"room to record {budget:,} tokens; the texts have {total:,} with their prompts")
    if len(kept) < len(texts):
        report.notes.append(f"{len(texts) - len(kept)} texts were not recorded: there is room for {budget:,} tokens")
    return kept


def _progress(plan: Plan, written_s: float) -> Callable[[Course], float]:
    """How far a course is: by steps, or by the seconds that writing left of the minutes."""
    if plan.steps is not None:
        count = plan.steps
        return lambda course: course.step / count
    seconds = max((plan.minutes or 0.0) * 60 - written_s, 1.0)
    return lambda course: course.seconds / seconds


def _told(to: Listener, course: Course) -> Callable[[Course, float], None]:
    """A line at every evaluation, the bar at every step."""
    shown = len(course.curve)

    def told(course: Course, progress: float) -> None:
        nonlocal shown
        for point in course.curve[shown:]:
            to.say(line(point))
        shown = len(course.curve)
        last = course.curve[-1]["survival"] if course.curve else []
        to.advance(int(1000 * progress), 1000, f"loss {course.loss:.3f}, held out {spelled(last)}")

    return told


def line(point: dict[str, Any]) -> str:
    """An evaluation in words."""
    loss = "" if point["loss"] is None else f" · loss {point['loss']:.3f}"
    return (
        f"step {point['step']}, {point['progress']:.0%}{loss} · held-out drafts accepted {spelled(point['survival'])}"
    )


def spelled(survival: list[float]) -> str:
    """Shares of rounds whose drafts 1 … i are kept, in words."""
    return " ".join(f"{share:.2f}" for share in survival)


def _take(report: Report, course: Course) -> None:
    report.steps, report.seconds = course.step, round(course.seconds, 1)
    if course.curve:
        best = next(p for p in course.curve if p["step"] == course.best)
        report.best_step = course.best
        report.survival_before, report.survival = course.curve[0]["survival"], best["survival"]
        report.loss = course.curve[-1]["loss"]
