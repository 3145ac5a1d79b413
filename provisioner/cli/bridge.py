"""`nixprov bridge`: pull requests of GitHub, built by GitLab: the service, one pass, status and approvals."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from provisioner.cli.help import Group
from provisioner.cli.options import EXIT_FAILED, SOURCES
from provisioner.cli.values import NAMED
from provisioner.errors import ConfigError
from provisioner.paths import expanded
from provisioner.report.wording import clean

if TYPE_CHECKING:
    from provisioner.bridge.config import Settings
    from provisioner.bridge.reconcile import Decision

_EXTRA: Final = "pip install 'nixprov[bridge]'"
_STATE: Final = "~/.local/state/nixprov/bridge"
Command = TypeVar("Command", bound=Callable[..., Any])


def _where(command: Command) -> Command:
    config = click.option(
        "-c", "--config", default="bridge.toml", type=NAMED, metavar="FILE", help="Default: bridge.toml."
    )
    state = click.option("--state", type=NAMED, metavar="DIR", help=f"Default: $STATE_DIRECTORY, {_STATE}.")
    return config(state(command))


@click.group("bridge", cls=Group, short_help="Build pull requests of GitHub on GitLab.")
def bridge() -> None:
    r"""Bring pull requests of a GitHub repository to a GitLab project, and its results back.

    \b
    Example: nixprov bridge init owner/name https://gitlab.com group/name
    """


@bridge.command()
@click.argument("repository", metavar="OWNER/NAME", type=NAMED)
@click.argument("gitlab_url", metavar="GITLAB_URL", type=NAMED)
@click.argument("project", metavar="GROUP/NAME", type=NAMED)
@click.option("-c", "--config", default="bridge.toml", type=NAMED, metavar="FILE", help="The file to write.")
@click.option("--branch", "branches", multiple=True, default=("main",), metavar="NAME", help="Mirrored; default: main.")
def init(repository: str, gitlab_url: str, project: str, config: str, branches: tuple[str, ...]) -> None:
    r"""Write a bridge.toml; name the App and tokens to make.

    \b
    Example: nixprov bridge init owner/name https://gitlab.com group/name
    """
    from provisioner.bridge.beginning import bridge_toml, steps

    file = expanded(config)
    text = bridge_toml(repository, gitlab_url, project, branches)
    try:
        with file.open("x", encoding="utf-8") as written:
            written.write(text)
    except FileExistsError:
        raise ConfigError(f"{config} is there already", hint="name another with --config") from None
    except OSError as error:
        raise ConfigError(f"cannot write {config}: {error.strerror}") from None
    _say(f"wrote {config}")
    for line in steps(repository, gitlab_url, project):
        click.echo(clean(line) if line else "")


@bridge.command()
@_where
@SOURCES
@click.option("--play", type=NAMED, metavar="FILE", help="The play with the runners.")
@click.option("--gitlab-token-file", type=NAMED, metavar="FILE", help="A Maintainer's and Owner's, for this only.")
def check(
    config: str,
    state: str | None,  # noqa: ARG001 - the same options everywhere
    sources: tuple[str, ...],
    play: str | None,
    gitlab_token_file: str | None,
) -> int:
    r"""Name settings that are unsafe for strangers.

    Looks at the GitLab project, its runners and the App, and names a mend for each finding.

    \b
    Example: nixprov bridge check --gitlab-token-file admin -i hosts --play ci.yml
    """
    from provisioner.model import Secret, Trust

    with _bridge():
        from provisioner.bridge import service
        from provisioner.bridge.preflight import Gravity

        settings = _settings(config)
        token: Secret | None = None
        if gitlab_token_file:
            token = settings.secret(str(expanded(gitlab_token_file).absolute()))
        plain: frozenset[str] | None = None
        if sources:
            from provisioner.selection import Selection, select
            from provisioner.verb import Verb

            fleet = select(Selection(sources, play), Verb.PLAN)
            for text in fleet.warnings:
                _say(f"warning: {text}", err=True)
            plain = frozenset(host.name for host in fleet.hosts if host.module.trust is Trust.PLAIN)
        elif play:
            raise ConfigError("--play needs the inventory of its hosts", hint="name it with -i")
        findings = service.check(settings, token, plain)
    for finding in findings:
        _say(f"{finding.gravity.value}: {finding}")
    is_safe = all(finding.gravity is Gravity.NOTICE for finding in findings)
    if is_safe:
        _say("nothing unsafe was found")
    return 0 if is_safe else EXIT_FAILED


@bridge.command()
@_where
def run(config: str, state: str | None) -> None:
    r"""Run the service, with a line of JSON for each decision.

    \b
    Example: nixprov bridge run --config /etc/nixprov/bridge.toml
    """
    with _bridge():
        from provisioner.bridge import service

        service.serve(_settings(config), _folder(state), _audit, lambda error: _record({"failed": str(error)}))


@bridge.command()
@_where
@click.option("--dry-run", is_flag=True, help="Only announce pushes and deletions.")
def once(config: str, state: str | None, dry_run: bool) -> None:
    r"""Make one pass and end, with a line of JSON for each decision.

    \b
    Example: nixprov bridge once --dry-run
    """
    with _bridge():
        from provisioner.bridge import service

        service.once(_settings(config), _folder(state), _audit, dry_run=dry_run)


@bridge.command()
@_where
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
def status(config: str, state: str | None, as_json: bool) -> None:  # noqa: ARG001 - the same options everywhere
    r"""Show each open pull request after the last pass.

    \b
    Example: nixprov bridge status --json
    """
    with _bridge():
        from provisioner.bridge.reconcile import LAST
        from provisioner.bridge.store import Store

        store = Store(_folder(state))
        standings, last = store.standings(), store.note(LAST)
        store.close()
    if as_json:
        pulls = [{"pull": number, "head": head, "state": title} for number, (head, title) in standings.items()]
        click.echo(json.dumps({"last_pass": last or None, "pulls": pulls}, indent=2))
        return
    _say(f"last pass: {last or 'none yet'}")
    for number, (head, title) in standings.items():
        _say(f"{number:>6}  {head[:12]}  {title}")


@bridge.command()
@_where
@click.argument("pull", type=click.IntRange(1), metavar="PR")
@click.argument("head", metavar="SHA", type=NAMED)
def approve(config: str, state: str | None, pull: int, head: str) -> None:
    r"""Approve one commit of a pull request, by its full id.

    The word of a person at the bridge's own machine counts like that of a writer on GitHub.

    \b
    Example: nixprov bridge approve 12 8887a0500bbe891e02fb2493298023385cf7ea45
    """
    with _bridge():
        from provisioner.bridge import service

        operator = os.environ.get("SUDO_USER") or os.environ.get("USER") or "operator"
        service.approve(_settings(config), _folder(state), pull, head, operator)
    _say(f"pull request {pull} is built with the next pass")


@bridge.command()
def module() -> None:
    r"""Print the NixOS module of the service.

    \b
    Example: nixprov bridge module > nixprov-bridge.nix
    """
    from importlib.resources import files

    click.echo((files("provisioner.bridge") / "module.nix").read_text(encoding="utf-8"), nl=False)


@contextmanager
def _bridge() -> Iterator[None]:
    """The bridge's libraries are an extra; name it where one is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"jwt", "starlette", "uvicorn"}:
            raise
        raise ConfigError(f"the bridge needs {error.name}", hint=_EXTRA) from None


def _settings(config: str) -> Settings:
    from provisioner.bridge.config import load

    return load(expanded(config))


def _folder(state: str | None) -> Path:
    """Absolute: git reads this path from a file in another folder."""
    return expanded(state or os.environ.get("STATE_DIRECTORY") or _STATE).absolute()


def _audit(decision: Decision) -> None:
    from dataclasses import asdict

    _record({name: value for name, value in asdict(decision).items() if value})


def _record(said: dict[str, object]) -> None:
    at = datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds")
    click.echo(json.dumps({"time": at, **said}))


def _say(text: str, *, err: bool = False) -> None:
    click.echo(clean(text), err=err)
