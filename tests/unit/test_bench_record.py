"""Dated result files: where they go, what they hold beside the report, and what they never hold."""

import getpass
import json
import platform
from datetime import date

import pytest

from foretoken.bench import record
from foretoken.errors import InputError


def test_a_report_is_kept_with_date_version_and_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "CPUINFO", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text(
        "processor : 0\nmodel name\t: Some CPU @ 3 GHz\nflags\t\t: fpu avx2 avx512_vnni\n"
    )
    file = record.save({"ms": 1.5, "threads": 3}, "verify-cost E2B", record.target(tmp_path))
    day = date.today().isoformat()
    assert file == tmp_path / f"{day}-verify-cost-e2b.json"
    found = json.loads(file.read_text())
    assert found["machine"]["processor"] == "Some CPU @ 3 GHz"
    assert found["machine"]["flags"] == ["avx2", "avx512_vnni"]
    assert (found["date"], found["what"], found["ms"], found["threads"]) == (day, "verify-cost E2B", 1.5, 3)
    assert "version" in found and found["isa"]
    second = record.save({}, "verify-cost E2B", tmp_path)
    assert second.name == f"{day}-verify-cost-e2b-2.json" and json.loads(file.read_text()) == found


def test_neither_host_nor_user_nor_path_is_kept(tmp_path):
    text = record.save({}, "draft", tmp_path).read_text()
    assert "/" not in text.replace(record.machine()["processor"], "")
    for name in (platform.node(), getpass.getuser()):
        assert f'"{name}"' not in text


def test_a_machine_that_tells_nothing_has_a_processor_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "CPUINFO", tmp_path / "none")
    monkeypatch.setattr(record, "HUGE_PAGES", tmp_path / "none")
    found = record.machine()
    assert found["processor"] and found["flags"] == [] and found["huge_pages"] is None


def test_a_file_by_name_is_written_once(tmp_path):
    path = record.target(tmp_path / "own.json")
    assert record.save({"a": 1}, "draft", path) == path
    with pytest.raises(InputError, match="exists"):
        record.target(path)
    with pytest.raises(InputError, match="cannot be kept"):
        record.save({"a": 2}, "draft", path)
    assert json.loads(path.read_text())["a"] == 1


def test_a_full_disk_leaves_no_half_of_a_file(tmp_path):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))
    try:
        with pytest.raises(InputError, match="cannot be kept"):
            record.save({"a": "x" * 10_000}, "draft", tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["none/own.json", "own.txt", "none"])
def test_what_could_not_be_kept_is_refused_before(tmp_path, name):
    with pytest.raises(InputError, match="no folder"):
        record.target(tmp_path / name)


def test_auto_is_the_folder_of_a_checkout(tmp_path, monkeypatch):
    assert record.target("auto").parts[-2:] == ("bench", "results")
    monkeypatch.setattr(record, "RESULTS", tmp_path / "none" / "results")
    with pytest.raises(InputError, match="checkout"):
        record.target("auto")
