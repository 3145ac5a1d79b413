"""Our module in the owner's configuration, by the hook that is chosen for the host (hooks/)."""

from __future__ import annotations

from typing_extensions import override

from provisioner import hooks
from provisioner.hooks import Hook
from provisioner.machine.facts import Facts
from provisioner.machine.journal import Journal
from provisioner.machine.things import Thing
from provisioner.machine.transaction import Part
from provisioner.steps.base import Comparison, State, Step, Wanted


class Hooked(Step):
    """The facts choose the hook to put in, and the journal the one to take out."""

    name = "hook"
    feeds_system = True

    @override
    def things(self, hook: Hook) -> tuple[Thing, ...]:
        return hook.things()

    @override
    def compare(self, wanted: Wanted, facts: Facts, journal: Journal) -> Comparison:
        why = hooks.choose(facts).missing(facts)
        return Comparison(State.ABSENT, why) if why else Comparison(State.PRESENT)

    @override
    def write(self, wanted: Wanted, facts: Facts, journal: Journal) -> tuple[Part, ...]:
        return hooks.choose(facts).put_in(facts)

    @override
    def remains(self, facts: Facts, journal: Journal) -> tuple[str, ...]:
        return hooks.installed(journal).remains(facts)

    @override
    def remove(self, facts: Facts, journal: Journal) -> tuple[Part, ...]:
        return hooks.installed(journal).take_out(facts, journal.hook)

    @override
    def restore(self, before: Facts, now: Facts, journal: Journal) -> tuple[Part, ...]:
        return hooks.installed(journal).give_back(before, now, journal.hook)
