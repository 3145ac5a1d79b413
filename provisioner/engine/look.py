"""The provider's view of a host, by the journal's ids and by the mark: neither's loss loses a runner."""

from __future__ import annotations

from provisioner.ci.base import View
from provisioner.engine.host import Host


def look(host: Host) -> View:
    """Raises CiError."""
    ci, machine = host.context.ci, host.machine
    return ci.look(host.context.spec, machine.facts.machine, machine.journal.ids_at(ci.server.url))
