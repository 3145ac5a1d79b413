"""A simulated host's answers to the probe: each record that the script asks for, by its name.

A record that is asked for and has no answer here fails the test.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Final

from provisioner.machine.facts import PROLOGUE
from provisioner.machine.lock import LOCK
from provisioner.machine.switch import DIR as SWITCH_DIR
from provisioner.machine.switch import UNIT as SWITCH_UNIT
from tests.simulator.systems import CONFIGURATION

if TYPE_CHECKING:
    from tests.simulator.host import Host

_FILE: Final = re.compile(r"^say_file (\S+) (/\S+)$", re.MULTILINE)
_FILES: Final = re.compile(
    r'^for entry in (\S+)/\*; do .* say_file "(\S+)/\$\{entry##\*/\}" "\$entry"; done$', re.MULTILINE
)
_STATS: Final = re.compile(
    r'^for entry in (\S+)/\*(\S+); do .* stat -c "%a %u %g %Y %F" "\$entry" \| say "(\S+)/\$\{entry##\*/\}.stat"; done$',
    re.MULTILINE,
)
_SAID: Final = re.compile(r'(?<!\w)say ("[^"]*"|[\w-]+)')
_UNITS: Final = re.compile(r"'(nixprov-[^']*)'")


def answer(host: Host, script: str) -> bytes:
    lines = (b"%s %s\n" % (name.encode(), base64.b64encode(content)) for name, content in _records(host, script))
    return b"".join(lines)


def _records(host: Host, script: str) -> Iterator[tuple[str, bytes]]:
    asked = script.replace(PROLOGUE, "")
    for pattern, say in ((_FILE, _say_file), (_FILES, _say_files), (_STATS, _say_stats)):
        for found in pattern.finditer(asked):
            yield from say(host, *found.groups())
        asked = pattern.sub("", asked)
    for name in dict.fromkeys(word.strip('"') for word in _SAID.findall(asked)):
        assert name in _ALWAYS or name in _OF_HOST, f"the probe asks for {name}, and no simulated host has it"
        content = _OF_HOST[name](host, script) if name in _OF_HOST else _ALWAYS[name]
        if content is not None:
            yield name, content


def _say_file(host: Host, name: str, path: str) -> Iterator[tuple[str, bytes]]:
    entry = host.disk.entries.get(path)
    if entry is None:
        return
    yield f"{name}.stat", entry.stat + b"\n"
    yield f"{name}.real", path.encode() + b"\n"
    if entry.content is not None:
        yield f"{name}.data", entry.content


def _say_files(host: Host, folder: str, name: str) -> Iterator[tuple[str, bytes]]:
    for path in host.disk.in_(folder):
        yield from _say_file(host, f"{name}/{path.rpartition('/')[2]}", path)


def _say_stats(host: Host, folder: str, suffix: str, name: str) -> Iterator[tuple[str, bytes]]:
    for path in host.disk.in_(folder):
        if path.endswith(suffix):
            yield f"{name}/{path.rpartition('/')[2]}.stat", host.disk.entries[path].stat + b"\n"


def _staged(host: Host, script: str) -> bytes:
    patterns = re.findall(r"^\{ for entry in (.*); do .*\n\} \| say staged$", script, re.MULTILINE)[0].split()
    found = (path for pattern in patterns for path in sorted(host.disk.entries) if _globs(path, pattern))
    return _lines(path for path in found if host.disk.read(path) is not None)


def _globs(path: str, pattern: str) -> bool:
    return path.count("/") == pattern.count("/") and fnmatch(path, pattern)


def _remnants(host: Host, script: str) -> bytes:
    paths = re.findall(r"^\{ for path in (.*); do .*\n\} \| say remnants$", script, re.MULTILINE)[0].split()
    return _lines(path for path in paths if host.disk.exists(path))


def _units(host: Host, script: str) -> bytes:
    patterns = _UNITS.findall(script)
    known = [(unit.name, unit.active, unit.sub, unit.restarts) for unit in host.units.values()]
    known.append((SWITCH_UNIT, host.switch.active, host.switch.substate, 0))
    blocks = (
        f"Id={name}\nActiveState={active}\nSubState={sub}\nNRestarts={restarts}\n"
        for name, active, sub, restarts in known
        if any(fnmatch(name, pattern) for pattern in patterns) and active != "inactive"
    )
    return "\n".join(blocks).encode()


def _switch(host: Host, script: str) -> bytes:
    return f"ActiveState={host.switch.active}\nSubState={host.switch.substate}\n".encode()


def _held(host: Host, script: str) -> bytes | None:
    run, alive = _lock(host)
    return run if run and alive else None


def _lock_left(host: Host, script: str) -> bytes | None:
    run, alive = _lock(host)
    return run if run and not alive else None


def _lock(host: Host) -> tuple[bytes, bool]:
    words = (host.disk.read(LOCK) or b"").split()
    if not words:
        return b"", False
    process = int(words[1]) if len(words) > 1 else 0
    is_alive = process in host.connections and words[2:] == [b"%d" % process, host.boot_id.encode()]
    return words[0] + b"\n", is_alive


def _protected(host: Host, script: str) -> bytes:
    return b"yes\n" if CONFIGURATION in host.protected else b""


def _lines(words: Iterable[str]) -> bytes:
    return "".join(f"{word}\n" for word in words).encode()


def _nixos_time(host: Host, script: str) -> bytes:
    return f"{host.disk.entries['/etc/nixos'].mtime}\n".encode()


def _failed_units(host: Host, script: str) -> bytes:
    return _lines([unit.name for unit in host.units.values() if unit.active == "failed"])


# Records that no test has wanted to be otherwise; None: not said.
_ALWAYS: Final[Mapping[str, bytes | None]] = {
    "os": b'NAME="NixOS"\nID=nixos\n',
    "nixos-version": b"25.11 (Xantusia)\n",
    "trust": b"",
    "require-sigs": b"",
    "clock": None,
    "room": b"/nix/store 9999999\n/var/lib 9999999\n/etc/nixos 9999999\n",
    "read-only": b"",
    "var-lib-disk": b"ext2/ext3\n",
    "docker": None,
    "counters": b"",
    "etc-nixos": b"/etc/nixos\n",
    "probe-end": b"yes\n",
}
_OF_HOST: Final[Mapping[str, Callable[[Host, str], bytes | None]]] = {
    "machine-id": lambda host, _: f"{host.machine_id}\n".encode(),
    "system": lambda host, _: f"{host.system.path}\n".encode(),
    "generation": lambda host, _: (
        (f"system-{host.generation}-link" if host.has_generations else "elsewhere").encode() + b"\n"
    ),
    "profile": lambda host, _: f"{host.profile.path}\n".encode(),
    "revision": lambda host, _: host.system.revision.encode(),
    "revision-at-boot": lambda host, _: host.profile.revision.encode(),
    "nix-version": lambda host, _: f"nix (Nix) {host.nix_version}\n".encode(),
    "trusted-users": lambda host, _: f"{host.trusted_users}\n".encode(),
    "switch": _switch,
    "switch-result": lambda host, _: host.disk.read(f"{SWITCH_DIR}/result") or b"",
    "failed-units": _failed_units,
    "units": _units,
    "flake": lambda host, _: b"yes\n" if host.disk.exists("/etc/nixos/flake.nix") else b"",
    "held": _held,
    "lock-left": _lock_left,
    "etc-nixos-mtime": _nixos_time,
    "configuration-protected": _protected,
    "staged": _staged,
    "remnants": _remnants,
}
