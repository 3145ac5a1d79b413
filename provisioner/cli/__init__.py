"""The command line: options, questions and the exit code. Everything else is imported when a command runs."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, TextIO, cast

import click

from provisioner import __version__
from provisioner.cli import completion as completions
from provisioner.cli.bridge import bridge
from provisioner.cli.completion import completion
from provisioner.cli.inventory import inventory
from provisioner.cli.man import man
from provisioner.cli.options import EXIT_BUG, EXIT_CUT_SHORT, EXIT_INTERRUPTED, exit_status
from provisioner.cli.plugins import Extensible
from provisioner.cli.prune import prune
from provisioner.cli.run import down, plan, play, schema, status, up
from provisioner.errors import NixprovError
from provisioner.paths import expanded
from provisioner.report.foreign import Guard
from provisioner.report.wording import clean, told

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_EPILOG = """\b
Examples:
  nixprov up host1                one machine
  nixprov up 'ci:&eu:!old'        Ansible's host patterns
  nixprov plan --diff             what up would change, and nothing more
  nixprov down host1              take it all back
"""


_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=Extensible, epilog=_EPILOG, context_settings=_SETTINGS)
@click.version_option(__version__, prog_name="nixprov")
def cli() -> None:
    """Turn NixOS machines into GitLab CI runners that build with the machine's own Nix store, and back."""


for command in (up, plan, status, down, prune, play, inventory, bridge, schema, completion, man):
    cli.add_command(command)


def main(arguments: list[str] | None = None) -> None:
    """The program's entry: one line for an error that a user can cause, a traceback only under --debug."""
    _open_streams()
    with _guarded_streams():
        _guarded_main(arguments)


def _guarded_main(arguments: list[str] | None) -> None:
    if not expanded("~").is_absolute():
        # A uid without a name, as containers have it; without a home python-gitlab cannot even be imported.
        os.environ["HOME"] = "/nonexistent"
    try:
        _main(sys.argv[1:] if arguments is None else arguments)
    finally:
        _forget_unread()


def _main(arguments: list[str]) -> None:
    if completions.VARIABLE in os.environ:
        completions.register()
    try:
        code: Any = cli.main(args=arguments, prog_name="nixprov", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except NixprovError as error:
        _failed(str(error), debug="--debug" in arguments)
        sys.exit(exit_status(error))
    except (click.Abort, KeyboardInterrupt):
        _failed("interrupted", debug=False)
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:  # noqa: BLE001 - the last line of defence is the only one
        if isinstance(error, OSError) and error.errno in _FULL:
            _failed(f"what was to be written is cut short: {error.strerror}", debug="--debug" in arguments)
            sys.exit(EXIT_CUT_SHORT)
        _failed(f"bug in nixprov: {type(error).__name__}: please report it with --debug", debug="--debug" in arguments)
        sys.exit(EXIT_BUG)
    sys.exit(code if isinstance(code, int) else 0)


def _open_streams() -> None:
    """A closed stream (`<&-`) becomes empty: no question is asked there, and no file or socket gets its number."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115, PTH123 - as long as we run


@contextmanager
def _guarded_streams() -> Iterator[None]:
    """No foreign text steers the terminal, whether this program, a library or a traceback prints it."""
    streams = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (cast("TextIO", Guard(stream)) for stream in streams)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams


def _forget_unread() -> None:
    """Unread output is dropped. Python would try to write it again, complain, and end with its own code (120)."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _failed(text: str, *, debug: bool) -> None:
    if debug:
        click.echo(told(traceback.format_exc()), err=True, nl=False)
    click.echo(f"nixprov: {clean(text)}", err=True)
