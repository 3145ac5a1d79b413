"""What an ended run left behind: files beside their places that were never renamed, a folder for them, a lock."""

from __future__ import annotations

from typing import Final

from provisioner.machine.facts import Facts
from provisioner.machine.journal import Journal
from provisioner.machine.transaction import STAGED_SUFFIX, STATE_DIR, Part, RemoveEmptyDir, RemoveFile, SetMtime
from provisioner.steps.base import Comparison, State, Step, Wanted
from provisioner.steps.module import DIR

_USERS: Final = ("/etc/nixos", DIR)
_OURS: Final = (STATE_DIR, f"{STATE_DIR}/secrets", f"{STATE_DIR}/backup", f"{STATE_DIR}/switch")


class Staged(Step):
    """Nobody reads them, so they feed no system. Its parts come after those of all who rename what they staged."""

    name = "staged"

    def probe(self) -> str:
        patterns = " ".join(f"{place}/*{STAGED_SUFFIX}" for place in (*_USERS, *_OURS))
        return f'for entry in {patterns}; do [ ! -f "$entry" ] || echo "$entry"; done | say staged\n'

    def compare(self, wanted: Wanted, facts: Facts, journal: Journal) -> Comparison:
        left = _staged(facts)
        if left:
            return Comparison(State.DRIFTED, f"a run that was ended left {', '.join(left)}")
        return Comparison(State.DRIFTED if facts.has_dead_lock else State.PRESENT, "a run that was ended left its lock")

    def write(self, wanted: Wanted, facts: Facts, journal: Journal) -> tuple[Part, ...]:
        return tuple(map(RemoveFile, _staged(facts)))

    def remains(self, facts: Facts, journal: Journal) -> tuple[str, ...]:
        # What is ours goes with our folder.
        return (*_of_users(facts), *([f"an empty {DIR}"] if _is_empty(facts) else []))

    def remove(self, facts: Facts, journal: Journal) -> tuple[Part, ...]:
        # The folder's time once more: a `down` that died may have changed it last, and nothing else tells.
        time = (SetMtime("/etc/nixos", journal.hook.directory_mtime),) if journal.hook else ()
        if not self.remains(facts, journal):
            return time
        return (*map(RemoveFile, _of_users(facts)), RemoveEmptyDir(DIR), *time)


def _staged(facts: Facts) -> list[str]:
    return facts.text("staged").splitlines()


def _of_users(facts: Facts) -> list[str]:
    return [path for path in _staged(facts) if path.startswith("/etc/nixos/")]


def _is_empty(facts: Facts) -> bool:
    names = {record for record in facts.records if record.startswith("module/") and record.endswith(".stat")}
    staged = {f"module/{path.rpartition('/')[2]}.stat" for path in _staged(facts)}
    return facts.file("module-dir", DIR) is not None and names <= staged
