"""The first phase of `up`, `down` and their plans: a host that no other run holds, without an open switch."""

from __future__ import annotations

from provisioner.engine import crash
from provisioner.engine.host import Host, Machine
from provisioner.engine.switch import Switch
from provisioner.errors import HostRefused, Locked
from provisioner.machine.journal import Phase
from provisioner.machine.switch import SwitchResult


def settle(host: Host) -> None:
    """All steps' probes as one script; the answer is one document of records. A dead run's switch is ended first.

    A host that another run holds is refused. A plan only names a dead run's switch; the others follow it to its end.

    Raises Locked, HostRefused, HostError.
    """
    machine = host.machine
    machine.probe()
    _require_one_name(machine)
    _require_free(machine)
    if not machine.facts.is_switching:
        return
    if not host.context.verb.changes:
        # A plan changes nothing, and the operator of this switch means to come back to it.
        host.context.warn(machine.what_goes_on)
        return
    host.context.warn(f"a switch of {machine.holder} is still running: following it to its end")
    _end(host, Switch(machine))
    machine.probe()


def _end(host: Host, switch: Switch) -> None:
    result = switch.follow()
    if result.tries_on:
        _require_may_leave(host, result)
        with crash.around("settle"):
            switch.stop_trying()
    if result.waits:
        goes_our_way = (host.machine.journal.phase is Phase.WRITTEN) is not host.context.verb.removes
        # Our connection proves that the host can be reached; all else is checked after the next plan.
        with crash.around("settle"):
            if goes_our_way and result.is_done:
                switch.keep()
            else:
                switch.roll_back()


def _require_may_leave(host: Host, result: SwitchResult) -> None:
    """Raises Locked while another program's switch is busy, as for another run. Otherwise this run goes on."""
    if result.is_busy and not host.context.choices.take_over:
        hint = "`nixprov status` tells when it is back; --take-over goes on from what is there now"
        raise Locked(host.name, result.explain(), hint=hint)
    host.context.warn(f"{result.explain()}; this run goes on from there instead")


def _require_one_name(machine: Machine) -> None:
    """Refuse a second name of one machine: its lock keeps out other runs only, not this one."""
    if not machine.facts.text("machine-id"):
        return
    context = machine.context
    first = context.names.setdefault(machine.facts.machine, context.host)
    if first != context.host:
        raise HostRefused(
            context.host,
            f"it has the machine id of {first}, which this run is at",
            hint="name a machine once; a clone needs an id of its own (systemd-machine-id-setup)",
        )


def _require_free(machine: Machine) -> None:
    if machine.is_free:
        return
    if machine.context.choices.take_over:
        machine.context.warn(f"taken over from {machine.holder}")
        return
    raise Locked(
        machine.context.host,
        f"{machine.holder} holds it, and its connection is open",
        hint="wait for it to end; if that program is surely dead, run again with --take-over",
    )
