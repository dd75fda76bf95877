"""`foretoken distill` on the command line: what is refused, with one line and exit code 2."""

import pytest
from command import assert_refused, foretoken


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
