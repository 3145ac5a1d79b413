"""What a transaction that died half-way put beside its place: files staged and never renamed, and a folder for them."""

from __future__ import annotations

from typing import Final

from provisioner.hosts.facts import Facts
from provisioner.hosts.journal import Journal
from provisioner.hosts.script import STAGED_SUFFIX, Part, RemoveEmptyDir, RemoveFile, SetMtime
from provisioner.steps.base import Step
from provisioner.steps.module import DIR

_PLACES: Final = ("/etc/nixos", DIR)


class Staged(Step):
    """Nobody reads them, so they feed no system; the next transaction of the same files replaces them."""

    name = "staged"

    def probe(self) -> str:
        patterns = " ".join(f"{place}/*{STAGED_SUFFIX}" for place in _PLACES)
        return f'for entry in {patterns}; do [ ! -f "$entry" ] || echo "$entry"; done | say staged\n'

    def remains(self, facts: Facts, journal: Journal) -> tuple[str, ...]:
        return (*_staged(facts), *([f"an empty {DIR}"] if _is_empty(facts) else []))

    def remove(self, facts: Facts, journal: Journal) -> tuple[Part, ...]:
        # The folder's time once more: a `down` that died may have changed it last, and nothing else tells.
        time = (SetMtime("/etc/nixos", journal.hook.directory_mtime),) if journal.hook else ()
        if not self.remains(facts, journal):
            return time
        return (*map(RemoveFile, _staged(facts)), RemoveEmptyDir(DIR), *time)


def _staged(facts: Facts) -> list[str]:
    return facts.text("staged").splitlines()


def _is_empty(facts: Facts) -> bool:
    names = {record for record in facts.records if record.startswith("module/") and record.endswith(".stat")}
    staged = {f"module/{path.rpartition('/')[2]}.stat" for path in _staged(facts)}
    return facts.file("module-dir", DIR) is not None and names <= staged
