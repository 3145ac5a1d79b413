"""The layout of help: it fits a terminal of 80 by 24, and shows a command to type.

Options that are rarely needed are named in one paragraph; the manual (`nixprov man`) explains them.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Sequence
from typing import Any, Final

import click

from provisioner.ci import CI_OPTIONS

RARE: Final = frozenset(
    {
        "--accept-new-host-keys",
        "--adopt-configuration",
        "--all",
        "--any-errors-fatal",
        "--ask-become-pass",
        "--become-password-file",
        "--confirm",
        "--confirm-limit",
        "--connect-retries",
        "--connect-timeout",
        "--debug",
        "--downgrade",
        "--drain-limit",
        "--force",
        "--help",
        "--junit",
        "--log-dir",
        "--max-fail-percentage",
        "--new-tokens",
        "--play",
        "--progress",
        "--resume",
        "--serial",
        "--ssh-config",
        "--take-over",
        "--timeout",
        *(option.flag for option in CI_OPTIONS),
        "--vault-password-file",
        "--verbose",
    }
)
_FEW: Final = 12


class Command(click.Command):
    """A command with click's marked paragraphs, whose lines are kept, in raw docstrings too."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.help = _paragraphs(self.help)

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        options = [option for option in self.get_params(context) if isinstance(option, click.Option)]
        rare = [option for option in options if is_rare(option)] if len(options) > _FEW else []
        _write(context, formatter, [option for option in options if option not in rare])
        if rare:
            # A name that is broken at a hyphen can neither be read nor copied.
            names = " ".join(sorted(_longest(option) for option in rare))
            lines = textwrap.wrap(names, formatter.width - 2, break_on_hyphens=False)
            with formatter.section("More options (`nixprov man` explains them)"):
                formatter.write("".join(f"  {line}\n" for line in lines))


class Group(click.Group):
    """Lists its commands as they were added: the everyday ones first."""

    command_class = Command
    group_class = type

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.help = _paragraphs(self.help)

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands alone: a group's own options are those of every program."""
        self.format_commands(context, formatter)

    def list_commands(self, _context: click.Context) -> list[str]:
        return list(self.commands)


def is_rare(option: click.Option) -> bool:
    return not RARE.isdisjoint(option.opts)


def _write(context: click.Context, formatter: click.HelpFormatter, options: Sequence[click.Option]) -> None:
    records = [record for option in options if (record := option.get_help_record(context)) is not None]
    with formatter.section("Options"):
        formatter.write_dl(records)


def _longest(option: click.Option) -> str:
    return max(option.opts, key=len)


def _paragraphs(text: str | None) -> str | None:
    """A paragraph that begins with a backspace character keeps its lines."""
    return None if text is None else inspect.cleandoc(text).replace("\\b\n", "\b\n")
