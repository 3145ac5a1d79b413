"""Whether a host's configuration describes its system, asked before anything is written or made (ADR 0023)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from provisioner import hooks
from provisioner.engine import aside
from provisioner.engine.host import Host
from provisioner.errors import BuildFailed, HookRefused, Locked, NotDescribed, RemoteFailed
from provisioner.events import OriginFound
from provisioner.machine import origin
from provisioner.machine.facts import Facts
from provisioner.machine.journal import Checked, Journal, Phase
from provisioner.machine.origin import Expected, Kind
from provisioner.plan import HostPlan, changes_of, edits, file_changes
from provisioner.steps import STEPS
from provisioner.steps.hook import Hooked
from provisioner.steps.module import is_as_built

_MEND: Final = "mend it: `nixos-rebuild build` on the host shows the whole error"


def is_asked(host: Host) -> bool:
    """Whether to ask: not without a switch, when only systems of ours are replaced, or after a dead run's look."""
    return _asked(host.machine.facts, host.machine.journal, host.plan) is not None


def look(host: Host) -> None:
    """Only before a switch: does the configuration without our module evaluate to the system that runs and boots (ADR
    0023)? Otherwise the verb ends here.

    Raises HostError.
    """
    asked = _asked(host.machine.facts, host.machine.journal, host.plan)
    if asked is None:
        return
    configuration = host.hook.configuration
    done = aside.ask(host.machine, origin.script(host.context.run.id, configuration, asked.edits))
    if done.status:
        raise RemoteFailed(host.name, f"the host cannot name the origin of its system ({aside.last_words(done)})")
    found = origin.read(host.name, done.stdout, configuration, asked.expected)
    if found.running != host.machine.facts.system:
        raise Locked(host.name, "another system was switched to a moment ago", hint="run again")
    host.ledger.checked = Checked(found.running, adopted=not found.is_described)
    host.own = found


def require(host: Host) -> None:
    """Require a described system, or --adopt-configuration.

    Raises NotDescribed, BuildFailed, and HookRefused where not even the option helps.
    """
    found = host.own
    if found is None or found.is_described:
        return
    host.context.emit(OriginFound(host.name, found))
    file = host.hook.configuration.file
    if found.kind is Kind.UNREAD:
        raise HookRefused(host.name, f"{file} is not the built configuration: {found.why}", hint=host.hook.by_hand)
    message = f"the running system is not what {file} describes: {found.why}"
    if host.context.choices.adopt_configuration:
        host.context.warn(f"{message}; it is replaced all the same (--adopt-configuration)")
    elif found.kind is Kind.BROKEN:
        raise BuildFailed(host.name, f"a switch would fail: {found.why}", hint=_MEND)
    else:
        raise NotDescribed(host.name, message, hint=_ways_on(host, found.kind))


def _ways_on(host: Host, kind: Kind) -> str:
    verb = host.context.verb.applied.value
    switch = "`nixos-rebuild switch` on the host makes them the same; " if kind.is_waiting else ""
    look = f"`nixprov plan --build {host.name}` shows what would change; "
    return f"{switch}{look}`nixprov {verb} --adopt-configuration {host.name}` goes on knowingly"


@dataclass(frozen=True, slots=True)
class _Asked:
    edits: Mapping[str, bytes | None]
    expected: Expected


def _asked(facts: Facts, journal: Journal, wanted: HostPlan) -> _Asked | None:
    if not wanted.leads_to_switch:
        return None
    if wanted.wanted is None:
        return _before_down(facts, journal)
    if facts.revision:
        return _as_we_made_it(facts, journal, wanted)
    if _was_adopted(facts, journal):
        return None
    return _Asked(_without_ours(facts, journal), Expected(facts.system, _known_boots(facts, journal)))


def _before_down(facts: Facts, journal: Journal) -> _Asked | None:
    """Of the running and the booting system, the one that is not ours must equal the one `down` would build."""
    if facts.revision and facts.revision_at_boot:
        return None
    others = _without_ours(facts, journal)
    if facts.revision:
        return _Asked(others, Expected(None))
    return _Asked(others, Expected(facts.system, {facts.text("profile")} if facts.revision_at_boot else ()))


def _as_we_made_it(facts: Facts, journal: Journal, wanted: HostPlan) -> _Asked | None:
    """A system with our module: with the files that it was built with, the configuration evaluates to it.

    Those files are on the host, or equal the wanted ones. After a dead run with other files: that run has looked
    already. After a person's edits: the configuration without ours must still be the system from before us.
    """
    expected = Expected(facts.system, _known_boots(facts, journal))
    hook = hooks.choose(facts)
    if is_as_built(facts) and hook.is_in(facts):
        return _Asked({}, expected)
    if wanted.wanted is not None and wanted.wanted.revision == facts.revision:
        return _Asked(edits(file_changes(wanted, facts, journal), hook), expected)
    if _has_looked(facts, journal):
        return None
    before = journal.baseline.system if journal.baseline else facts.system
    return _Asked(_without_ours(facts, journal), Expected(before, expected.boots))


def _known_boots(facts: Facts, journal: Journal) -> set[str]:
    """The systems that may boot next besides the running one: one of ours, or one from before us."""
    ours = [facts.text("profile")] if facts.revision_at_boot else []
    before = [journal.baseline.system] if journal.baseline else []
    return {*ours, *before, *([journal.checked.system] if journal.checked else [])}


def _has_looked(facts: Facts, journal: Journal) -> bool:
    """Whether a run that did not end has looked at this very system."""
    is_open = journal.phase not in (Phase.NONE, Phase.CONFIRMED)
    return is_open and journal.checked is not None and journal.checked.system == facts.system


def _was_adopted(facts: Facts, journal: Journal) -> bool:
    return _has_looked(facts, journal) and journal.checked is not None and journal.checked.adopted


def _without_ours(facts: Facts, journal: Journal) -> dict[str, bytes | None]:
    """Edits that take our module out of the configuration; without it our line does nothing.

    The line goes too if we put it into the folder's own file.
    """
    hook = hooks.installed(journal)
    is_ours = hook.is_our_edit(facts, journal.hook)
    steps = [step for step in STEPS if step.feeds_system and (is_ours or step.name != Hooked.name)]
    parts = [part for step in steps for part in step.remove(facts, journal)]
    return edits(changes_of(parts, facts, hook), hook)
