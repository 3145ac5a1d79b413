"""`plan` and `down --check`: what `up` or `down` would change, said and not done."""

from __future__ import annotations

from typing import Final

from provisioner.diff import plan_diffs
from provisioner.engine import origin
from provisioner.engine.host import Host
from provisioner.errors import BuildFailed
from provisioner.events import Planned
from provisioner.verbs import down, up

PHASES: Final = up.PHASES.looks
PHASES_DOWN: Final = down.PHASES.looks

_MEND: Final = "it would leave the host as it is: mend the configuration, then plan again"


def tell(host: Host) -> None:
    """Say what the looks have found, and then what forbids to go on.

    Raises BuildFailed, HookRefused, NotDescribed.
    """
    check = not host.context.verb.changes
    diffs = plan_diffs(host.plan, host.files) if host.context.diff else ()
    host.context.emit(Planned.of(host.plan, diffs, host.preview, check=check))
    if host.preview is not None and host.preview.failed:
        raise BuildFailed(host.name, f"a switch would fail: {host.preview.failed}", hint=_MEND)
    origin.require(host)
