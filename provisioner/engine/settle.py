"""The first phase of `up`, `down` and their plans: a host that nobody else holds, and no switch that goes on there."""

from __future__ import annotations

from provisioner.engine import crash
from provisioner.engine.host import Host, Machine
from provisioner.engine.switch import Switch
from provisioner.errors import HostRefused, Locked
from provisioner.machine.journal import Phase
from provisioner.machine.switch import SwitchResult


def settle(host: Host) -> None:
    """All steps' probes as one script; the answer is one document of records.

    A host that another run holds is refused. A dead run's switch is followed to its end, or by a plan only named.

    Raises Locked, HostRefused, HostError.
    """
    machine = host.machine
    machine.probe()
    _require_one_name(machine)
    _require_free(machine)
    if not machine.facts.is_switching:
        return
    if not host.context.verb.changes:
        # A plan changes nothing, and whoever left this switch to itself means to come back to it.
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
        # That we are here shows that the host can be reached; what else it must be is checked after the next plan.
        with crash.around("settle"):
            if goes_our_way and result.is_done:
                switch.keep()
            else:
                switch.roll_back()


def _require_may_leave(host: Host, result: SwitchResult) -> None:
    """Somebody else's switch is waited for, like another run; in any other way it is this run that goes on."""
    if result.is_busy and not host.context.choices.take_over:
        hint = "`nixprov status` tells when it is back; --take-over goes on from what is there now"
        raise Locked(host.name, result.explain(), hint=hint)
    host.context.warn(f"{result.explain()}; this run goes on from there instead")


def _require_one_name(machine: Machine) -> None:
    """The lock keeps other runs out; under a second name this one would be its own neighbour."""
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
