"""Runners of a run that unwinds: withdrawn when no host can use them, else left and named."""

from __future__ import annotations

from typing import Final

from provisioner.engine import crash
from provisioner.engine.host import Host, Machine
from provisioner.errors import CiError, HostError
from provisioner.model import Identity

# Between two looks at a host that another operator works on.
PAUSE_S: Final = 3.0


def withdraw(host: Host, runner: Identity) -> None:
    try:
        with crash.around("disown"):
            host.context.ci.withdraw(runner)
    except CiError as error:
        leave(host, runner, error.message)


def leave(host: Host, runner: Identity, why: str) -> None:
    words = host.context.words
    host.ledger.remains.append(f"{words.runner} {runner} in {words.name}")
    text = f"{words.runner} {runner} was created by this run and may be left in {words.name}: {why}"
    host.context.warn(f"{text}; the next `up` or `down` finds it by its mark")


def withdraw_unused(host: Host) -> None:
    """After another operator took the host over: withdraw the runners that its final journal does not name.

    The other run may find one of them by its mark and use it, so its end is waited for. Doubtful runners are left and
    named: they carry our mark, so the next `up`, `down` or `prune` finds them.
    """
    ledger, words = host.ledger, host.context.words
    if ledger.created:
        _withdraw_unnamed(host)
    for name, record in ledger.records.items():
        if record.id not in ledger.created:
            text = f"the {words.credential} of {words.runner} {name} was replaced by this run too"
            host.context.warn(f"{text}; if {words.name} is polled no more, `nixprov up --new-tokens` mends it")


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
