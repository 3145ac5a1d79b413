"""What a run that was ended leaves, and how a later one knows: locks of dead processes, staged files, a switch's stage."""

from __future__ import annotations

import pytest

from provisioner.engine.undo import undo
from provisioner.machine import switch
from provisioner.machine.facts import Facts
from provisioner.machine.transaction import STATE_DIR, RemoveFile, Shell, WriteFile
from provisioner.report.lines import that_matter
from provisioner.steps import STEPS
from provisioner.steps.base import State
from tests.unit.hosts import HOOK, converged, wanted

STAGED = next(step for step in STEPS if step.name == "staged")
LEFT = f"{STATE_DIR}/secrets/default.token.nixprov-new"


def test_what_was_staged_and_the_lock_are_taken_away_by_a_run_that_has_nothing_else_to_do() -> None:
    facts, journal = converged()
    assert STAGED.compare(wanted(), facts, journal).is_present
    left = Facts("host1", {**facts.records, "staged": LEFT.encode()})
    found = STAGED.compare(wanted(), left, journal)
    assert (found.state, LEFT in found.why) == (State.DRIFTED, True)
    assert STAGED.write(wanted(), left, journal) == (RemoveFile(LEFT),)
    locked = Facts("host1", {**facts.records, "lock-left": b"run1"})
    assert STAGED.compare(wanted(), locked, journal).state is State.DRIFTED


def test_going_back_does_not_bring_back_what_was_only_staged() -> None:
    facts, _ = converged()
    staged = "/etc/nixos/nixprov/default.nix.nixprov-new"
    record = {"module/x.stat": b"644 0 0 1 regular file", "module/x.real": staged.encode(), "module/x.data": b"half"}
    before = Facts("host1", {**facts.records, **record})
    assert staged in before.files()
    assert undo([RemoveFile(staged)], before, HOOK) == ()


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ("", "it begins"),
        ("build running 12 ", "it builds"),
        ("activate running 12 ", "it activates"),
        ("activate 4 12 ", "waits to be confirmed"),
        ("commit running 12 ", "the one that boots"),
        ("back running 12 ", "goes back"),
    ],
)
def test_where_a_switch_is(result: str, words: str) -> None:
    assert words in switch.stage(result)


def test_the_next_boot_is_armed_before_any_file_is_changed() -> None:
    parts = switch.push(b"the way back")
    assert [part.path for part in parts if isinstance(part, WriteFile)] == [
        f"{switch.DIR}/run.sh",
        f"{switch.DIR}/undo.sh",
    ]
    assert isinstance(parts[-1], Shell)
    assert "system.control" in parts[-1].text
    assert not any(isinstance(part, Shell) for part in switch.push())


def test_what_a_builder_said_before_nix_did_is_shown() -> None:
    log = ["building '/nix/store/x.drv'...", "nixprov: build", "one", "no such luck", "error: builder failed"]
    assert that_matter(log) == ("one", "no such luck", "error: builder failed")
