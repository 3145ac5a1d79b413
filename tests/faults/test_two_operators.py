"""Two people, one host: one of them works, the other is told who does; nothing is doubled, nothing fought over."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
from nixprov_lab.running import Lab

from tests.faults.machine import Begun, journal, runners, untouched
from tests.lab.operator import Operator


def test_at_once_one_wins_and_the_other_gets_one_line(lab: Lab, operators: Callable[[], Operator]) -> None:
    with untouched(lab, "host1", operators()):
        runs = [Begun(operators(), "up", "host1", "--yes") for _ in range(2)]
        ends = sorted(run.end() for run in runs)
        assert [code for code, _ in ends] == [0, 5], ends
        refused = [line for line in ends[1][1].splitlines() if "holds it" in line or "another operator" in line]
        assert refused, ends[1][1]
        assert len(runners(lab, "host1")) == 1
        assert operators()("plan", "host1", "--json").summary["unchanged"] == 1


@pytest.mark.parametrize("phase", ["create", "write"])
def test_a_run_that_sleeps_is_named_and_may_be_taken_over(
    lab: Lab, operators: Callable[[], Operator], phase: str
) -> None:
    """Asleep at `create` it doubles the runner when it wakes; at `write` the other run has found its runner and uses it."""
    with untouched(lab, "host1", operators()):
        asleep = Begun(operators(), "up", "host1", "--yes")
        asleep.phase(phase)
        asleep.process.send_signal(signal.SIGSTOP)
        try:
            told = operators()("up", "host1", "--yes", "--json")
            assert told.code == 5
            assert "holds it" in told.err
            assert "--take-over" in told.err
            took = operators()("up", "host1", "--yes", "--json", "--take-over")
            assert took.code == 0, took.err
            used = journal(lab, "host1")["runners"]["default"]["id"]
        finally:
            asleep.process.send_signal(signal.SIGCONT)
        code, err = asleep.end()
        assert code == 5, err
        assert "another operator" in err
        assert runners(lab, "host1") == [used]
        assert operators()("plan", "host1", "--json").summary["unchanged"] == 1
