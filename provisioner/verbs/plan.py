"""`plan` and `down --check`: the changes of `up` or `down`, reported and not made."""

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
    """Report the looks' findings, then raise an error for one that forbids to go on.

    Raises BuildFailed, HookRefused, NotDescribed.
    """
    check = not host.context.verb.changes
    diffs = plan_diffs(host.plan, host.files) if host.context.diff else ()
    host.context.emit(Planned.of(host.plan, diffs, host.preview, check=check))
    if host.preview is not None and host.preview.failed:
        raise BuildFailed(host.name, f"a switch would fail: {host.preview.failed}", hint=_MEND)
    origin.require(host)
