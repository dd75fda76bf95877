"""Files that users name: read with a bound, whatever they are."""

import os
import threading
from pathlib import Path

import pytest

from foretoken.bench import prompts
from foretoken.distill import sources
from foretoken.errors import InputError
from foretoken.files import read_text

ENDLESS = Path("/dev/zero")


def test_a_text_of_just_the_size(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("aé\r\n", encoding="utf-8")
    assert read_text(path, 5) == "aé\r\n"
    with pytest.raises(InputError, match=r"a\.txt has more than 4 bytes"):
        read_text(path, 4)


@pytest.mark.parametrize("name", ["missing.txt", ".", "latin.txt"])
def test_what_is_no_text(name, tmp_path):
    (tmp_path / "latin.txt").write_bytes(b"\xe9t\xe9")
    with pytest.raises(InputError, match="cannot be read"):
        read_text(tmp_path / name, 100)


@pytest.mark.skipif(not ENDLESS.exists(), reason="needs /dev/zero")
def test_a_file_that_never_ends(monkeypatch):
    """It says that it has no bytes at all; read as a whole it would take all memory."""
    monkeypatch.setattr(prompts, "MAX_BYTES", 1 << 16)
    monkeypatch.setattr(sources, "MAX_FILE_BYTES", 1 << 16)
    for read in (prompts.load, lambda path: sources.read([path])):
        with pytest.raises(InputError, match="/dev/zero has more than 65536 bytes"):
            read(ENDLESS)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=("text",))
    writer.start()
    assert read_text(path, 100) == "text"
    writer.join()
