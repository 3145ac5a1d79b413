"""A plan's look at the system to come: one more remote command, when the operator wants it."""

from __future__ import annotations

from dataclasses import replace

from provisioner.engine import aside
from provisioner.engine.host import Depth, Host
from provisioner.machine import preview
from provisioner.machine.preview import Preview
from provisioner.plan import HostPlan, edits


def is_evaluated(host: Host) -> bool:
    return host.context.depth is Depth.EVALUATE and _is_wanted(host)


def is_built(host: Host) -> bool:
    return host.context.depth is Depth.BUILD and _is_wanted(host)


def evaluate(host: Host) -> None:
    """Only a plan with --diff: the system to come, evaluated from a copy of the configuration (ADR 0015).

    Raises HostError.
    """
    host.preview = _look(host, build=False)


def build(host: Host) -> None:
    """Only a plan with --build: the same, with its closure built or fetched into the store.

    Raises HostError.
    """
    host.preview = _look(host, build=True)


def _is_wanted(host: Host) -> bool:
    """Whether this is a plan with a switch."""
    return bool(host.plan.switch) and host.context.verb.plans


def _look(host: Host, *, build: bool) -> Preview:
    hook = host.hook
    script = preview.script(host.context.run.id, hook.configuration, edits(host.files, hook), build=build)
    done = aside.ask(host.machine, script)
    if done.status:
        return Preview(unknown=f"the host cannot look ({aside.last_words(done)})")
    return checked(preview.read(host.name, done.stdout), host.plan, hook.configuration.file)


def checked(seen: Preview, wanted: HostPlan, file: str) -> Preview:
    """Mark a system that the switch would refuse: one without the module for `up`, one with it for `down`."""
    revision = wanted.wanted.revision if wanted.wanted else ""
    if seen.closure is None or seen.closure.revision == revision:
        return seen
    why = "not contain the module: does" if revision else "still contain the module: from where does"
    return replace(seen, failed=f"the system would {why} {file} import it?")
