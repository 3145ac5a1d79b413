"""Batches and when to stop, as Ansible counts; and the rollout by them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from typing_extensions import override

from provisioner.batches import Rules, Stage, parse_serial, sizes
from provisioner.engine.executor import Threads
from provisioner.engine.host import Host
from provisioner.engine.pool import Task
from provisioner.engine.rollout import Rollout
from provisioner.engine.visit import Brief, Job, Visitor
from provisioner.errors import ConfigError, HostError
from provisioner.events import BatchBegun, Emit, Event, HostDone, Warned
from provisioner.machine.journal import Run
from provisioner.model import Connection, HostSpec
from provisioner.outcome import HostResult, Outcome, exit_code
from provisioner.ssh.session import Session
from provisioner.verb import Verb


@pytest.mark.parametrize(
    ("serial", "total", "expected"),
    [
        ((), 7, [7]),
        ((), 0, []),
        ((3,), 7, [3, 3, 1]),
        ((1, 5, "20%"), 30, [1, 5, 6, 6, 6, 6]),
        ((1, 4, "50%"), 12, [1, 4, 6, 1]),
        (("30%",), 5, [1, 1, 1, 1, 1]),
        (("1%",), 3, [1, 1, 1]),
        (("100%",), 3, [3]),
        ((50,), 3, [3]),
    ],
)
def test_sizes(serial: tuple[int | str, ...], total: int, expected: list[int]) -> None:
    assert sizes(serial, total) == expected


@pytest.mark.parametrize(
    ("rules", "failed", "size", "stops"),
    [
        (Rules(), 0, 1, False),
        (Rules(), 9, 10, False),
        (Rules(), 10, 10, True),
        (Rules(), 1, 1, True),
        (Rules(max_fail_percentage=30), 3, 10, False),
        (Rules(max_fail_percentage=30), 4, 10, True),
        (Rules(max_fail_percentage=0), 0, 10, False),
        (Rules(max_fail_percentage=0), 1, 10, True),
        (Rules(max_fail_percentage=33.4), 1, 3, False),
        (Rules(max_fail_percentage=33.3), 1, 3, True),
        (Rules(max_fail_percentage=100), 3, 3, True),
        (Rules(any_errors_fatal=True), 1, 10, True),
        (Rules(any_errors_fatal=True), 0, 10, False),
    ],
)
def test_a_limit_must_be_exceeded_and_a_whole_batch_is_enough(
    rules: Rules, failed: int, size: int, stops: bool
) -> None:
    assert bool(rules.why_stop(failed, size)) is stops


def test_serial_is_read() -> None:
    assert parse_serial("1, 5,20%") == (1, 5, "20%")


@pytest.mark.parametrize("text", ["", "0", "1,,2", "0%", "101%", "-1", "1.5", "x", "5 %", "٣"])
def test_no_serial(text: str) -> None:
    with pytest.raises(ConfigError, match="no size of a batch"):
        parse_serial(text)


def specs(*names: str) -> tuple[HostSpec, ...]:
    return tuple(HostSpec(name, Connection("192.0.2.1")) for name in names)


@dataclass(frozen=True)
class Rehearsal(Visitor):
    """A visitor that goes nowhere: the hosts in `bad` fail. `begun` are the hosts in the order of events."""

    bad: Collection[str] = ()
    begun: list[str] = field(default_factory=list)

    @override
    def visit(self, task: Task[Job], emit: Emit) -> HostResult:
        name = task.item.spec.name
        self.begun.append(name)
        return HostResult(name, Outcome.FAILED if name in self.bad else Outcome.CHANGED, 0.0)


def rehearsal(
    *bad: str, verb: Verb = Verb.UP, forks: int = 1, cancel: threading.Event | None = None
) -> tuple[Rollout, list[Event], list[str]]:
    events: list[Event] = []
    cancel = cancel or threading.Event()
    visitor = Rehearsal(cast("Any", None), cast("Any", None), bad=bad)
    brief = Brief(Run("20260101T000000-abcdef", verb.value, "a@b", "2026-01-01"), verb)
    return Rollout(Threads(visitor, forks, cancel=cancel), events.append, brief, cancel), events, visitor.begun


def outcomes(results: Sequence[HostResult]) -> str:
    letters = {Outcome.CHANGED: "c", Outcome.FAILED: "F", Outcome.SKIPPED: "-", Outcome.INTERRUPTED: "i"}
    return "".join(letters[result.outcome] for result in results)


@pytest.mark.parametrize(
    ("rules", "bad", "expected"),
    [
        (Rules(), "", "cccccccccc"),
        (Rules(), "abi", "FFccccccFc"),
        (Rules((1, 4)), "a", "F---------"),
        (Rules((1, 4)), "b", "cFcccccccc"),
        (Rules((1, 4)), "bcde", "cFFFF-----"),
        (Rules((1, 4), 25), "b", "cFcccccccc"),
        (Rules((1, 4), 24), "b", "cF--------"),
        (Rules((1, 4), 24), "e", "ccccF-----"),
        (Rules((1, 4), any_errors_fatal=True), "d", "cccF------"),
        (Rules((), 10), "bd", "cFcF------"),
    ],
)
def test_a_rollout_stops_by_its_rules(rules: Rules, bad: str, expected: str) -> None:
    rollout, _, _ = rehearsal(*bad)
    assert outcomes(rollout.roll_out([Stage(specs(*"abcdefghij"), rules)])) == expected


def test_every_host_is_told_of_and_the_stop_once() -> None:
    rollout, events, _ = rehearsal("a")
    results = rollout.roll_out([Stage(specs("a"), Rules(), "canary"), Stage(specs("b", "c"))])
    assert outcomes(results) == "F--"
    assert [type(event) for event in events] == [BatchBegun, HostDone, Warned, HostDone, HostDone]
    assert events[0] == BatchBegun(1, 2, "canary", ("a",))
    assert events[2] == Warned("", "no further host is begun: the only host of the batch failed")
    assert results[2].error == "not begun: the only host of the batch failed"
    assert exit_code(results) == 4


def test_the_last_batch_stops_nothing_and_says_nothing() -> None:
    rollout, events, _ = rehearsal("c")
    rollout.roll_out([Stage(specs("a", "b", "c"), Rules((2,)))])
    assert Warned not in [type(event) for event in events]


def test_what_changes_nothing_runs_everywhere_at_once() -> None:
    rollout, events, _ = rehearsal(*"abc", verb=Verb.STATUS)
    results = rollout.roll_out([Stage(specs("a"), Rules((1,), 0, True)), Stage(specs("b", "c"))])
    assert outcomes(results) == "FFF"
    assert {type(event) for event in events} == {HostDone}


def test_batches_keep_the_order_whatever_the_forks() -> None:
    rollout, _, begun = rehearsal(forks=4)
    results = rollout.roll_out([Stage(specs(*"hgfedcba"), Rules((3,)))])
    assert [result.host for result in results] == list("hgfedcba")
    assert [set(begun[place : place + 3]) for place in (0, 3, 6)] == [set("hgf"), set("edc"), set("ba")]


def test_an_interrupted_run_begins_nothing() -> None:
    cancel = threading.Event()
    cancel.set()
    rollout, _, begun = rehearsal(cancel=cancel)
    assert outcomes(rollout.roll_out([Stage(specs("a", "b"))])) == "ii"
    assert begun == []


def test_a_verb_is_given_what_its_host_shares_with_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second interrupt among it; and what remains is in the result, however the verb ends."""
    session = SimpleNamespace(warnings=("old cipher",), commands=3, connections=1)
    monkeypatch.setattr(Session, "open", lambda *_, **__: nullcontext(session))
    events: list[Event] = []
    seen: list[Host] = []

    def perform(host: Host, may_change: Callable[[], bool]) -> Outcome:
        seen.append(host)
        host.ledger.remains.append("a runner")
        assert may_change()
        raise HostError(host.name, "no")

    visitor = Visitor(cast("Any", None), perform)
    brief = Brief(Run("20260101T000000-abcdef", "up", "a@b", "2026-01-01"), Verb.UP)
    results = Rollout(Threads(visitor), events.append, brief).roll_out([Stage(specs("a", "b"))])
    assert [(one.outcome, one.remains, one.remote_commands) for one in results] == [
        (Outcome.FAILED, ("a runner",), 3)
    ] * 2
    assert {id(host.machine.stop) for host in seen} == {id(visitor.stop)}
    assert len({id(host.context.names) for host in seen}) == 1
    assert [event.text for event in events if isinstance(event, Warned)] == ["old cipher"] * 2
