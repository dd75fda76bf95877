"""`foretoken distill` on the command line: what is refused, with one line and exit code 2."""

import pytest
from command import assert_refused, foretoken

from foretoken import distill
from foretoken.cli import distill as command
from foretoken.cli import terminal


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((), "no data"),
        (("--resume", "--data", "x.txt"), "--resume"),
        (("--data", "x.txt", "--minutes", "1", "--steps", "1"), "exclude"),
        (("--data", "x.txt", "--minutes", "nan"), "minutes"),
        (("--data", "x.txt", "--mlp", "33"), "mlp"),
        (("--data", "x.txt", "--from", "y", "--hidden", "64"), "--from"),
    ],
)
def test_bad_arguments(tmp_path, arguments, word):
    assert_refused(foretoken("distill", "--out", tmp_path / "out", *arguments), word)
    assert not (tmp_path / "out").exists()


@pytest.mark.torch
def test_data_is_read_before_anything_is_made(tmp_path):
    pytest.importorskip("torch")
    assert_refused(foretoken("distill", "--out", tmp_path / "out", "--data", tmp_path / "nothing.txt"), "nothing.txt")
    assert not (tmp_path / "out").exists()


def test_at_the_end_it_tells_what_was_gained(monkeypatch, capsys, tmp_path):
    report = distill.Report(is_finished=True, survival_before=[0.25, 0.1], survival=[0.5, 0.3], bytes=1_000_000)
    monkeypatch.setattr(distill, "run", lambda *arguments: report)
    monkeypatch.setattr(terminal, "load_model", lambda *arguments: None)
    command._run(distill.Plan(["x.txt"]), tmp_path / "out", False)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("held-out drafts accepted 0.50 0.30 by position; before training 0.25 0.10")
    assert "--drafter" in lines[1]
