"""Runners that this run made in GitLab, when it unwinds: deleted where nobody can use them, else left and named."""

from __future__ import annotations

from typing import Final

from provisioner.engine import crash
from provisioner.engine.host import Host, Machine
from provisioner.errors import ForgeError, HostError

# Between two looks at a host that somebody else works on.
PAUSE_S: Final = 3.0


def withdraw(host: Host, runner: int) -> None:
    try:
        with crash.around("disown"):
            host.context.forge.delete(runner)
    except ForgeError as error:
        leave(host, runner, error.message)


def leave(host: Host, runner: int, why: str) -> None:
    host.ledger.remains.append(f"runner {runner} in GitLab")
    text = f"runner {runner} was created by this run and is left in GitLab: {why}"
    host.context.warn(f"{text}; the next `up` or `down` finds it by its mark")


def withdraw_unused(host: Host) -> None:
    """After another operator took the host over: withdraw the runners that its journal does not name in the end.

    Only when that run has ended it is known whether it found one by its mark and uses it. What is not sure is left and
    said: it carries our mark, so the next `up`, `down` or `prune` finds it.
    """
    ledger = host.ledger
    if ledger.created:
        _withdraw_unnamed(host)
    for name, record in ledger.records.items():
        if record.id not in ledger.created:
            text = f"the token of runner {name} was replaced by this run too"
            host.context.warn(f"{text}; if GitLab is polled no more, `nixprov up --new-tokens` mends it")


def _withdraw_unnamed(host: Host) -> None:
    machine = host.machine
    try:
        is_known = machine.wait_until(host.context.limits.overtaken_s, lambda: _is_free(machine), pause_s=PAUSE_S)
    except HostError:
        is_known = False
    used = {record.id for record in machine.journal.runners.values()}
    for runner in host.ledger.created:
        if not is_known:
            leave(host, runner, "the host cannot say whether it is used")
        elif runner not in used:
            withdraw(host, runner)


def _is_free(machine: Machine) -> bool:
    machine.probe()
    return machine.is_free
