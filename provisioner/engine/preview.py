"""What a plan would do to the system itself, asked of the host: one more remote command, when the operator wants it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import Enum
from typing import Final

from provisioner.engine import aside
from provisioner.engine.host import HostRun
from provisioner.errors import BuildFailed
from provisioner.machine import preview
from provisioner.machine.preview import Preview
from provisioner.plan import FileChange, HostPlan, edits, hook_of

_HINT: Final = "it would leave the host as it is: mend the configuration, then plan again"


class Depth(Enum):
    """How far a plan goes to tell what becomes of the system. Nothing but the store ever changes."""

    FILES = "files"
    EVALUATE = "evaluate"
    BUILD = "build"


def look(run: HostRun, wanted: HostPlan, files: Sequence[FileChange], depth: Depth) -> Preview | None:
    """None when it is not asked for, or the plan leaves the system as it is. Raises HostError."""
    if depth is Depth.FILES or not wanted.switch:
        return None
    run.phase(depth.value)
    hook = hook_of(wanted, run.facts, run.journal)
    script = preview.script(run.run.id, hook.configuration, edits(files, hook), build=depth is Depth.BUILD)
    done = aside.ask(run, script)
    if done.status:
        return Preview(unknown=f"the host cannot look ({aside.last_words(done)})")
    return checked(preview.read(run.host, done.stdout), wanted)


def checked(seen: Preview, wanted: HostPlan) -> Preview:
    """A system without the module is what `up` would refuse to activate, and one with it `down`."""
    revision = wanted.wanted.revision if wanted.wanted else ""
    if seen.closure is None or seen.closure.revision == revision:
        return seen
    why = "not contain the module: does" if revision else "still contain the module: from where does"
    return replace(seen, failed=f"the system would {why} configuration.nix import it?")


def require_good(host: str, seen: Preview | None) -> None:
    """Raises BuildFailed when `up` or `down` would fail."""
    if seen is not None and seen.failed:
        raise BuildFailed(host, f"a switch would fail: {seen.failed}", hint=_HINT)
