"""The origin of a host's running system: whether the configuration describes it, and the other changes of a switch.

`origin.sh` beside this file asks, in the frame of `aside.sh`: one evaluation, no build (ADR 0023). Here are the script
that starts it and the reading of its answer. Pure.

Formats: nix-instantiate --eval --json; `nixos-version --json`. Each unit made by NixOS is a link to its own path,
`/nix/store/HASH-unit-NAME/NAME` (nixpkgs, nixos/lib/systemd-lib.nix, makeUnit, generateUnits). Names of declared users
are in /var/lib/nixos/declarative-users (nixpkgs, nixos/modules/config/update-users-groups.pl).
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from provisioner.errors import RemoteFailed
from provisioner.machine import aside
from provisioner.machine.configuration import Configuration
from provisioner.machine.facts import read_records
from provisioner.machine.preview import UnitChange, complaint, unit_changes

_OURS: Final = "nixprov-"


class Kind(Enum):
    """The origin of the running system, as far as it is known; the values stand in `--json`."""

    DESCRIBED = "described"
    UNREAD = "other nixos-config"
    TRIED = "on trial"
    NEXT_BOOT = "for the next boot"
    SPECIALISATION = "specialisation"
    ELSEWHERE = "another machine"
    FLAKE = "flake"
    BROKEN = "does not evaluate"
    CHANNEL = "channel not switched"
    EDITS = "edits not switched"
    OTHER_FILE = "other file"
    UNKNOWN = "unknown"

    @property
    def is_waiting(self) -> bool:
        """Whether the owner's own `nixos-rebuild switch` would make configuration and system the same."""
        return self in (Kind.TRIED, Kind.NEXT_BOOT, Kind.CHANNEL, Kind.EDITS)


@dataclass(frozen=True, slots=True)
class Expected:
    """The other side of the comparison with the evaluated system.

    `system` is the expected store path; None means that the running system is ours in any case. `boots` are store
    paths that may boot next beside it.
    """

    system: str | None
    boots: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class Origin:
    """The host's answer; `configured` is empty when the configuration does not evaluate.

    `why` is one line for people. `changes` are lines about the changes of a switch beside our module, if known
    without a build. `is_built`: the configured system is there, and `units` are its changes of units.
    """

    kind: Kind
    running: str
    boot: str
    configured: str = ""
    why: str = ""
    changes: tuple[str, ...] = ()
    units: tuple[UnitChange, ...] = ()
    is_built: bool = False

    @property
    def is_described(self) -> bool:
        return self.kind is Kind.DESCRIBED


def script(run: str, of: Configuration, edits: Mapping[str, bytes | None]) -> bytes:
    """The script for `sh -s`, as root. `edits` are other contents of the configuration's files for this evaluation."""
    arguments = ("yes" if edits else "no", of.file, of.evaluated)
    return aside.script("origin", run, "origin.sh", of.folder, edits, *arguments)


def read(host: str, answer: bytes, of: Configuration, expected: Expected) -> Origin:
    """Read the answer. Raises RemoteFailed when it is cut short, or its description is no JSON object."""
    records = read_records(host, answer, aside.LAST)
    text = {name: content.decode("utf-8", "replace").strip() for name, content in records.items()}
    try:
        described = json.loads(text.get("described") or "{}")
    except ValueError:
        described = None
    if not isinstance(described, dict):
        raise RemoteFailed(host, "the system of its configuration cannot be read", hint="run again with --debug")
    return _Answer(text, of, expected, described)()


@dataclass(frozen=True, slots=True)
class _Answer:
    text: Mapping[str, str]
    of: Configuration
    expected: Expected
    described: Mapping[str, Any]

    def __call__(self) -> Origin:
        kind, why = next(self._found())
        is_known = bool(self.configured) and kind not in (Kind.DESCRIBED, Kind.UNREAD)
        return Origin(
            kind,
            self.get("running"),
            self.get("boot"),
            self.configured,
            why,
            tuple(self._changes()) if is_known else (),
            tuple(unit_changes(self.get("dry-activate"))) if is_known else (),
            "dry-activate" in self.text,
        )

    def get(self, name: str) -> str:
        return self.text.get(name, "")

    @property
    def configured(self) -> str:
        return str(self.described.get("system") or "")

    def _found(self) -> Iterator[tuple[Kind, str]]:
        """Yield kinds that are true; the first counts. Systems that an owner's own switch would replace come first."""
        if "cannot" in self.text:
            yield Kind.UNKNOWN, f"it cannot be compared: {self.get('cannot')}"
        if "flake" in self.text:
            yield Kind.FLAKE, f"{self.of.folder}/flake.nix is what nixos-rebuild builds"
        yield from self._unread()
        yield from self._same()
        yield from self._from_elsewhere()
        if not self.configured:
            yield Kind.BROKEN, f"{self.of.file} does not evaluate: {complaint(self.get('failed'))}"
        yield from self._not_switched()
        nothing = f"nothing in {self.of.folder} is newer than it"
        yield Kind.OTHER_FILE, f"it was built from another file, or channel: {nothing}"

    def _unread(self) -> Iterator[tuple[Kind, str]]:
        config, real = self.get("config"), self.get("config-real")
        is_ours = real == self.get("classic") or "config-imports-ours" in self.text
        if config and not is_ours:
            yield Kind.UNREAD, f"nixos-rebuild builds {config} (nixos-config in NIX_PATH, or NIXOS_CONFIG)"

    def _same(self) -> Iterator[tuple[Kind, str]]:
        if not self.configured:
            return
        running, boot, configured = self.get("running"), self.get("boot"), self.configured
        is_expected = self.expected.system in (None, configured)
        may_boot = boot == configured or boot in self.expected.boots or (boot == running and is_expected)
        if is_expected and may_boot:
            yield Kind.DESCRIBED, ""
        elif is_expected:
            yield Kind.TRIED, f"it is only tried: {_name(boot)} boots next, which {self.of.file} does not describe"
        elif name := self.get("specialisation"):
            yield Kind.SPECIALISATION, f"it is the specialisation {name.splitlines()[0]} of the system that boots"
        elif boot == configured:
            yield Kind.NEXT_BOOT, f"{_name(boot)} is what {self.of.file} describes, and waits for the next boot"

    def _from_elsewhere(self) -> Iterator[tuple[Kind, str]]:
        deployers = [_DEPLOYERS[sign] for sign in self.get("deployers").splitlines() if sign in _DEPLOYERS]
        if deployers:
            yield Kind.ELSEWHERE, f"it is deployed by {deployers[0]}"
        if "pushed" in self.text:
            yield Kind.ELSEWHERE, "it was built on another machine: its derivation is not here"
        revision = str(_parsed(self.get("version-json")).get("configurationRevision") or "")
        if revision and revision != self.described.get("revision"):
            yield Kind.FLAKE, f"it was built from revision {revision} of a repository, as flakes are"
        flakes = self.get("flakes").splitlines()
        if flakes:
            yield Kind.FLAKE, f"its settings name a flake: {flakes[0]}"
        if _pins_nixpkgs(self.get("registry")) and not self._would_pin_nixpkgs():
            yield Kind.FLAKE, "it was built from a flake: its registry has nixpkgs as a path of the store"

    def _would_pin_nixpkgs(self) -> bool:
        """Whether the configuration pins nixpkgs; assumed of a broken one, unless it lacks nixpkgs itself."""
        if not self.configured:
            return _NO_CHANNEL not in self.get("failed")
        return _pins_nixpkgs(str(self.described.get("registry") or ""))

    def _not_switched(self) -> Iterator[tuple[Kind, str]]:
        then, now = self.get("version"), str(self.described.get("version") or "")
        if now and then != now:
            yield Kind.CHANNEL, f"it is {then}, and the channel has {now}, which is not switched to yet"
        edited = self.get("newer").splitlines()
        if edited:
            yield Kind.EDITS, f"edits are not switched to yet: {_some(edited)}"

    def _changes(self) -> Iterator[str]:
        then, now = self.get("host-name").partition(".")[0], str(self.described.get("hostName") or "")
        if now and then != now:
            yield f"host name: {then} -> {now}"
        if (then := self.get("version")) != (now := str(self.described.get("version") or then)):
            yield f"NixOS: {then} -> {now}"
        kernel = _KERNEL.search(self.get("kernel"))
        if kernel and (now := str(self.described.get("kernel") or kernel[1])) != kernel[1]:
            yield f"kernel: {kernel[1]} -> {now}"
        yield from self._named("units", *self._units())
        yield from self._named("users", self._users(), ())

    def _named(self, what: str, gone: Sequence[str], new: Sequence[str]) -> Iterator[str]:
        for names, verb in ((gone, "go"), (new, "come")):
            if names:
                yield f"{what} that {verb}: {_some(names)}"

    def _units(self) -> tuple[list[str], list[str]]:
        """Names of units made by NixOS: gone and new. Changed units are not seen here."""
        configured = set(self.described.get("units") or ())
        # A name with a newline in it makes a line without fields.
        lines = [words for line in self.get("units").split("\n") if len(words := line.split(" ", 2)) > 1]
        there = {name.removesuffix(".d") for _, name, *_ in lines}
        made = {name for kind, name, *to in lines if kind == "f" or (kind == "l" and "-unit-" in "".join(to))}
        if not configured:
            return [], []
        return _others(made - configured), _others(configured - there)

    def _users(self) -> list[str]:
        configured = set(self.described.get("users") or ())
        return _others(set(self.get("users").split()) - configured) if configured else []


_DEPLOYERS: Final = {"deploy-rs-activate": "deploy-rs", "comin.service": "comin"}
_NO_CHANNEL: Final = "was not found in the Nix search path"
_KERNEL: Final = re.compile(r"-linux-(\d[^/]*)/")
_NAMED: Final = 8


def _pins_nixpkgs(registry: str) -> bool:
    return '"path":"/nix/store/' in registry.replace(" ", "")


def _parsed(text: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _others(names: Collection[str]) -> list[str]:
    return sorted(name for name in names if not name.startswith(_OURS))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


def _name(path: str) -> str:
    """`nixos-system-a-25.11` of /nix/store/HASH-nixos-system-a-25.11."""
    return path.rpartition("/")[2].partition("-")[2] or path
