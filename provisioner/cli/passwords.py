"""Passwords that people type or keep in files: asked once, held as secrets, never an option's value."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from provisioner import limits
from provisioner.errors import ConfigError
from provisioner.model import Secret
from provisioner.paths import expanded, read


def become_password(*, ask: bool, file: str | None) -> Secret | None:
    """From the terminal or a file's first line; None when neither is wanted. Raises ConfigError, click.UsageError."""
    if ask and file:
        raise click.UsageError("--ask-become-pass and --become-password-file both give the password: leave one out")
    if file:
        return _from_file(expanded(file))
    if not ask:
        return None
    if not sys.stdin.isatty():
        raise click.UsageError("no terminal to ask for a password: use --become-password-file")
    return Secret(click.prompt("Password for sudo on the hosts", hide_input=True, err=True))


def _from_file(file: Path) -> Secret:
    try:
        lines = read(file, limits.SECRET).decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"the become password cannot be read from {file}: {why}") from error
    if not lines or not lines[0]:
        raise ConfigError(f"the become password file {file} is empty")
    return Secret(lines[0])
