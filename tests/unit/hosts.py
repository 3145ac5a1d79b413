"""Hosts as facts, for tests of pure code: a new NixOS machine, and the same after things were done to it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence

from provisioner.ci.base import Server
from provisioner.ci.gitlab.values import Runner, RunnerStatus
from provisioner.ci.gitlab.words import HOST_SIDE, WORDS
from provisioner.hooks.classic import Classic
from provisioner.machine.facts import Facts, digest
from provisioner.machine.journal import Journal, Phase, RunnerRecord
from provisioner.machine.things import Files, Folder, Seen, asking, of_kind
from provisioner.machine.transaction import RemoveFile, WriteFile
from provisioner.model import Connection, HostSpec, Mark, RunnerSpec, Secret, machine_key
from provisioner.steps import STEPS, Wanted, things
from provisioner.steps.wanted import build

URL = "https://gitlab.example"
SERVER = Server(WORDS, HOST_SIDE, URL)
MACHINE_ID = b"0123456789abcdef0123456789abcdef"
MACHINE = machine_key(MACHINE_ID.decode())
CONFIGURATION = b"""\
{ config, pkgs, ... }:

{
  imports = [
    ./hardware-configuration.nix
  ];

  services.openssh.enable = true; # mine
}
"""
HOOK = Classic()
NEW = {
    "os": b"ID=nixos\n",
    "machine-id": MACHINE_ID + b"\n",
    "generation": b"system-4-link",
    "system": b"/nix/store/aaa-nixos",
    "profile": b"/nix/store/aaa-nixos",
    "etc-nixos": HOOK.folder.encode(),
    "etc-nixos-mtime": b"1000",
    "nix-version": b"nix (Nix) 2.35.3\n",
}
RECORD = RunnerRecord(7, URL, "run-1")


def spec(*runners: RunnerSpec, name: str = "host1") -> HostSpec:
    return HostSpec(name, Connection("192.0.2.1"), runners or (RunnerSpec(),))


def with_file(
    records: Mapping[str, bytes], record: str, path: str, content: bytes | None, mode: int = 0o644
) -> dict[str, bytes]:
    kept = {name: value for name, value in records.items() if not name.startswith(f"{record}.")}
    if content is None:
        return kept
    stat = f"{mode:o} 0 0 500 regular file".encode()
    return kept | {f"{record}.stat": stat, f"{record}.real": path.encode(), f"{record}.data": content}


def new_host(configuration: bytes = CONFIGURATION) -> Facts:
    return Facts("host1", with_file(NEW, "configuration", HOOK.path, configuration))


def after(facts: Facts, parts: Sequence[object]) -> Facts:
    """The facts that a probe would find once a transaction's parts were applied: files that a step declares, only."""
    records = dict(facts.records)
    declared = tuple(things())
    for part in parts:
        if isinstance(part, WriteFile | RemoveFile) and (thing := asking(part.path, declared)):
            record = thing.record_of(part.path) or ""
            if part.expect is not None:
                assert part.expect == digest(records.get(f"{record}.data")), part.path
            content = None
            if isinstance(part, WriteFile):
                content = b"" if isinstance(part.content, Secret) else part.content
            records = with_file(records, record, part.path, content, part.mode if isinstance(part, WriteFile) else 0)
            if thing.is_secret:
                records = {name: data for name, data in records.items() if name not in unread(record)}
    return Facts(facts.host, with_folders(records))


def unread(record: str) -> tuple[str, str]:
    """What the probe never says of a secret."""
    return f"{record}.data", f"{record}.real"


def with_folders(records: Mapping[str, bytes]) -> dict[str, bytes]:
    """A declared folder is there when one of the declared files in it is."""
    declared = tuple(things())
    found = dict(records)
    for folder in of_kind(declared, Folder):
        if folder.record:
            found.pop(f"{folder.record}.stat", None)
            files = [thing for thing in declared if isinstance(thing, Seen | Files)]
            if any(lies_in(thing, folder) and is_there(thing, records) for thing in files):
                found[f"{folder.record}.stat"] = f"{folder.mode:o} 0 0 1 directory".encode()
    return found


def lies_in(thing: Seen | Files, folder: Folder) -> bool:
    where = thing.folder if isinstance(thing, Files) else thing.path.rpartition("/")[0]
    return f"{where}/".startswith(f"{folder.path}/")


def is_there(thing: Seen | Files, records: Mapping[str, bytes]) -> bool:
    name = re.escape(thing.record) + (r"/.*" if isinstance(thing, Files) else "")
    return any(re.fullmatch(rf"{name}\.stat", record) for record in records)


def with_old_header(content: bytes, by: str = "0.1.0") -> bytes:
    """A file of the module as nixprov wrote it when its first line named the version."""
    body = content.partition(b"\n")[2]
    digest = hashlib.sha256(body).hexdigest()
    line = f'# Managed by nixprov {by}; do not edit (sha256:{digest}); "nixprov down" removes it\n'
    return line.encode() + body


def with_old_settings(facts: Facts) -> Facts:
    """The host as a nixprov left it that wrote settings.nix as Nix's own literals."""
    body = f'# What is wanted on this host, as data.\n{{\n  revision = "{facts.revision}";\n  runners = {{ }};\n}}\n'
    file = with_old_header(b"\n" + body.encode())
    return Facts(facts.host, {**facts.records, "module/settings.nix.data": file})


def wanted(host: HostSpec | None = None, record: RunnerRecord = RECORD) -> Wanted:
    host = host or spec()
    records = {runner.name: record for runner in host.runners}
    return build(host, SERVER, records, {runner.name: Secret("glrt-x") for runner in host.runners})


def write(target: Wanted, facts: Facts, journal: Journal) -> list[object]:
    return [part for step in STEPS for part in step.write(target, facts, journal)]


def converged(host: HostSpec | None = None) -> tuple[Facts, Journal]:
    """A host after a successful `up`: files, system, units, journal."""
    host = host or spec()
    target = wanted(host)
    facts = after(new_host(), write(target, new_host(), Journal()))
    units = "\n\n".join(
        f"Id=nixprov-runner-{runner.name}.service\nActiveState=active\nSubState=running\nNRestarts=0"
        for runner in host.runners
    )
    system = {
        "revision": target.revision.encode(),
        "revision-at-boot": target.revision.encode(),
        "units": units.encode(),
    }
    journal = Journal(
        "abc", "host1", MACHINE, Phase.CONFIRMED, runners={runner.name: RECORD for runner in host.runners}
    )
    return Facts("host1", {**facts.records, **system}), journal


def runner(runner_id: int = 7, *, name: str = "default", machine: str = MACHINE, **fields: object) -> Runner:
    known = RunnerSpec(name)
    values: dict[str, object] = {
        "type": known.type,
        "paused": False,
        "status": RunnerStatus.ONLINE,
        "description": Mark("host1", name, machine).describe(""),
    }
    return Runner(id=runner_id, **(values | fields))  # type: ignore[arg-type]
