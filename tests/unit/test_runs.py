"""The operator's record of runs: what it holds, what is left of a run, and that losing it loses nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO

import pytest

from provisioner import runs
from provisioner.errors import ConfigError
from provisioner.inventory import load
from provisioner.machine.journal import Run
from provisioner.outcome import HostResult, Outcome
from provisioner.runs import KEPT, RunFile


def run(number: int = 1, verb: str = "up") -> Run:
    return Run(f"20260101T0000{number:02}-abcdef", verb, "me@here", "2026-01-01T00:00:00+00:00")


def result(host: str, outcome: Outcome, error: str = "") -> HostResult:
    return HostResult(host, outcome, 1.5, error=error)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state" / "nixprov" / "runs"


@pytest.fixture
def recorded(folder: Path) -> RunFile:
    record = RunFile(folder, run())
    record.begin(["a", "b", "c", "d", "e"])
    for host, outcome in (("a", Outcome.CHANGED), ("b", Outcome.FAILED), ("c", Outcome.UNCHANGED)):
        record.record(result(host, outcome, "it broke" if outcome is Outcome.FAILED else ""))
    record.record(result("d", Outcome.SKIPPED, "not begun"))
    record.end(4)
    return record


def test_what_is_left_are_all_that_did_not_end_well(folder: Path, recorded: RunFile) -> None:
    past = runs.load(recorded.run.id, folder)
    assert (past.verb, past.hosts, past.left) == ("up", ("a", "b", "c", "d", "e"), ("b", "d", "e"))
    assert runs.load("last", folder) == past


def test_the_failed_file_is_a_limit_of_those_that_failed(recorded: RunFile) -> None:
    assert load(["a,b,c,d,e,"]).match("all", f"@{recorded.failed_file}") == ("b",)


def test_only_the_operator_may_read_it(folder: Path, recorded: RunFile) -> None:
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_a_run_without_failures_leaves_no_file_of_them(folder: Path) -> None:
    record = RunFile(folder, run())
    record.begin(["a"])
    record.record(result("a", Outcome.CHANGED))
    assert record.end(0) is None
    assert [path.name for path in folder.iterdir()] == [f"{record.run.id}.jsonl"]
    assert runs.load("last", folder).left == ()


def test_a_killed_run_can_be_resumed(folder: Path) -> None:
    record = RunFile(folder, run())
    record.begin(["a", "b", "c"])
    record.record(result("a", Outcome.CHANGED))
    file = folder / f"{record.run.id}.jsonl"
    torn = file.read_text() + '{"host": "b", "outc'
    record.end(130)
    file.write_text(torn)
    assert runs.load(record.run.id, folder).left == ("b", "c")


def test_the_last_runs_are_kept(folder: Path) -> None:
    for number in range(KEPT + 3):
        record = RunFile(folder, run(number))
        record.begin(["a"])
        record.record(result("a", Outcome.FAILED))
        record.end(5)
    ids = sorted(path.stem for path in folder.glob("*.jsonl"))
    assert ids == [run(number).id for number in range(3, KEPT + 3)]
    assert sorted(path.stem for path in folder.glob("*.failed")) == ids


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    record = RunFile(tmp_path / "state" / "runs", run())
    record.begin(["a"])
    record.record(result("a", Outcome.FAILED))
    assert record.end(5) is None
    assert "not recorded for --resume" in record.problem
    assert not record.is_kept


def test_a_full_disk_stops_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python tries what was not written once more when it closes the file."""

    def full(_file: Path) -> IO[str]:
        return Path("/dev/full").open("w", buffering=1)

    monkeypatch.setattr(runs, "private", full)
    record = RunFile(folder, run())
    record.begin(["a"])
    record.record(result("a", Outcome.CHANGED))
    assert record.end(0) is None
    assert "No space left on device" in record.problem


def test_records_are_nobody_elses_to_read_and_no_link_is_followed(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "victim").write_text("mine")
    for suffix in ("jsonl", "failed"):
        (folder / f"{run().id}.{suffix}").symlink_to("victim")
    record = RunFile(folder, run())
    record.begin(["a"])
    record.record(result("a", Outcome.FAILED))
    record.end(5)
    assert (folder / "victim").read_text() == "mine"
    for suffix in ("jsonl", "failed"):
        assert (folder / f"{run().id}.{suffix}").lstat().st_mode & 0o170777 == 0o100600


@pytest.mark.parametrize("name", ["last", "20260101T000001-ffffff", "../../etc/passwd"])
def test_a_lost_record_is_said(folder: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="there is no record of a run"):
        runs.load(name, folder)


@pytest.mark.parametrize("text", ["", "[]\n", json.dumps({"version": 9, "verb": "up", "hosts": []}), "\0"])
def test_a_broken_record_is_said(folder: Path, recorded: RunFile, text: str) -> None:
    (folder / f"{recorded.run.id}.jsonl").write_text(text)
    with pytest.raises(ConfigError, match="cannot be read"):
        runs.load("last", folder)


def test_the_folder_is_where_the_specification_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert runs.directory() == tmp_path / "nixprov" / "runs"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert runs.directory() == Path.home() / ".local" / "state" / "nixprov" / "runs"
