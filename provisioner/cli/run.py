"""`up`, `plan`, `status`, `down`, by themselves and after `play FILE`: from options to a run, and its exit code."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from provisioner.cli import safety
from provisioner.cli.help import Command, Group
from provisioner.cli.options import change_options, run_options
from provisioner.cli.passwords import become_password
from provisioner.cli.reports import reporting
from provisioner.cli.values import NAMED
from provisioner.errors import ConfigError
from provisioner.paths import expanded

if TYPE_CHECKING:
    from provisioner.app import App
    from provisioner.engine.host import Depth
    from provisioner.model import HostSpec
    from provisioner.selection import Fleet, Overrides, Selection
    from provisioner.verb import Verb


@click.command(cls=Command, short_help="Turn hosts into GitLab runners.")
@run_options
@change_options
@click.option("--new-tokens", is_flag=True, help="Replace the runners' tokens; the old ones end at once.")
@safety.DOWNGRADE
def up(pattern: str | None, **options: Any) -> int:
    r"""Turn the hosts that PATTERN names (default: all) into GitLab runners.

    \b
    Example: nixprov up ci -i inventory --gitlab-token-file ~/.gitlab-token
    """
    from provisioner.verb import Verb

    return _run(Verb.PLAN if options["check"] else Verb.UP, pattern, options)


@click.command(cls=Command, short_help="Say what `up` would change, and change nothing.")
@run_options
@click.option("-D", "--diff", is_flag=True, help="Show the files' changes, and what must be built.")
@click.option("--build", is_flag=True, help="Build it; show what the closure and units become.")
@safety.DOWNGRADE
def plan(pattern: str | None, **options: Any) -> int:
    r"""Say what `up` would change on the hosts and in GitLab; change nothing.

    \b
    Example: nixprov plan --diff host1
    """
    from provisioner.verb import Verb

    return _run(Verb.PLAN, pattern, options)


@click.command(cls=Command, short_help="Machine, module and GitLab side by side.")
@run_options
def status(pattern: str | None, **options: Any) -> int:
    r"""Show machine, module and GitLab side by side, and name every drift.

    \b
    Example: nixprov status --json
    """
    from provisioner.verb import Verb

    return _run(Verb.STATUS, pattern, options)


@click.command(cls=Command, short_help="Take everything back, on hosts and in GitLab.")
@run_options
@change_options
@click.option("--gone", type=NAMED, metavar="HOST", help="A dead host or a runner's id: GitLab's side only.")
def down(pattern: str | None, **options: Any) -> int:
    r"""Take everything back: drain, remove from the hosts, delete in GitLab.

    \b
    Example: nixprov down host1 --yes
    """
    from provisioner.verb import Verb

    check = options["check"]
    if options["gone"] is not None:
        from provisioner.cli.prune import gone

        if pattern is not None:
            raise click.UsageError("--gone names the host itself: leave the pattern out")
        return gone(options["gone"], options)
    return _run(Verb.PLAN_DOWN if check else Verb.DOWN, pattern, options, ask=not (check or options["yes"]))


@click.group(cls=Group)
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.pass_context
def play(context: click.Context, file: str) -> None:
    r"""Work with the runners that the play FILE describes.

    \b
    Example: nixprov play playbooks/builders.yml up --check
    """
    context.obj = _PlayFile(file)


for _command in (up, plan, status, down):
    play.add_command(_command)


@dataclass(frozen=True, slots=True)
class _PlayFile:
    """What `nixprov play FILE` leaves for the command after it."""

    path: str


@click.group("schema", cls=Group, short_help="Print JSON schemas of plays and events.")
def schema() -> None:
    r"""Print JSON schemas: of plays, for editors; of events, for programs that read them.

    \b
    Example: nixprov schema play
    """


@schema.command("play")
def schema_play() -> None:
    r"""Print the schema of a file of plays.

    \b
    Example: nixprov schema play > .vscode/nixprov-play.json
    """
    from provisioner.inventory.play import schema as of_plays

    click.echo(json.dumps(of_plays(), indent=2))


@schema.command("events")
def schema_events() -> None:
    r"""Print the schema of a line of `--json`.

    \b
    Example: nixprov schema events > events.schema.json
    """
    from provisioner.report.schema import events

    click.echo(json.dumps(events(), indent=2))


def _run(verb: Verb, pattern: str | None, options: dict[str, Any], *, ask: bool = False) -> int:
    from provisioner.app import App
    from provisioner.selection import select

    selection = _selection(pattern, options)
    fleet = select(selection, verb, _overrides(options))
    if ask:
        _confirm(fleet.hosts)
    with reporting({**options, "play": selection.play}, verb.value) as report:
        app = App(_settings(options), report)
        with interrupting(app):
            return app.run(verb, fleet)


@contextmanager
def opened(pattern: str | None, options: dict[str, Any]) -> Iterator[tuple[App, Fleet]]:
    """An app and its hosts, for commands that are no verb of the engine."""
    from provisioner.app import App
    from provisioner.selection import select
    from provisioner.verb import Verb

    selection = _selection(pattern, options)
    fleet = select(selection, Verb.STATUS, _overrides(options))
    with reporting({**options, "play": selection.play}, Verb.STATUS.value) as report:
        yield App(_settings(options), report), fleet


@contextmanager
def alone(options: dict[str, Any]) -> Iterator[App]:
    """An app for what no host takes part in: no inventory is read."""
    from provisioner.app import App

    with reporting(options, "status") as report:
        yield App(_settings(options), report)


def _selection(pattern: str | None, options: dict[str, Any]) -> Selection:
    from provisioner.selection import Selection

    of_group = click.get_current_context().find_object(_PlayFile)
    if of_group and options["play"]:
        raise click.UsageError("--play and `nixprov play FILE` both name a play: leave one out")
    return Selection(
        options["sources"],
        of_group.path if of_group else options["play"],
        pattern,
        options["limit"],
        options["vault_password_file"],
        resume=options.get("resume"),
        all_hosts=options.get("all_hosts", False),
    )


def _overrides(options: dict[str, Any]) -> Overrides:
    from provisioner.batches import parse_serial
    from provisioner.selection import Overrides

    serial = options.get("serial")
    return Overrides(
        serial=None if serial is None else parse_serial(serial),
        max_fail_percentage=options.get("max_fail_percentage"),
        any_errors_fatal=options.get("any_errors_fatal", False),
        become_password=become_password(ask=options["ask_become_pass"], file=options["become_password_file"]),
    )


def _settings(options: dict[str, Any]) -> Any:
    from provisioner.app import Settings
    from provisioner.ssh.session import SshOptions

    token_file = options["gitlab_token_file"]
    return Settings(
        gitlab_url=options["gitlab_url"],
        gitlab_token_file=expanded(token_file) if token_file else None,
        ssh=SshOptions(
            accept_new_host_keys=options["accept_new_host_keys"],
            debug=options["debug"],
            config_file=_ssh_config(options["ssh_config"]),
            connect_timeout_s=options["connect_timeout"],
            retries=options["connect_retries"],
        ),
        limits=safety.limits(options),
        choices=safety.choices(options),
        forks=options["forks"],
        diff=any(options.get(name) for name in ("diff", "build", "report")),
        depth=_depth(options),
        host_limit_s=options["host_limit_s"],
    )


def _ssh_config(name: str | None) -> Path | None:
    """A file that is not there is one mistake of the command line, not one of each host."""
    if not name:
        return None
    file = expanded(name)
    try:
        file.open("rb").close()
    except OSError as error:
        raise ConfigError(f"--ssh-config {name} cannot be read: {error.strerror}") from error
    return file


def _depth(options: dict[str, Any]) -> Depth:
    from provisioner.engine.host import Depth

    if options.get("build"):
        return Depth.BUILD
    return Depth.EVALUATE if options.get("diff") else Depth.FILES


def _confirm(hosts: Sequence[HostSpec]) -> None:
    """`down` names the machines and asks; without a terminal the answer must have been given by --yes."""
    from provisioner.report.wording import clean, count

    told, names = count(len(hosts), "host"), ", ".join(clean(host.name) for host in hosts)
    if not sys.stdin.isatty():
        raise click.UsageError(f"down would take back {told} ({names}): say --yes when nobody can be asked")
    click.confirm(f"Take back {told}: {names}?", abort=True, err=True)


@contextmanager
def interrupting(app: App) -> Iterator[None]:
    """Ctrl-C stops the run at the next safe place; what runs on the hosts goes on there."""
    before: Callable[..., Any] | int | None = signal.signal(signal.SIGINT, lambda *_: app.interrupt())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
