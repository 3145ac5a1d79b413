"""Options that several commands share, and the exit codes of what stops a run before it starts."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any, Final, TypeVar

import click

from provisioner.errors import ConfigError, ForgeError, NixprovError, NothingSelected, Unreachable

EXIT_BUG: Final = 1
EXIT_USAGE: Final = 2
EXIT_NOTHING: Final = 3
EXIT_FAILED: Final = 5
EXIT_UNREACHABLE: Final = 6
EXIT_FORGE: Final = 9
EXIT_INTERRUPTED: Final = 130

Command = TypeVar("Command", bound=Callable[..., Any])

_RUN_OPTIONS: Final = (
    click.argument("pattern", required=False),
    click.option("-i", "--inventory", "sources", multiple=True, metavar="PATH", help="Inventory; may be repeated."),
    click.option("--limit", metavar="PATTERN", help="Only hosts that match this too; @FILE reads names."),
    click.option("--vault-password-file", metavar="FILE", help="Decrypt vaulted values through ansible-vault."),
    click.option("--play", metavar="FILE", help="What runners to make; default: the shipped play."),
    click.option("-f", "--forks", default=5, show_default=True, type=click.IntRange(1, 500), help="Hosts at once."),
    click.option("--gitlab-url", metavar="URL", help="GitLab; else NIXPROV_GITLAB_URL, python-gitlab's files."),
    click.option("--gitlab-token-file", metavar="FILE", help="Access token; else NIXPROV_GITLAB_TOKEN_FILE, ..."),
    click.option("--accept-new-host-keys", is_flag=True, help="Record unknown SSH host keys instead of refusing."),
    click.option("--ssh-config", "ssh_config", metavar="FILE", help="Instead of ~/.ssh/config."),
    click.option("--json", "as_json", is_flag=True, help="JSON lines on stdout, people's text on stderr."),
    click.option("-v", "--verbose", is_flag=True, help="Show the build's and the switch's log as it comes."),
    click.option("--debug", is_flag=True, help="Tracebacks, for reports of bugs."),
)

_CHANGE_OPTIONS: Final = (
    click.option("-y", "--yes", is_flag=True, help="Do not ask."),
    click.option("-C", "--check", is_flag=True, help="Only say what would change."),
    click.option("-D", "--diff", is_flag=True, help="Show the files' changes."),
)


def run_options(command: Command) -> Command:
    return _decorate(command, _RUN_OPTIONS)


def change_options(command: Command) -> Command:
    return _decorate(command, _CHANGE_OPTIONS)


def _decorate(command: Command, options: tuple[Callable[[Any], Any], ...]) -> Command:
    return reduce(lambda function, option: option(function), reversed(options), command)


def exit_status(error: NixprovError) -> int:
    """The exit code of an error that ended the run before or outside of its hosts (docs/exit-codes.md)."""
    match error:
        case NothingSelected():
            return EXIT_NOTHING
        case ConfigError():
            return EXIT_USAGE
        case ForgeError():
            return EXIT_FORGE
        case Unreachable():
            return EXIT_UNREACHABLE
        case _:
            return EXIT_FAILED
