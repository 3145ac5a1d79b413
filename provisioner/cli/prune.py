"""`nixprov prune` and `down --gone HOST`: list what is left on one side, ask, delete."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from provisioner.cli.help import Command
from provisioner.cli.options import run_options

if TYPE_CHECKING:
    from provisioner.engine.prune import Finding
    from provisioner.forge import Forge


@click.command(cls=Command)
@run_options
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def prune(pattern: str | None, **options: Any) -> int:
    r"""Find and delete runners of ours whose host is gone or does not know them; finish deletions that wait.

    \b
    Example: nixprov prune
    """
    from provisioner.cli.run import opened
    from provisioner.engine import Verb
    from provisioner.engine import prune as pruning
    from provisioner.engine.batches import Stage

    with opened(pattern, options) as (app, fleet):
        with app.forge() as forge:
            known = app.known(forge, fleet)
            findings = pruning.survey(pruning.marked(forge, fleet.hosts), fleet.inventory, known, forge.url)
            _settle(forge, findings, yes=options["yes"])
        names = {name for name, host in known.items() if host.journal.pending_deletions}
        waiting = tuple(host for host in fleet.hosts if host.name in names)
        if not waiting or not (options["yes"] or _may(f"Finish what waits on {', '.join(sorted(names))}?")):
            return 0
        return app.run(Verb.DOWN, replace(fleet, stages=(Stage(waiting),)))


def gone(target: str, options: dict[str, Any]) -> int:
    """GitLab's side of a machine that is no more; its own side is gone with it."""
    from provisioner.cli.run import opened
    from provisioner.engine import prune as pruning

    with opened(None, {**options, "all_hosts": True}) as (app, fleet), app.forge() as forge:
        _settle(forge, pruning.gone(forge, target, fleet.hosts), yes=options["yes"])
    return 0


def _settle(forge: Forge, findings: Sequence[Finding], *, yes: bool) -> None:
    from provisioner.engine import prune as pruning

    for finding in findings:
        click.echo(f"{'delete' if finding.deletes else 'note  '}  {finding}")
    count = sum(finding.deletes for finding in findings)
    if not count:
        click.echo("nothing to delete in GitLab")
    elif yes or _may(f"Delete {count} runners?"):
        pruning.delete(forge, findings, click.echo)


def _may(question: str) -> bool:
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} say --yes when nobody can be asked")
    return click.confirm(question, err=True)
