"""Outcomes to exit codes and summaries, events to text and JSON."""

from __future__ import annotations

import io
import json

import pytest

from provisioner.engine.status import HostReport, RunnerReport
from provisioner.events import Event, HostResult, Outcome, exit_code, summary
from provisioner.hosts.facts import UnitFact
from provisioner.model import ForgeRunner, Manager, RunnerStatus, RunnerType
from provisioner.plan import FileChange, HostPlan, RunnerAction, RunnerVerb, StepAction
from provisioner.report.both import Both
from provisioner.report.json_lines import JsonLines
from provisioner.report.text import PlainText


def results(*outcomes: Outcome) -> list[HostResult]:
    return [HostResult(f"host{number}", outcome, 1.0, 2, 1) for number, outcome in enumerate(outcomes)]


U, C, X, F, G, R, B, K = (
    Outcome.UNCHANGED,
    Outcome.CHANGED,
    Outcome.UNREACHABLE,
    Outcome.FAILED,
    Outcome.FORGE,
    Outcome.ROLLED_BACK,
    Outcome.ROLLBACK_FAILED,
    Outcome.INTERRUPTED,
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
    ],
)
def test_exit_code(outcomes: tuple[Outcome, ...], code: int) -> None:
    assert exit_code(results(*outcomes)) == code


def test_summary_adds_up() -> None:
    fields = summary(results(U, C, C, X, F, R, G), gitlab_writes=3, seconds=1.23456)
    assert {
        name: fields[name] for name in ("hosts", "changed", "unchanged", "failed", "unreachable", "rolled_back")
    } == {
        "hosts": 7,
        "changed": 2,
        "unchanged": 1,
        "failed": 3,
        "unreachable": 1,
        "rolled_back": 1,
    }
    assert (fields["remote_commands"], fields["connections"], fields["gitlab_writes"]) == (14, 7, 3)


PLAN = HostPlan(
    "host1",
    (RunnerAction("default", RunnerVerb.CREATE, "GitLab has none"), RunnerAction("other", RunnerVerb.KEEP, id=4)),
    (StepAction("hook", "not imported"),),
    "the configuration changed",
)
CHANGE = FileChange("/etc/nixos/configuration.nix", b"a\nb\n", b"a\nc\n")
REPORT = HostReport(
    "host1",
    "25.11",
    3,
    "up: confirmed",
    "abc",
    (
        RunnerReport(
            "default",
            UnitFact("nixprov-runner-default.service", "active", "running", 0),
            ForgeRunner(7, "x", RunnerType.INSTANCE, paused=False, status=RunnerStatus.ONLINE),
            (Manager(1, "s_1", "2026-01-01T00:00:00Z", RunnerStatus.ONLINE),),
        ),
    ),
    ("hook: not imported",),
)
EVENTS = (
    Event("phase", "host1", {"phase": "probe"}),
    Event("plan", "host1", {"plan": PLAN, "files": (CHANGE,), "check": True}),
    Event("log", "host1", {"text": "building"}),
    Event("warning", fields={"text": "careful"}),
    Event("status", "host1", {"report": REPORT}),
    Event("host", "host1", {"result": HostResult("host1", Outcome.FAILED, 1.0, error="it broke", hint="mend it")}),
)


def test_json_lines_are_one_object_each_with_the_summary_last() -> None:
    out = io.StringIO()
    report = JsonLines(out)
    for event in EVENTS:
        report.event(event)
    report.summary(summary(results(U), 0, 1.0))
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["phase", "plan", "log", "warning", "status", "host", "summary"]
    assert all(line["version"] == 1 for line in lines)
    plan, status, host = lines[1], lines[4], lines[5]
    assert plan["runners"][0] == {"name": "default", "verb": "create", "id": None, "why": "GitLab has none"}
    assert "-b\n+c\n" in plan["diff"][0]
    assert status["runners"][0]["contacted_at"] == "2026-01-01T00:00:00Z"
    assert status["runners"][0]["unit_state"] == "active"
    assert (host["outcome"], host["error"], host["hint"]) == ("failed", "it broke", "mend it")


def test_text_says_the_last_log_lines_of_a_failure_and_what_to_do() -> None:
    out, result = io.StringIO(), io.StringIO()
    report = Both((PlainText(out, result),))
    for event in EVENTS:
        report.event(event)
    report.summary(summary(results(F), 0, 1.0))
    progress, asked = out.getvalue(), result.getvalue()
    assert "failed: it broke; mend it" in progress
    assert progress.index("building") < progress.index("it broke")
    assert "gitlab: create runner default: GitLab has none" in asked
    assert "switch: the configuration changed" in asked
    assert "drift: hook: not imported" in asked
    assert "1 hosts: 0 changed, 0 unchanged, 1 failed, 0 unreachable" in progress


def test_verbose_text_shows_the_log_as_it_comes_and_only_once() -> None:
    out = io.StringIO()
    report = PlainText(out, io.StringIO(), verbose=True)
    for event in EVENTS:
        report.event(event)
    assert out.getvalue().count("building") == 1
