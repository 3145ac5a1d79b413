"""Options that several commands share, and the exit codes of errors before a run starts."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any, Final, TypeVar

import click

from provisioner.ci import CI_OPTIONS
from provisioner.cli.completion import hosts
from provisioner.cli.edge import CONNECT_RETRIES, CONNECT_TIMEOUT_S, FORKS
from provisioner.cli.reports import FILE_OPTIONS, TOLD_OPTIONS
from provisioner.cli.safety import SAFETY_OPTIONS
from provisioner.cli.values import NAMED, Percent, Seconds
from provisioner.errors import CiError, ConfigError, NixprovError, NothingSelected, Unreachable

EXIT_BUG: Final = 1
EXIT_CUT_SHORT: Final = 1
EXIT_USAGE: Final = 2
EXIT_NOTHING: Final = 3
EXIT_FAILED: Final = 5
EXIT_UNREACHABLE: Final = 6
EXIT_CI: Final = 9
EXIT_INTERRUPTED: Final = 130

_SECONDS: Final = Seconds(min=0, min_open=True)
_HOSTS: Final = click.IntRange(1, 500)
_RETRIES: Final = click.IntRange(0, 20)

Command = TypeVar("Command", bound=Callable[..., Any])

SOURCES: Final = click.option(
    "-i", "--inventory", "sources", multiple=True, type=NAMED, metavar="PATH", help="Inventory; may be repeated."
)
VAULT: Final = click.option(
    "--vault-password-file", type=NAMED, metavar="FILE", help="Decrypt vaulted values through ansible-vault."
)

_HOST_OPTIONS: Final = (
    click.argument("pattern", required=False, shell_complete=hosts),
    SOURCES,
    click.option("--limit", metavar="PATTERN", shell_complete=hosts, help="Only hosts that match too; @FILE: names."),
    click.option("--play", type=NAMED, metavar="FILE", help="The play with the runners; default: the shipped one."),
    click.option("-f", "--forks", default=FORKS, show_default=True, type=_HOSTS, metavar="N", help="Hosts at once."),
    click.option("--timeout", "host_limit_s", type=_SECONDS, metavar="SECONDS", help="Time limit of each host."),
    *(click.option(option.flag, type=NAMED, metavar=option.metavar, help=option.help) for option in CI_OPTIONS),
    VAULT,
    click.option("-K", "--ask-become-pass", is_flag=True, help="Ask once for sudo's password."),
    click.option("--become-password-file", type=NAMED, metavar="FILE", help="Read sudo's password from a file."),
    click.option(
        "-T", "--connect-timeout", default=CONNECT_TIMEOUT_S, type=_SECONDS, metavar="SECONDS", help="Default: 10."
    ),
    click.option(
        "--connect-retries",
        default=CONNECT_RETRIES,
        type=_RETRIES,
        metavar="N",
        help="With growing pauses; default: 2.",
    ),
    click.option("--accept-new-host-keys", is_flag=True, help="Record unknown SSH host keys instead of refusing."),
    click.option("--ssh-config", "ssh_config", type=NAMED, metavar="FILE", help="Instead of ~/.ssh/config."),
    *TOLD_OPTIONS,
)

_CHANGE_OPTIONS: Final = (
    click.option("-y", "--yes", is_flag=True, help="Do not ask."),
    click.option("-C", "--check", is_flag=True, help="Only show the changes."),
    click.option("-D", "--diff", is_flag=True, help="Show the files' changes."),
    click.option("--serial", metavar="SIZES", help="Sizes of batches, hosts or percent: 1,5,20%."),
    click.option("--max-fail-percentage", type=Percent(), metavar="N", help="Stop when more of a batch failed."),
    click.option("--any-errors-fatal", is_flag=True, help="Stop when any host of a batch failed."),
    click.option("--resume", type=NAMED, metavar="RUN", help="Only the hosts that an earlier run left; or `last`."),
    click.option("--all", "all_hosts", is_flag=True, help="Allow all hosts where nixprov_allow_all is false."),
    *SAFETY_OPTIONS,
)


def host_options(command: Command) -> Command:
    """The choice of hosts and CI server, the way to reach them, and the reports."""
    return _decorate(command, _HOST_OPTIONS)


def run_options(command: Command) -> Command:
    """The same, and the files that a run leaves."""
    return _decorate(command, (*_HOST_OPTIONS, *FILE_OPTIONS))


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
        case CiError():
            return EXIT_CI
        case Unreachable():
            return EXIT_UNREACHABLE
        case _:
            return EXIT_FAILED
