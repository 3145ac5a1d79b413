"""`nixprov lab`: throw-away machines and a throw-away GitLab on this computer.

Owns the options and the output of these commands. Their work is done by nixprov_lab.control.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import click

from provisioner.cli.help import Group

if TYPE_CHECKING:
    from nixprov_lab.gitlab_client import Job


@click.group("lab", cls=Group, short_help="Throw-away NixOS machines and a GitLab.")
def lab() -> None:
    r"""Throw-away NixOS machines and a throw-away GitLab on this computer, to try nixprov on.

    \b
    Example: nixprov lab start
    """


@lab.command(short_help="Start machines and a GitLab.")
@click.option("--hosts", default=2, show_default=True, type=click.IntRange(1, 99), help="How many machines.")
@click.option(
    "--nix-from", default="", metavar="SUITE", help="Take Nix from this suite of Debian's, as forky; default: trixie's."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: paths, addresses, URLs.")
def start(hosts: int, nix_from: str, as_json: bool) -> None:
    r"""Start machines and a GitLab; the first time builds their disk, which takes a few minutes.

    \b
    Example: nixprov lab start --hosts 3
    """
    from nixprov_lab import control

    with _interruptible():
        started = control.start(hosts, progress=lambda line: click.echo(line, err=True), nix_from=nix_from)
    if as_json:
        click.echo(json.dumps(started.describe()))
    else:
        _print_lab(started.describe())


@lab.command(short_help="Stop a lab and remove all of it.")
@click.option("--all", "everything", is_flag=True, help="Every lab on this computer, not only the newest.")
def stop(everything: bool) -> None:
    r"""Stop the newest lab (or the one NIXPROV_LAB names) and remove all of it.

    \b
    Example: nixprov lab stop --all
    """
    from nixprov_lab import control
    from nixprov_lab.process import require_root

    require_root()
    stopped = control.stop_all() if everything else control.stop_one()
    click.echo(f"stopped: {' '.join(stopped)}" if stopped else "no lab is running", err=True)


@lab.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a lab, one a line.")
def status(as_json: bool) -> None:
    r"""Show the labs of this computer.

    \b
    Example: nixprov lab status --json
    """
    from nixprov_lab import control

    labs = [found.status() for found in control.all_running()]
    for one in labs:
        if as_json:
            click.echo(json.dumps(one))
        else:
            _print_lab(one)
    if not labs:
        click.echo("no lab is running", err=True)


@lab.command(
    short_help="Log in to a machine, or run a command there.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("host")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def ssh(host: str, command: tuple[str, ...]) -> None:
    r"""Log in to a machine of the lab, or run one command there, as ssh does.

    \b
    Example: nixprov lab ssh host1 systemctl --failed
    """
    from nixprov_lab import control

    argv = [*control.find().ssh_argv(host), *command]
    os.execvp(argv[0], argv)  # noqa: S606 (ssh shall have this terminal and its status be ours)


@lab.command(short_help="Queue a CI job.")
@click.option("--script", type=click.File(), required=True, help="The job's script; - is standard input.")
@click.option("--host", help="The machine whose runner shall take it.")
@click.option("--wait", is_flag=True, help="Wait for the end and print the trace meanwhile.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object: id, status, seconds, trace.")
def job(script: TextIO, host: str | None, wait: bool, as_json: bool) -> None:
    r"""Queue a CI job in the lab's GitLab; with --wait the exit code is 0 only when it succeeds.

    \b
    Example: nixprov lab job --script job.sh --host host1 --wait
    """
    from nixprov_lab import control
    from nixprov_lab.trace import Reader

    gitlab = control.find().gitlab
    job_id = gitlab.queue_job(script.read(), host=host)
    if not wait:
        _print_job(gitlab.job(job_id), as_json)
        return
    reader = Reader()
    ended = gitlab.wait_for_job(job_id, on_trace=lambda text: _print_trace(reader.feed(text), as_json))
    _print_trace(reader.feed("", is_end=True), as_json)
    _print_job(ended, as_json)
    sys.exit(0 if ended.is_success else 1)


def _print_trace(text: str, as_json: bool) -> None:
    from provisioner.report.foreign import visible, without_colours

    click.echo(visible(without_colours(text)), nl=False, err=as_json)


def _print_job(job: Job, as_json: bool) -> None:
    from nixprov_lab.trace import readable

    if as_json:
        trace = readable(job.trace)
        click.echo(json.dumps({"id": job.id, "status": job.status, "seconds": job.seconds, "trace": trace}))
        return
    took = f" after {job.seconds:.1f} s" if job.seconds is not None else ""
    click.echo(f"job {job.id}: {job.status}{took}")


def _print_lab(described: dict[str, Any]) -> None:
    click.echo(f"lab {described['id']}")
    for host in described["hosts"]:
        state = f"  {host['power']}, ssh {'answers' if host['ssh'] else 'does not answer'}" if "power" in host else ""
        click.echo(f"  {host['name']:8} {host['address']}{state}")
    gitlab = f"  {described['gitlab']}" if "gitlab" in described else ""
    click.echo(f"  GitLab   {described['gitlab_url']}{gitlab}")
    click.echo("to use it:")
    click.echo(f"  export NIXPROV_LAB={described['id']}")
    click.echo(f"  export NIXPROV_INVENTORY={described['inventory']}")
    click.echo(f"  export NIXPROV_GITLAB_URL={described['gitlab_url']}")
    click.echo(f"  export NIXPROV_GITLAB_TOKEN_FILE={described['gitlab_token_file']}")
    click.echo("  nixprov up")


@contextmanager
def _interruptible() -> Iterator[None]:
    """Make SIGTERM and SIGHUP unwind like Ctrl-C does, so that a half-started lab is taken down."""

    def leave(number: int, _frame: FrameType | None) -> NoReturn:
        sys.exit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
