"""Our own folder on the host, with the journal in it: the first to come and the last to go."""

from __future__ import annotations

from typing_extensions import override

from provisioner.hooks import Hook
from provisioner.machine.facts import Facts
from provisioner.machine.journal import Journal
from provisioner.machine.things import Folder, Seen, Thing
from provisioner.machine.transaction import JOURNAL, STATE_DIR
from provisioner.steps.base import Comparison, State, Step, Wanted


class StateDir(Step):
    """Every transaction writes it (machine/transaction.py), so this step only removes it."""

    name = "state"

    @override
    def things(self, hook: Hook) -> tuple[Thing, ...]:
        return (Seen("journal", JOURNAL), Folder(STATE_DIR, 0o700, record="state", is_whole=True))

    @override
    def compare(self, wanted: Wanted, facts: Facts, journal: Journal) -> Comparison:
        return Comparison(State.PRESENT if journal.exists else State.ABSENT)
