"""A simulated host's answers to scripts other than transactions: the switch's own, and the origin of a system."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from provisioner.machine.aside import LAST
from provisioner.machine.lock import LOCK
from provisioner.machine.switch import DIR, EXPIRED, NOT_ACTIVE_STATUS, UNCONFIRMED_STATUS, WENT_BACK
from provisioner.ssh.exec import Completed
from tests.simulator.reader import Active, Follow, Origin
from tests.simulator.systems import CONFIGURATION, FOLDER, BuildFailed

if TYPE_CHECKING:
    from tests.simulator.host import Host

DONE: Final = Completed(0, b"", "")
_DAY_S: Final = 24 * 3600


class Refused(Exception):
    """`fail STATUS TEXT`, and a command that does not succeed under `set -e`."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def active(host: Host, command: Active) -> Completed:
    return _guarded(lambda: require_active(host, command.units, command.limit_s * 5))


def keep(host: Host) -> Completed:
    return _guarded(lambda: require_kept(host))


def _guarded(action: Callable[[], None]) -> Completed:
    try:
        action()
    except Refused as refusal:
        return Completed(refusal.status, b"", f"{refusal}\n")
    return DONE


def require_active(host: Host, units: Sequence[str], tries: int) -> None:
    """Each unit is active for long enough; a fifth of a second a try. Raises Refused."""
    for name in units:
        while not _is_steady(host, name):
            phase, *rest = host.switch.result
            if host.disk.exists(f"{DIR}/expired") or (phase == "back" and "expired" in rest):
                raise Refused(UNCONFIRMED_STATUS, EXPIRED)
            tries -= 1
            if tries <= 0:
                unit = host.units.get(name)
                state, restarts = (unit.active, unit.restarts) if unit else ("inactive", 0)
                raise Refused(NOT_ACTIVE_STATUS, f"{name} is {state}, restarted {restarts} times")
            host.clock.advance(0.2)


def _is_steady(host: Host, name: str) -> bool:
    unit = host.units.get(name)
    if unit is None or unit.active != "active":
        return False
    return host.clock.now - unit.since >= (10 if unit.restarts else 2)


def require_kept(host: Host) -> None:
    """The verdict, and the end of the switch. Raises Refused unless the new system is the next to boot by then."""
    host.disk.rename(f"{DIR}/open", f"{DIR}/confirmed")
    while host.switch.is_alive and not host.switch.tries_on:
        given_up = any(host.disk.exists(f"{DIR}/{name}") for name in ("expired", "aborted"))
        if given_up or host.switch.result[0] == "back":
            # It needs the lock of this transaction for its files.
            host.flock = False
        host.clock.advance(0.1)
    phase, status, *rest = host.switch.result
    if (phase, status) in (("commit", "0"), ("activate", "0"), ("activate", "4")):
        return
    if phase == "back":
        gone = "the host had gone back to the old system before it was told to keep the new one"
        why = next((WENT_BACK[word] for word in ("busy", "overtaken") if word in rest), gone)
        raise Refused(UNCONFIRMED_STATUS, why)
    raise Refused(UNCONFIRMED_STATUS, f"the profile or the boot loader could not be set ({phase}: {status})")


def follow(host: Host, command: Follow, process: int, say: Callable[[bytes], None]) -> Completed:
    if (host.disk.read(LOCK) or b"").split()[:1] == [command.keeps.encode()]:
        host.hold(command.keeps, process)
    shown = int(command.cursor.removeprefix("line-") or 0)
    switch = host.switch
    while True:
        state = "waits" if switch.waits else "tries" if switch.tries_on else switch.substate
        if news := switch.log[shown:]:
            shown = len(switch.log)
            say("".join(f"log {line}\n" for line in news).encode() + f"cursor line-{shown}\n".encode())
        if not switch.is_alive or state in ("waits", "tries"):
            break
        host.clock.advance(0.2)
    if failed := (host.disk.read(f"{DIR}/failed") or b"").decode().split():
        say(f"failed {' '.join(failed)} \n".encode())
    say(f"end {state} ".encode() + (host.disk.read(f"{DIR}/result") or b"lost 1\n"))
    return DONE


def abort(host: Host) -> Completed:
    if not host.disk.rename(f"{DIR}/open", f"{DIR}/aborted") and host.switch.result[0] == "build":
        host.switch.stop()
    host.wait(lambda: not host.switch.is_alive or host.switch.tries_on, _DAY_S, 0.1)
    return DONE


def leave(host: Host) -> Completed:
    host.disk.write(f"{DIR}/leave", b"", 0o600)
    host.wait(lambda: not host.switch.is_alive, _DAY_S, 0.1)
    return DONE


def origin(host: Host, command: Origin) -> Completed:
    """The answer of origin.sh for a classic configuration, with all built here."""
    records = {
        "config": CONFIGURATION,
        "config-real": CONFIGURATION,
        "classic": CONFIGURATION,
        "running": host.system.path,
        "boot": host.profile.path,
        "version": "25.11",
        "newer": "\n".join(path for path in host.disk.in_(FOLDER) if _is_newer(host, path)),
    }
    try:
        described = host.evaluate(dict(command.edits))
        records["described"] = json.dumps({"system": described.path, "version": "25.11"})
    except BuildFailed as error:
        records["failed"] = str(error)
    records[LAST] = "yes"
    lines = (f"{name} {base64.b64encode(text.encode()).decode()}\n" for name, text in records.items())
    return Completed(0, "".join(lines).encode(), "")


def _is_newer(host: Host, path: str) -> bool:
    entry = host.disk.entries[path]
    return entry.content is not None and entry.mtime > host.switched_at
