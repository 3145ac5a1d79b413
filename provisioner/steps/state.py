"""Our own folder on the host, with the journal in it: the first thing to come and the last to go."""

from __future__ import annotations

from provisioner.machine.facts import Facts
from provisioner.machine.journal import Journal
from provisioner.machine.transaction import JOURNAL, STATE_DIR, Part, RemoveTree
from provisioner.steps.base import Comparison, State, Step, Wanted


class StateDir(Step):
    """Written by every transaction (machine/transaction.py), so only its end is a step's business."""

    name = "state"

    def probe(self) -> str:
        return f"say_file journal {JOURNAL}\nsay_file state {STATE_DIR}\n"

    def compare(self, wanted: Wanted, facts: Facts, journal: Journal) -> Comparison:
        return Comparison(State.PRESENT if journal.exists else State.ABSENT)

    def remains(self, facts: Facts, journal: Journal) -> tuple[str, ...]:
        return (STATE_DIR,) if facts.file("state", STATE_DIR) else ()

    def remove(self, facts: Facts, journal: Journal) -> tuple[Part, ...]:
        return (RemoveTree(STATE_DIR),)
