"""The pool: bounded, with a clock, and never held by one that hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, cast

import pytest

from provisioner.batches import Stage
from provisioner.ci.base import Provider
from provisioner.engine.executor import Threads
from provisioner.engine.pool import TICK_S, Pool, Task
from provisioner.engine.rollout import Rollout
from provisioner.engine.visit import Brief, Visitor
from provisioner.events import Event, HostDone
from provisioner.machine.journal import Run
from provisioner.outcome import Outcome
from provisioner.verb import Verb
from provisioner.verbs import perform
from tests.unit.runs import host_spec

# Over at the second look at the clock: what a thread does at once is done by then, on a busy machine too.
LIMIT_S: Final = 1.5 * TICK_S


def pool(
    work: Callable[[Task[str]], str], size: int = 2, limit_s: float | None = None, grace_s: float = 0.2
) -> Pool[str, str]:
    return Pool(work, lambda task: f"{task.item} given up", size, limit_s, threading.Event(), grace_s)


def test_no_more_at_once_than_its_size() -> None:
    lock, active, most, together = threading.Lock(), [0], [0], threading.Barrier(3)

    def work(task: Task[str]) -> str:
        with lock:
            active[0] += 1
            most[0] = max(most[0], active[0])
        if task.item in items[:3]:
            together.wait(10)
        time.sleep(0.01)
        with lock:
            active[0] -= 1
        return task.item.upper()

    items = [f"h{number}" for number in range(20)]
    assert sorted(pool(work, size=3).run(items, lambda: True)) == sorted((item, item.upper()) for item in items)
    assert most[0] == 3


def test_answers_come_while_others_work() -> None:
    release = threading.Event()

    def work(task: Task[str]) -> str:
        if task.item == "slow":
            release.wait(10)
        return "done"

    answers = pool(work).run(["slow", "a", "b", "c"], lambda: True)
    assert [next(answers)[0] for _ in range(3)] == ["a", "b", "c"]
    release.set()
    assert next(answers)[0] == "slow"


def test_time_that_is_over_cancels_one_and_only_that() -> None:
    def work(task: Task[str]) -> str:
        if task.item == "slow":
            return f"cancelled: {task.cancel.wait(10)}"
        return f"late: {task.cancel.is_set()}"

    assert dict(pool(work, limit_s=LIMIT_S, grace_s=10).run(["slow", "a"], lambda: True)) == {
        "slow": "cancelled: True",
        "a": "late: False",
    }


def test_one_that_does_not_listen_is_given_up_and_its_late_answer_dropped() -> None:
    release, said = threading.Event(), list[str]()

    def work(task: Task[str]) -> str:
        if task.item == "deaf":
            release.wait(10)
        else:
            release.set()
        said.append(task.item)
        return "done"

    found = list(pool(work, size=1, limit_s=LIMIT_S).run(["deaf", "next"], lambda: True))
    assert found == [("deaf", "deaf given up"), ("next", "done")]


def test_one_that_changes_something_is_waited_for() -> None:
    def work(task: Task[str]) -> str:
        assert task.may_change()
        assert task.cancel.wait(10)
        time.sleep(0.5)  # longer than the grace: it takes something back
        return "taken back"

    assert list(pool(work, limit_s=LIMIT_S).run(["h"], lambda: True)) == [("h", "taken back")]


def test_nothing_is_changed_once_it_is_too_late() -> None:
    def work(task: Task[str]) -> str:
        task.cancel.wait(10)
        return f"may change: {task.may_change()}"

    assert list(pool(work, limit_s=0.05, grace_s=10).run(["h"], lambda: True)) == [("h", "may change: False")]


def test_cancel_reaches_those_that_work_and_is_told_once() -> None:
    cancel, told = threading.Event(), list[bool]()

    def work(task: Task[str]) -> str:
        cancel.set()
        return f"cancelled: {task.cancel.wait(10)}"

    working: Pool[str, str] = Pool(work, str, 2, None, cancel, on_cancel=lambda: told.append(True))
    assert dict(working.run(["a", "b", "c"], lambda: True))["a"] == "cancelled: True"
    assert told == [True]


def test_nothing_is_started_once_it_may_not() -> None:
    begun: list[str] = []

    def work(task: Task[str]) -> str:
        begun.append(task.item)
        return ""

    list(pool(work, size=1).run(["a", "b", "c"], lambda: len(begun) < 2))
    assert begun == ["a", "b"]


@pytest.mark.timeout(60)
def test_a_report_that_is_broken_leaves_nobody_waiting() -> None:
    def broken(event: Event) -> None:
        if not isinstance(event, HostDone):
            raise ValueError(event)  # noqa: TRY004 - as a report's own bug would

    run = Run("r", "status", "me@here", "")
    rollout = Rollout(Threads(Visitor(cast("Provider", None), perform)), broken, Brief(run, Verb.STATUS))
    [result] = rollout.roll_out([Stage((host_spec("h1"),))])
    assert (result.outcome, result.error.startswith("bug in nixprov: ValueError")) == (Outcome.FAILED, True)


def test_a_thread_is_not_named_after_what_the_inventory_says() -> None:
    """A host's specification has its variables, and a thread's name is in every trace of the process."""
    named = pool(lambda _task: threading.current_thread().name).run(["hunter2"], lambda: True)
    assert [name for _, name in named] == ["host"]
