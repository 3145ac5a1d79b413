"""From options to an app with its hosts and its reports, for each command that has some."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provisioner.ci import DEFAULT
from provisioner.cli import safety
from provisioner.cli.passwords import become_password
from provisioner.cli.reports import reporting
from provisioner.errors import ConfigError
from provisioner.paths import expanded

if TYPE_CHECKING:
    from provisioner.app import App, Settings
    from provisioner.cli.edge import Options
    from provisioner.engine.host import Depth
    from provisioner.selection import Fleet, Overrides, Selection
    from provisioner.verb import Verb


def select(options: Options, verb: Verb) -> Fleet:
    """Raises InventoryError, NothingSelected, ConfigError, click.UsageError."""
    from provisioner import selection

    return selection.select(_selection(options), verb, _overrides(options))


@contextmanager
def opened(options: Options, verb: Verb) -> Iterator[App]:
    """An app and the reports that the options ask for. Raises ConfigError before anything happened."""
    from provisioner.app import App

    with reporting(options, verb) as report:
        yield App(_settings(options), report)


@contextmanager
def interrupting(app: App) -> Iterator[None]:
    """Ctrl-C stops the run at the next safe place; work on the hosts goes on there."""
    before: Callable[..., Any] | int | None = signal.signal(signal.SIGINT, lambda *_: app.interrupt())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _selection(options: Options) -> Selection:
    from provisioner.selection import Selection

    return Selection(
        options.sources,
        options.play,
        options.pattern,
        options.limit,
        options.vault_password_file,
        resume=options.resume,
        all_hosts=options.all_hosts,
    )


def _overrides(options: Options) -> Overrides:
    from provisioner.batches import parse_serial
    from provisioner.selection import Overrides

    return Overrides(
        serial=None if options.serial is None else parse_serial(options.serial),
        max_fail_percentage=options.max_fail_percentage,
        any_errors_fatal=options.any_errors_fatal,
        become_password=become_password(ask=options.ask_become_pass, file=options.become_password_file),
    )


def _settings(options: Options) -> Settings:
    from provisioner.app import Settings
    from provisioner.ssh.session import SshOptions

    return Settings(
        ci=DEFAULT.words.key,
        ci_options=options.ci,
        ssh=SshOptions(
            accept_new_host_keys=options.accept_new_host_keys,
            debug=options.debug,
            config_file=_ssh_config(options.ssh_config),
            connect_timeout_s=options.connect_timeout,
            retries=options.connect_retries,
        ),
        limits=safety.limits(options),
        choices=safety.choices(options),
        forks=options.forks,
        diff=bool(options.diff or options.build or options.report),
        depth=_depth(options),
        host_limit_s=options.host_limit_s,
    )


def _ssh_config(name: str | None) -> Path | None:
    """A missing file is one mistake of the command line, not one of each host."""
    if not name:
        return None
    file = expanded(name)
    try:
        file.open("rb").close()
    except OSError as error:
        raise ConfigError(f"--ssh-config {name} cannot be read: {error.strerror}") from error
    return file


def _depth(options: Options) -> Depth:
    from provisioner.engine.host import Depth

    if options.build:
        return Depth.BUILD
    return Depth.EVALUATE if options.diff else Depth.FILES
