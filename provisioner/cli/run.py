"""`up`, `plan`, `status`, `down`, by themselves and after `play FILE`: from options to a run, and its exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from provisioner.cli import safety
from provisioner.cli.edge import Options, PlayFile, with_options
from provisioner.cli.help import Command, Group
from provisioner.cli.options import change_options, run_options
from provisioner.cli.prune import gone
from provisioner.cli.values import NAMED
from provisioner.cli.wiring import interrupting, opened, select
from provisioner.verb import Verb

if TYPE_CHECKING:
    from provisioner.model import HostSpec


@click.command(cls=Command, short_help="Turn hosts into CI runners.")
@run_options
@change_options
@click.option("--new-tokens", is_flag=True, help="Replace the runners' tokens; the old ones end at once.")
@safety.DOWNGRADE
@with_options
def up(options: Options) -> int:
    r"""Turn the hosts that PATTERN names (default: all) into CI runners.

    \b
    Example: nixprov up ci -i inventory --gitlab-token-file ~/.gitlab-token
    """
    return _run(Verb.PLAN if options.check else Verb.UP, options)


@click.command(cls=Command, short_help="Show the changes of `up`, and change nothing.")
@run_options
@click.option("-D", "--diff", is_flag=True, help="Show the files' changes, and the builds to do.")
@click.option("--build", is_flag=True, help="Build it; show the changes of closure and units.")
@safety.DOWNGRADE
@with_options
def plan(options: Options) -> int:
    r"""Show the changes of `up` on the hosts and at the CI server; change nothing.

    \b
    Example: nixprov plan --diff host1
    """
    return _run(Verb.PLAN, options)


@click.command(cls=Command, short_help="Machine, module and CI server side by side.")
@run_options
@with_options
def status(options: Options) -> int:
    r"""Show machine, module and CI server side by side, and name every drift.

    \b
    Example: nixprov status --json
    """
    return _run(Verb.STATUS, options)


@click.command(cls=Command, short_help="Take everything back, on hosts and in CI.")
@run_options
@change_options
@click.option("--gone", type=NAMED, metavar="HOST", help="A dead host or a runner's id: the CI server's side only.")
@with_options
def down(options: Options) -> int:
    r"""Take everything back: drain, remove from the hosts, withdraw from CI.

    \b
    Example: nixprov down host1 --yes
    """
    if options.gone is not None:
        if options.pattern is not None:
            raise click.UsageError("--gone names the host itself: leave the pattern out")
        return gone(options.gone, options)
    if options.check:
        return _run(Verb.PLAN_DOWN, options)
    return _run(Verb.DOWN, options, ask=not options.yes)


@click.group(cls=Group)
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.pass_context
def play(context: click.Context, file: str) -> None:
    r"""Work with the runners that the play FILE describes.

    \b
    Example: nixprov play playbooks/default.yml up --check
    """
    context.obj = PlayFile(file)


for _command in (up, plan, status, down):
    play.add_command(_command)


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


def _run(verb: Verb, options: Options, *, ask: bool = False) -> int:
    fleet = select(options, verb)
    if ask:
        _confirm(fleet.hosts)
    with opened(options, verb) as app, interrupting(app):
        return app.run(verb, fleet)


def _confirm(hosts: Sequence[HostSpec]) -> None:
    """`down` names the machines and asks; without a terminal the answer must have been given by --yes."""
    from provisioner.report.wording import clean, count

    told, names = count(len(hosts), "host"), ", ".join(clean(host.name) for host in hosts)
    if not sys.stdin.isatty():
        raise click.UsageError(f"down would take back {told} ({names}): without a terminal, answer with --yes")
    click.confirm(f"Take back {told}: {names}?", abort=True, err=True)
