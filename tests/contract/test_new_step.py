"""A step that is nothing but declared keeps the promises of all steps, in a real shell and killed anywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from typing_extensions import override

from provisioner import steps
from provisioner.hooks import Hook
from provisioner.machine.things import File, Folder, Thing
from provisioner.steps import Step, Wanted
from tests.contract import test_steps as promises
from tests.contract.scratch import ScratchHost
from tests.contract.test_steps import make, wanted
from tests.unit.hosts import HOOK

__all__ = ["make", "wanted"]

NOTE = f"{HOOK.folder}/note/note.nix"


class Note(Step):
    """A file in a folder of its own, within the user's."""

    name = "note"
    feeds_system = True

    @override
    def things(self, hook: Hook) -> tuple[Thing, ...]:
        return (Folder(f"{hook.folder}/note", record="note-dir"), File("note", NOTE, 0o640))

    @override
    def contents(self, wanted: Wanted) -> Mapping[str, bytes]:
        return {NOTE: b"# a note\n"}


ALONE = (Note(),)


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    more = steps.in_order(*steps.STEPS[:-2], *ALONE)
    for module in (steps, promises):
        monkeypatch.setattr(module, "STEPS", more)


def test_it_is_applied_once_and_taken_back(wanted: Wanted, make: Callable[[], ScratchHost]) -> None:
    promises.test_applied_is_present_and_applied_again_is_nothing(ALONE, wanted, make)
    promises.test_taken_back_is_as_before_and_again_is_nothing(ALONE, wanted, make)
    host = make()
    assert host.write(ALONE, wanted) == 0
    path = host.folder / NOTE.lstrip("/")
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"# a note\n", 0o640)


def test_a_run_that_failed_gives_it_back(make: Callable[[], ScratchHost], wanted: Wanted) -> None:
    (note,) = ALONE
    host = make()
    without, before = host.probe(), host.users_files()
    assert host.write(ALONE, wanted) == 0
    there, after = host.probe(), host.users_files()
    assert host.transact(note.restore(without, there, host.journal()), host.journal()) == 0
    assert host.users_files() == before
    assert host.transact(note.restore(there, host.probe(), host.journal()), host.journal()) == 0
    assert host.users_files()["note/note.nix"] == after["note/note.nix"]


@pytest.mark.parametrize("then", ["apply", "take back"])
def test_killed_anywhere_another_operator_finishes(wanted: Wanted, make: Callable[[], ScratchHost], then: str) -> None:
    promises.test_killed_while_applying_another_operator_finishes(ALONE, wanted, make, then)
    promises.test_killed_while_taking_back_another_operator_finishes(ALONE, wanted, make, then)
