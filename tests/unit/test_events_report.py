"""Outcomes to exit codes and summaries, events to plain text."""

from __future__ import annotations

import io
from typing import Any

import pytest

from provisioner.events import BatchBegun, BugMet, Draining, RunDone, RunnerGone
from provisioner.outcome import HostResult, Outcome, exit_code
from provisioner.report.advice import Typed
from provisioner.report.text import PlainText
from provisioner.verb import Verb
from tests.unit.runs import BUILD_LOG, Play, go, mixed, planned, status_read


def results(*outcomes: Outcome) -> list[HostResult]:
    return [HostResult(f"host{number}", outcome, 1.0, 2, 1) for number, outcome in enumerate(outcomes)]


U, C, X, F, G, R, B, K, S = (
    Outcome.UNCHANGED,
    Outcome.CHANGED,
    Outcome.UNREACHABLE,
    Outcome.FAILED,
    Outcome.CI,
    Outcome.ROLLED_BACK,
    Outcome.ROLLBACK_FAILED,
    Outcome.INTERRUPTED,
    Outcome.SKIPPED,
)


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ((), 0),
        ((U, C), 0),
        ((C, F), 4),
        ((F, F), 5),
        ((X,), 6),
        ((C, X), 6),
        ((X, F), 5),
        ((C, X, F), 4),
        ((R,), 7),
        ((C, R), 7),
        ((R, X), 5),
        ((B, C, C), 8),
        ((G, G), 9),
        ((G, C), 9),
        ((K, B, F), 130),
        ((X, S), 6),
    ],
)
def test_exit_code(outcomes: tuple[Outcome, ...], code: int) -> None:
    assert exit_code(results(*outcomes)) == code


def test_summary_adds_up() -> None:
    fields = RunDone(tuple(results(U, C, C, X, F, R, G, S)), gitlab_writes=3, seconds=1.23456).to_json()
    counted = ("hosts", "changed", "unchanged", "failed", "unreachable", "skipped", "rolled_back")
    assert [dict(fields)[name] for name in counted] == [8, 2, 1, 3, 1, 1, 1]
    assert (fields["remote_commands"], fields["connections"], fields["gitlab_writes"]) == (16, 8, 3)


def plain(play: Play, **settings: Any) -> tuple[io.StringIO, io.StringIO]:
    out, result = io.StringIO(), io.StringIO()
    typed = Typed(Verb(play.verb), ("-i", "my inventory"))
    play.reports.append(PlainText(out, result, play.record, typed=typed, **settings))
    return out, result


def test_a_failure_comes_with_its_last_lines_and_what_to_type() -> None:
    play = mixed()
    out, result = plain(play)
    go(play)
    play.summary()
    lines = out.getvalue().splitlines()
    assert result.getvalue() == ""
    (failure,) = [line for line in lines if "it does not evaluate" in line]
    assert failure.endswith(
        "host2            rolled back: it does not evaluate; rolled back; nixos-rebuild build shows it"
    )
    told = [line.split("host2", 1)[1].strip() for line in lines[: lines.index(failure)] if "error" in line]
    assert told == ["error:", "error: The option `services.nosuch' does not exist."]
    assert "building '/nix/store/0c-unit.drv'..." not in out.getvalue()
    assert lines[-4:] == [
        "! unreachable: host3",
        "↶ rolled back: host2",
        "4 hosts: 1 changed, 1 unreachable, 1 rolled back, 1 unfinished; 12.5 s; 2 writes to GitLab",
        "next: nixprov up host2,host3 -i 'my inventory'",
    ]


def test_a_single_host_needs_no_recap() -> None:
    play = Play(["host1"])
    out, _ = plain(play)
    play.start()
    play.end("host1", F, "it broke", "mend it", ("runner 7",))
    play.summary()
    assert [line[8:] for line in out.getvalue().splitlines()[:2]] == [
        "host1            failed: it broke; mend it",
        "host1            left behind: runner 7",
    ]
    assert out.getvalue().splitlines()[2].startswith("1 host: 1 failed")


def test_a_plan_that_was_asked_for_is_the_result_and_alike_hosts_share_it() -> None:
    play = Play(["host1", "host2"], "plan")
    out, result = plain(play, diff=True)
    play.start()
    for name in reversed(play.names):
        play.emit(planned(name, check=True))
        play.end(name, C)
    play.summary()
    said = result.getvalue()
    assert said.startswith("host1, host2: 4 changes\n  ~ gitlab: create runner default: GitLab has none\n")
    assert "-tags: a\n+tags: b\n" in said
    assert "\n-b\n+c\n" in said
    assert "hook" not in out.getvalue()
    assert "2 hosts: 2 to change;" in out.getvalue()


def test_a_plan_that_is_carried_out_is_progress() -> None:
    play = mixed()
    out, result = plain(play)
    go(play)
    assert "host1            ~ hook: not imported" in out.getvalue()
    assert "-b" not in out.getvalue()
    assert result.getvalue() == ""


def test_status_comes_in_the_order_of_the_inventory_and_names_drift_and_who_is_gone() -> None:
    play = Play(["host1", "host2"], "status")
    out, result = plain(play)
    play.start()
    play.emit(status_read("host2"))
    play.end("host2", U)
    play.emit(status_read("host1", "hook: not imported"))
    play.end("host1", U)
    play.emit(RunnerGone("old", "default", 9, "stale"))
    play.summary()
    jobs = ["7 jobs since 2026-01-01: 1:15", "job 17 of default: runs", "job 16 of default: 3.2 s"]
    assert "3 built (2.0 KiB), 9 found" in result.getvalue()
    assert [line.split(",")[0].strip() for line in result.getvalue().splitlines()] == [
        "host1: installed by nixprov 0.1.0",
        "runner default: active; GitLab #7 online",
        *jobs,
        "drift: hook: not imported",
        "host2: installed by nixprov 0.1.0",
        "runner default: active; GitLab #7 online",
        *jobs,
        "gone: old: not in the inventory",
    ]
    assert "2 hosts: 1 as wanted, 1 drifted;" in out.getvalue()
    assert "old" not in play.record.hosts


def test_verbose_text_shows_the_log_as_it_comes_and_only_once() -> None:
    play = mixed()
    out, _ = plain(play, verbose=True)
    go(play)
    for line in BUILD_LOG:
        assert out.getvalue().count(f"host2              {line}\n") == 1


def test_draining_says_how_many_jobs_and_how_long() -> None:
    play = Play(["host1"], "down")
    out, _ = plain(play)
    play.start()
    play.emit(Draining("host1", 1, 3600.0))
    assert out.getvalue() == "   0.0s host1            waits for 1 job, 1:00:00 at most\n"


def test_batches_are_announced_and_who_was_not_begun_is_named_once() -> None:
    play = Play(["host1", "host2", "host3"])
    out, _ = plain(play)
    play.start()
    play.emit(BatchBegun(1, 2, "", ("host1",)))
    play.end("host1", F, "it broke")
    for name in play.names[1:]:
        play.end(name, S, "too many had failed")
    play.summary()
    lines = out.getvalue().splitlines()
    assert lines[0].endswith("batch 1 of 2: host1")
    assert [line for line in lines if "host2" in line] == [
        "· skipped: host2, host3",
        "next: nixprov up host1,host2,host3 -i 'my inventory'",
    ]


def test_a_bug_shows_its_traceback_only_under_debug() -> None:
    for debug in (False, True):
        play = Play(["host1"])
        out, _ = plain(play, debug=debug)
        play.emit(BugMet("host1", "Traceback: x\n"))
        assert ("Traceback" in out.getvalue()) is debug


def test_foreign_text_cannot_steer_the_terminal() -> None:
    play = Play(["host\x1b[2J1"])
    out, _ = plain(play, verbose=True)
    play.start()
    play.phases("host\x1b[2J1", "connect")
    play.log("host\x1b[2J1", ["\x1b]0;owned\x07red \x1b[31mline\r\x08 glpat-abcdefghijklmnop"])
    play.end("host\x1b[2J1", F, "bad \x9b31m \u202e name")
    play.summary()
    assert not set(out.getvalue()) & set("\x1b\r\x08\x07\x9b\u202e")
    assert "red line" in out.getvalue()
    assert "glpat-***" in out.getvalue()
