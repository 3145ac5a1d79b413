"""`nixprov prune` and `down --gone HOST`: list leftovers on one side, ask, delete."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import click

from provisioner.ci import DEFAULT
from provisioner.cli.edge import Options, with_options
from provisioner.cli.help import Command
from provisioner.cli.options import host_options
from provisioner.cli.wiring import interrupting, opened, select
from provisioner.verb import Verb

if TYPE_CHECKING:
    from provisioner.app import App
    from provisioner.ci.base import Enrolled, Provider
    from provisioner.selection import Fleet
    from provisioner.verbs.prune import Finding, Known


@click.command(cls=Command, short_help="Delete runners of ours whose host is gone.")
@host_options
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@with_options
def prune(options: Options) -> int:
    r"""Find and delete runners of ours whose host is gone or does not know them; finish deletions that wait.

    \b
    Example: nixprov prune
    """
    from provisioner.verbs import prune as pruning

    fleet = select(options, Verb.STATUS)
    with opened(options, Verb.STATUS) as app:
        dialogue = _Dialogue(app, yes=options.yes, as_json=options.as_json)
        with app.ci() as ci:
            view = pruning.look(ci, fleet.hosts, fleet.inventory, lambda: app.known(ci, fleet))
            dialogue.settle(ci, pruning.findings(view))
        return _finish(app, fleet, view.known, dialogue)


def _finish(app: App, fleet: Fleet, known: Mapping[str, Known], dialogue: _Dialogue) -> int:
    """Finish the `down`s that wait for the provider, except on hosts that became runners again since."""
    from provisioner.batches import Stage

    waiting = tuple(host for host in fleet.hosts if host.name in known and known[host.name].waits_for_down)
    names = ", ".join(host.name for host in waiting)
    if not waiting or not dialogue.may(f"Finish what waits on {names}?"):
        return 0
    with interrupting(app):
        return app.run(Verb.DOWN, replace(fleet, stages=(Stage(waiting),)))


def gone(target: str, options: Options) -> int:
    """The provider's side of a machine that is no more; its own side is gone with it.

    An id needs no inventory.
    """
    from provisioner.verbs import prune as pruning

    if file := next((name for name in ("junit", "report", "log_dir") if getattr(options, name)), None):
        raise click.UsageError(f"--gone runs on no host: leave --{file.replace('_', '-')} out")
    runner, words = DEFAULT.identify(target), DEFAULT.words
    fleet = select(replace(options, all_hosts=True), Verb.STATUS) if runner is None else None
    with opened(options, Verb.STATUS) as app, app.ci() as ci:
        if fleet is None:
            found = [] if runner is None else pruning.named(ci, runner)
        else:
            one = fleet.only(target)
            found = pruning.gone(ci, target, fleet.hosts, lambda: app.known(ci, one, retries=0))
        dialogue = _Dialogue(app, yes=options.yes, as_json=options.as_json, check=options.check)
        dialogue.settle(ci, found, f"{words.name} has no {words.runner} of ours for {target}")
    return 0


@dataclass(frozen=True, slots=True)
class _Dialogue:
    """List, ask, and only then delete; under --json the list for people goes to standard error."""

    app: App
    yes: bool
    as_json: bool
    check: bool = False

    def settle(self, ci: Provider, findings: Sequence[Finding], if_none: str = "") -> None:
        from provisioner.report.wording import count as told
        from provisioner.verbs import prune as pruning

        for finding in findings:
            self.app.tell(pruning.told(finding))
            self._say(f"{'delete' if finding.deletes else 'note  '}  {finding.told(ci.server.words)}")
        count = sum(finding.deletes for finding in findings)
        if not count:
            self._say((not findings and if_none) or f"nothing to delete in {ci.server.words.name}")
        elif not self.check and self.may(f"Delete {told(count, ci.server.words.runner)}?"):
            pruning.delete(ci, findings, self._deleted, self._spared)

    def may(self, question: str) -> bool:
        return self.yes or _may(question)

    def _deleted(self, runner: Enrolled) -> None:
        from provisioner.events import RunnerDeleted

        self.app.tell(RunnerDeleted(runner.id))
        self._say(f"deleted {DEFAULT.words.runner} {runner.id}")

    def _spared(self, runner: Enrolled) -> None:
        self._say(f"{DEFAULT.words.runner} {runner.id} is not what it was when it was listed: left alone")

    def _say(self, text: str) -> None:
        from provisioner.report.wording import clean

        with suppress(BrokenPipeError):  # a reader that has seen enough ends no deletion
            click.echo(clean(text), err=self.as_json)


def _may(question: str) -> bool:
    from provisioner.report.wording import clean

    question = clean(question)
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} without a terminal, answer with --yes")
    return click.confirm(question, err=True)
