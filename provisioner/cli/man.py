"""The manual page, made from the commands themselves (man(7) macros). Owns the text that no command has."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from typing import Final

import click

from provisioner import __version__
from provisioner.ci import DEFAULT, KINDS
from provisioner.cli.help import Command

EXIT_CODES: Final = (
    ("0", "done, or nothing to do"),
    ("1", "a bug in nixprov"),
    ("2", "usage, inventory, play or settings are wrong; nothing was touched"),
    ("3", "the pattern and the limit select no host; nothing was touched"),
    ("4", "some hosts failed, others are fine"),
    ("5", "all hosts failed"),
    ("6", "all that failed could not be reached"),
    ("7", "all that failed were rolled back: they are as before the run"),
    ("8", "a rollback failed: a host is somewhere between"),
    ("9", f"{DEFAULT.words.name} said no, or did not answer"),
    ("10", "all that failed run another system than their configuration describes; nothing was changed"),
    ("130", "interrupted"),
)
ENVIRONMENT: Final = (
    ("NIXPROV_INVENTORY", "Inventories, separated by colons, when there is no -i."),
    *(variable for kind in KINDS.values() for variable in kind.variables),
    ("NIXPROV_LAB", "The lab that `nixprov lab` commands mean; default: the newest."),
    (
        "NO_COLOR, CLICOLOR, CLICOLOR_FORCE, FORCE_COLOR, TERM",
        "Whether there is colour; TERM=dumb: no live table either.",
    ),
)


@click.command(cls=Command, short_help="Show the manual on one page.")
@click.pass_context
def man(context: click.Context) -> None:
    r"""Show the manual: every command and option on one page (as roff source where it goes to a file).

    \b
    Example: nixprov man > ~/.local/share/man/man1/nixprov.1
    """
    source = page(context.find_root())
    if sys.stdout.isatty() and shutil.which("man"):
        subprocess.run(["man", "-l", "-"], input=source, text=True, check=False)
        return
    click.echo(source, nl=False)


def page(root: click.Context) -> str:
    return "".join(f"{line}\n" for line in _lines(root))


def _lines(root: click.Context) -> Iterator[str]:
    yield f'.TH NIXPROV 1 "" "nixprov {__version__}" "User Commands"'
    yield from (".SH NAME", r"nixprov \- NixOS machines as GitLab CI runners, and back")
    yield from (".SH SYNOPSIS", r".B nixprov", r".I COMMAND", r"[\fIOPTIONS\fR] [\fIARGUMENTS\fR]")
    yield from (".SH DESCRIPTION", *_text(root.command.help or ""))
    yield ".SH COMMANDS"
    yield from _commands(root)
    yield ".SH EXIT STATUS"
    yield from _table(EXIT_CODES)
    yield ".SH ENVIRONMENT"
    yield from _table(ENVIRONMENT)
    yield from (".SH EXAMPLES", *_text(root.command.epilog or ""))
    yield from (".SH SEE ALSO", r".BR ssh (1), .BR ssh_config (5), .BR nixos-rebuild (8)".replace(", .BR", ",\n.BR"))


def _commands(context: click.Context) -> Iterator[str]:
    group = context.command
    assert isinstance(group, click.Group)  # noqa: S101 - narrows for mypy
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        inner = click.Context(command, context, info_name=name)
        if isinstance(command, click.Group) and not _repeats(command, context):
            yield from _commands(inner)
        else:
            yield from _command(inner)


def _repeats(group: click.Group, context: click.Context) -> bool:
    """`play FILE up` is `up`: its commands have their place already."""
    root = context.find_root().command
    return isinstance(root, click.Group) and all(
        root.commands.get(name) is group.commands[name] for name in group.commands
    )


def _command(context: click.Context) -> Iterator[str]:
    command = context.command
    usage = " ".join(command.collect_usage_pieces(context))
    yield f'.SS "{_escape(context.command_path)} {_escape(usage)}"'
    yield from _text(command.help or "")
    for option in command.get_params(context):
        record = option.get_help_record(context) if isinstance(option, click.Option) else None
        if record is not None and "--help" not in option.opts:
            yield from (".TP", rf"\fB{_escape(record[0])}\fR", _escape(record[1]))


def _table(rows: tuple[tuple[str, str], ...]) -> Iterator[str]:
    for name, meaning in rows:
        yield from (".TP", rf"\fB{_escape(name)}\fR", _escape(meaning))


def _text(text: str) -> Iterator[str]:
    """Paragraphs; those that begin with a backspace character keep their lines."""
    for number, paragraph in enumerate(re.split(r"\n\s*\n", text.strip())):
        lines = paragraph.splitlines()
        yield from [".PP"] * bool(number)
        if lines[0] == "\b":
            yield from (".nf", *map(_escape, lines[1:]), ".fi")
        else:
            yield _escape(" ".join(line.strip() for line in lines))


def _escape(text: str) -> str:
    """Quote the characters that roff reads: backslashes, minus signs, dots and quotes at a line's start."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-").replace('"', r"\(dq")
    return rf"\&{escaped}" if escaped.startswith((".", "'")) else escaped
