"""The verbs of `nixprov` at one host, one file each; each opens with its phases."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from provisioner.engine.host import Host
from provisioner.outcome import Outcome
from provisioner.ssh.session import Cancelled
from provisioner.verb import Verb
from provisioner.verbs import down, plan, status, up
from provisioner.verbs.phases import Phases

PHASES: Final[Mapping[Verb, Phases]] = {
    Verb.UP: up.PHASES,
    Verb.DOWN: down.PHASES,
    Verb.PLAN: plan.PHASES,
    Verb.PLAN_DOWN: plan.PHASES_DOWN,
    Verb.STATUS: status.PHASES,
}


def perform(host: Host, may_change: Callable[[], bool]) -> Outcome:
    """Do the verb's phases at the host; `may_change` is asked before the first change. Raises NixprovError."""
    verb = host.context.verb
    phases = PHASES[verb]
    phases.look(host)
    if not (verb.plans or verb.changes):
        return Outcome.UNCHANGED
    plan.tell(host)
    if host.plan.is_empty:
        return Outcome.UNCHANGED
    if verb.changes:
        if not may_change():
            raise Cancelled(host.name, "interrupted before anything was changed")
        phases.change(host)
    return Outcome.CHANGED
