"""Leftovers of an ended run: files beside their places that were never renamed, a folder for them, a lock."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import override

from provisioner import hooks
from provisioner.hooks import Hook
from provisioner.machine.facts import Facts
from provisioner.machine.journal import Journal
from provisioner.machine.things import Folder, Record, Thing, folders, of_kind
from provisioner.machine.transaction import STAGED_SUFFIX, STATE_DIR, Part, RemoveEmptyDir, RemoveFile
from provisioner.steps.base import Comparison, State, Step, Wanted, time_back


class Staged(Step):
    """Files staged beside those of all `owners`. No system reads them.

    Its parts come after the parts of all steps that rename their staged files.
    """

    name = "staged"

    def __init__(self, owners: Sequence[Step]) -> None:
        self._owners = owners

    @override
    def things(self, hook: Hook) -> tuple[Thing, ...]:
        # Of all hooks: one record, and the same question for each of them.
        places = folders(thing for step in self._owners for each in hooks.HOOKS for thing in step.things(each))
        patterns = " ".join(f"{place}/*{STAGED_SUFFIX}" for place in places)
        return (Record("staged", f'for entry in {patterns}; do [ ! -f "$entry" ] || echo "$entry"; done'),)

    @override
    def compare(self, wanted: Wanted, facts: Facts, journal: Journal) -> Comparison:
        left = _staged(facts)
        if left:
            return Comparison(State.DRIFTED, f"a run that was ended left {', '.join(left)}")
        return Comparison(State.DRIFTED if facts.has_dead_lock else State.PRESENT, "a run that was ended left its lock")

    @override
    def write(self, wanted: Wanted, facts: Facts, journal: Journal) -> tuple[Part, ...]:
        return tuple(map(RemoveFile, _staged(facts)))

    @override
    def remains(self, facts: Facts, journal: Journal) -> tuple[str, ...]:
        hook = hooks.installed(journal)
        files = filter(_is_elsewhere, _staged(facts))
        return (*files, *([f"an empty {hook.module}"] if _is_empty(facts, hook) else []))

    @override
    def remove(self, facts: Facts, journal: Journal) -> tuple[Part, ...]:
        # The folder's time once more: a dead `down` may have changed it last, and no record shows that.
        if not self.remains(facts, journal):
            return time_back(journal)
        hook = hooks.installed(journal)
        declared = [thing for step in self._owners for thing in step.things(hook)]
        # Folders that could not go with their step while these files were in them.
        emptied = [folder.path for folder in reversed(of_kind(declared, Folder)) if _is_elsewhere(folder.path)]
        files = filter(_is_elsewhere, _staged(facts))
        return (*map(RemoveFile, files), *map(RemoveEmptyDir, emptied), *time_back(journal))


def _staged(facts: Facts) -> list[str]:
    return facts.text("staged").splitlines()


def _is_elsewhere(path: str) -> bool:
    """Our own folder goes as a whole."""
    return not f"{path}/".startswith(f"{STATE_DIR}/")


def _is_empty(facts: Facts, hook: Hook) -> bool:
    names = {record for record in facts.records if record.startswith("module/") and record.endswith(".stat")}
    staged = {f"module/{path.rpartition('/')[2]}.stat" for path in _staged(facts)}
    return facts.file("module-dir", hook.module) is not None and names <= staged
