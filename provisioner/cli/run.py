"""`up`, `plan`, `status`, `down`: from options to a run, and its exit code."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from provisioner.cli.options import change_options, run_options

if TYPE_CHECKING:
    from provisioner.app import App, Report
    from provisioner.engine import Verb
    from provisioner.model import HostSpec


@click.command()
@run_options
@change_options
def up(pattern: str | None, **options: Any) -> int:
    r"""Turn the hosts that PATTERN names (default: all) into GitLab runners.

    \b
    Example: nixprov up ci -i inventory --gitlab-token-file ~/.gitlab-token
    """
    from provisioner.engine import Verb

    return _run(Verb.PLAN if options["check"] else Verb.UP, pattern, options)


@click.command()
@run_options
@click.option("-D", "--diff", is_flag=True, help="Show the files' changes.")
def plan(pattern: str | None, **options: Any) -> int:
    r"""Say what `up` would change on the hosts and in GitLab; change nothing.

    \b
    Example: nixprov plan --diff host1
    """
    from provisioner.engine import Verb

    return _run(Verb.PLAN, pattern, options)


@click.command()
@run_options
def status(pattern: str | None, **options: Any) -> int:
    r"""Show machine, module and GitLab side by side, and name every drift.

    \b
    Example: nixprov status --json
    """
    from provisioner.engine import Verb

    return _run(Verb.STATUS, pattern, options)


@click.command()
@run_options
@change_options
def down(pattern: str | None, **options: Any) -> int:
    r"""Take everything back: drain, remove from the hosts, delete in GitLab.

    \b
    Example: nixprov down host1 --yes
    """
    from provisioner.engine import Verb

    check = options["check"]
    return _run(Verb.PLAN_DOWN if check else Verb.DOWN, pattern, options, ask=not (check or options["yes"]))


def _run(verb: Verb, pattern: str | None, options: dict[str, Any], *, ask: bool = False) -> int:
    from provisioner.app import App, Selection, select

    report = _report(options)
    selection = Selection(
        options["sources"], options["play"], pattern, options["limit"], options["vault_password_file"]
    )
    hosts = select(selection, report)
    if ask:
        _confirm(hosts)
    app = App(_settings(options), report)
    with _interrupting(app):
        return app.run(verb, hosts)


def _report(options: dict[str, Any]) -> Report:
    from provisioner.report.both import Both
    from provisioner.report.json_lines import JsonLines
    from provisioner.report.text import PlainText

    people = sys.stderr if options["as_json"] else sys.stdout
    text = PlainText(sys.stderr, people, verbose=options["verbose"], debug=options["debug"])
    return Both((JsonLines(sys.stdout), text)) if options["as_json"] else text


def _settings(options: dict[str, Any]) -> Any:
    from provisioner.app import Settings
    from provisioner.engine.host import Limits
    from provisioner.hosts.ssh import SshOptions

    token_file = options["gitlab_token_file"]
    return Settings(
        gitlab_url=options["gitlab_url"],
        gitlab_token_file=Path(token_file).expanduser() if token_file else None,
        ssh=SshOptions(
            accept_new_host_keys=options["accept_new_host_keys"],
            debug=options["debug"],
            config_file=Path(options["ssh_config"]) if options["ssh_config"] else None,
        ),
        limits=Limits(),
        forks=options["forks"],
        diff=options.get("diff", False),
    )


def _confirm(hosts: Sequence[HostSpec]) -> None:
    """`down` names the machines and asks; without a terminal the answer must have been given by --yes."""
    names = ", ".join(host.name for host in hosts)
    if not sys.stdin.isatty():
        raise click.UsageError(f"down would take back {len(hosts)} hosts ({names}): say --yes when nobody can be asked")
    click.confirm(f"Take back {len(hosts)} hosts: {names}?", abort=True, err=True)


@contextmanager
def _interrupting(app: App) -> Iterator[None]:
    """Ctrl-C stops the run at the next safe place; what runs on the hosts goes on there."""

    def interrupt(*_: object) -> None:
        app.interrupt()

    before: Callable[..., Any] | int | None = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
