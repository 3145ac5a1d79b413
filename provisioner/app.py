"""Wiring of one run: inventory and play to hosts, settings to a forge, events to a report, results to an exit code."""

from __future__ import annotations

import getpass
import os
import secrets
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from provisioner.engine import Engine, Verb
from provisioner.engine.host import Limits
from provisioner.errors import ConfigError, ForgeUnavailable, NothingSelected
from provisioner.events import Event, HostResult, exit_code, summary
from provisioner.forge import Forge, connect
from provisioner.forge.settings import load as load_forge_settings
from provisioner.hosts.journal import Run
from provisioner.hosts.ssh import SshOptions
from provisioner.model import HostSpec

if TYPE_CHECKING:
    from provisioner.inventory import Inventory

DEFAULT_INVENTORIES: Final = ("inventory", "inventory.ini", "inventory.yml", "hosts")


class Report(Protocol):
    def event(self, event: Event) -> None: ...

    def summary(self, fields: Mapping[str, object]) -> None: ...


@dataclass(frozen=True, slots=True)
class Selection:
    """Which hosts, from where: inventory sources, a play (None: the shipped one), patterns."""

    sources: tuple[str, ...] = ()
    play: str | None = None
    pattern: str | None = None
    limit: str | None = None
    vault_password_file: str | None = None


def read_inventory(selection: Selection) -> Inventory:
    """Read the inventory's sources, with the variables beside the play. Raises InventoryError, ConfigError."""
    from provisioner import inventory

    return inventory.load(
        _sources(selection.sources),
        vault=inventory.VaultReader(selection.vault_password_file) if selection.vault_password_file else None,
        play_dir=str(Path(selection.play).parent) if selection.play else None,
    )


def match(loaded: Inventory, selection: Selection) -> tuple[str, ...]:
    """The names that the pattern (None: all) and the limit select. Raises NothingSelected."""
    return loaded.match("all" if selection.pattern is None else selection.pattern, selection.limit)


def select(selection: Selection, warn: Report) -> tuple[HostSpec, ...]:
    """Read the inventory and the play. Raises InventoryError, NothingSelected; touches no host."""
    from provisioner.inventory import play

    play_file = selection.play or str(play.shipped())
    loaded = read_inventory(selection)
    names = match(loaded, selection)
    chosen: dict[str, HostSpec] = {}
    for one in play.read(play_file):
        meant = [name for name in names if name in _matched(loaded, one.hosts)]
        for spec in loaded.host_specs(meant, one.runner_settings):
            if spec.name in chosen:
                raise ConfigError(f"{spec.name} is in two plays of one file", hint="give one play all of its runners")
            chosen[spec.name] = spec
    if not chosen:
        raise NothingSelected("no play is for the selected hosts", hint="look at the plays' `hosts`")
    for text in loaded.warnings:
        warn.event(Event("warning", fields={"text": text}))
    return tuple(chosen[name] for name in names if name in chosen)


def _matched(loaded: Inventory, pattern: str) -> tuple[str, ...]:
    """A play for hosts that this inventory does not have is no error: plays are shared between inventories."""
    try:
        return loaded.match(pattern)
    except NothingSelected:
        return ()


def _sources(given: tuple[str, ...]) -> tuple[str, ...]:
    if given:
        return given
    if named := os.environ.get("NIXPROV_INVENTORY"):
        return tuple(named.split(os.pathsep))
    for name in DEFAULT_INVENTORIES:
        if Path(name).exists():
            return (name,)
    raise ConfigError(
        f"no inventory: none of {', '.join(DEFAULT_INVENTORIES)} is here",
        hint="name one with -i, or copy inventory.example",
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run needs beside its hosts."""

    gitlab_url: str | None
    gitlab_token_file: Path | None
    ssh: SshOptions
    limits: Limits
    forks: int = 5
    diff: bool = False


class App:
    """One run over some hosts; `interrupt()` may be called from a signal handler."""

    def __init__(self, settings: Settings, report: Report) -> None:
        self._settings = settings
        self._report = report
        self._cancel = threading.Event()

    def interrupt(self) -> None:
        self._cancel.set()

    def run(self, verb: Verb, hosts: Sequence[HostSpec]) -> int:
        """Run and report; gives the exit code. Raises ConfigError, ForgeError before any host is touched."""
        started = time.monotonic()
        forge = self._open_forge(verb)
        engine = Engine(
            forge,
            self._settings.ssh,
            self._report.event,
            new_run(verb),
            limits=self._settings.limits,
            forks=self._settings.forks,
            diff=self._settings.diff,
            cancel=self._cancel,
        )
        try:
            results: Sequence[HostResult] = engine.execute(verb, hosts)
        finally:
            forge.close()
        self._report.summary(summary(results, forge.writes, time.monotonic() - started))
        return exit_code(results)

    def _open_forge(self, verb: Verb) -> Forge:
        settings = load_forge_settings(
            os.environ, url=self._settings.gitlab_url, token_file=self._settings.gitlab_token_file
        )
        for warning in settings.warnings:
            self._report.event(Event("warning", fields={"text": warning}))
        forge = connect(settings)
        try:
            forge.check()
        except ForgeUnavailable as error:
            # Taking a machine back must not wait for GitLab: the engine queues what it could not delete.
            if verb not in (Verb.DOWN, Verb.PLAN_DOWN):
                raise
            self._report.event(Event("warning", fields={"text": error.message}))
        return forge


def new_run(verb: Verb) -> Run:
    now = datetime.now(UTC)
    run_id = f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
    return Run(run_id, verb.value, f"{_user()}@{socket.gethostname()}", now.isoformat(timespec="seconds"))


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a uid without a name
        return str(os.getuid())
