"""How a login that is not root becomes root: one value per method, no I/O.

Every elevated command line starts the same tiny shell, which prints a mark on stderr and becomes `sh -s`. The mark
proves that our next bytes reach a root shell. So sudo never reads a script with a token in it as a wrong password. A
host that asked for no password never runs one as a command.

The minimal rule on the host, for sudo:

    NAME ALL=(root) NOPASSWD: /run/current-system/sw/bin/sh

Nothing narrower is worth having: the script is free to do anything.

A new method is one class and one line in `_METHODS`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

from provisioner.errors import HostRefused
from provisioner.model import Become, Secret

MARK: Final = b"nixprov-is-root\n"
PROMPT: Final = b"nixprov-asks-for-the-password:"
ROOT: Final = "root"
ROOT_COMMAND: Final = "sh -s"

# The environment variable with the login's process, for a root shell that does not descend from it.
LOGIN: Final = "NIXPROV_LOGIN"

_SH: Final = "/run/current-system/sw/bin/sh"
# One quoted word without ! or \: bash, dash, fish, csh and zsh as login shells all read it the same.
_ROOT_SHELL: Final = f"sh -c {shlex.quote(f'echo {MARK.decode().strip()} >&2; exec {ROOT_COMMAND}')}"
_NOT_FOUND: Final = 127


class Elevator(Protocol):
    """One way to a root shell.

    `command` is the whole remote command line and never holds a secret. `password`, if any, is sent once PROMPT is seen
    on stderr. Without one the method must not read standard input before the shell does.
    """

    @property
    def command(self) -> str: ...
    @property
    def password(self) -> Secret | None: ...

    def refusal(self, user: str, status: int, stderr: str) -> tuple[str, str]:
        """Explain the missing root shell as (message, hint), from the status and stderr of the method."""
        ...


@dataclass(frozen=True, slots=True)
class Sudo:
    """sudo(8). -n never asks. -S reads the password from standard input, and no byte beyond its line."""

    password: Secret | None = None

    @property
    def command(self) -> str:
        how = f"-S -p {PROMPT.decode()}" if self.password else "-n"
        return f"sudo {how} -- {_ROOT_SHELL}"

    def refusal(self, user: str, status: int, stderr: str) -> tuple[str, str]:
        rule = f"allow it: {user} ALL=(root) NOPASSWD: {_SH}"
        if self.password and stderr.count(PROMPT.decode()) > 1:
            return f"sudo does not take {user}'s password", "check the become password of this host"
        if re.search(r"password is required|terminal is required|askpass", stderr):
            return f"sudo asks for {user}'s password", f"give the become password, or {rule}"
        if re.search(r"not in the sudoers|not allowed to (execute|run)|may not run sudo", stderr):
            return f"{user} may not become root with sudo", rule
        if "must have a tty" in stderr:
            return "sudo wants a terminal", "take requiretty out of sudoers"
        return _general("sudo", user, status, stderr, rule)


@dataclass(frozen=True, slots=True)
class Doas:
    """doas(1). It takes a password from a terminal only, so a host that wants one is refused."""

    command: ClassVar[str] = f"doas -n {_ROOT_SHELL}"
    password: ClassVar[Secret | None] = None

    def refusal(self, user: str, status: int, stderr: str) -> tuple[str, str]:
        rule = f"allow it in doas.conf: permit nopass {user} as root cmd sh"
        if re.search(
            r"Authorization required|Authentication (required|failed)|a tty is required", stderr, re.IGNORECASE
        ):
            return f"doas asks for {user}'s password, and takes it from a terminal only", rule
        if "Operation not permitted" in stderr:
            return f"{user} may not become root with doas", rule
        return _general("doas", user, status, stderr, rule)


# The root shell is a child of systemd there, so it gets the process of its login (machine/lock.py).
_RUN0: Final = (
    f"exec run0 --no-ask-password --pipe --setenv={LOGIN}=$PPID -- "
    f'sh -c "echo {MARK.decode().strip()} >&2; exec {ROOT_COMMAND}"'
)


@dataclass(frozen=True, slots=True)
class Run0:
    """run0(1), systemd 256 and later. polkit decides, and has nobody to ask here."""

    command: ClassVar[str] = f"sh -c {shlex.quote(_RUN0)}"
    password: ClassVar[Secret | None] = None

    def refusal(self, user: str, status: int, stderr: str) -> tuple[str, str]:
        rule = f"a polkit rule must give {user} org.freedesktop.systemd1.manage-units without a password"
        if re.search(r"Interactive authentication required|Access denied|not authorized", stderr, re.IGNORECASE):
            return f"run0 may not act for {user} without a password", rule
        return _general("run0", user, status, stderr, rule)


_METHODS: Final[Mapping[str, Callable[[Become], Elevator]]] = {
    "sudo": lambda become: Sudo(become.password),
    "doas": lambda _: Doas(),
    "run0": lambda _: Run0(),
}


def elevator(host: str, user: str, become: Become | None) -> Elevator | None:
    """Choose the way from `user` to root: none for root, sudo when the inventory names no method.

    Raises HostRefused for an unknown method, for a user other than root, and for a line break in the password.
    """
    if user == ROOT:
        return None
    become = become or Become()
    if become.user != ROOT:
        raise HostRefused(
            host, f"nixprov works as root, not as {become.user}", hint="take become_user out, or log in as root"
        )
    if become.method not in _METHODS:
        raise HostRefused(
            host, f"become method {become.method!r} is not known", hint=f"use one of {', '.join(_METHODS)}"
        )
    if become.password and re.search(r"[\r\n\0]", become.password.reveal()):
        raise HostRefused(host, "the become password holds a line break", hint="strip it where it is read")
    return _METHODS[become.method](become)


def _general(method: str, user: str, status: int, stderr: str, rule: str) -> tuple[str, str]:
    if status == _NOT_FOUND or re.search(
        rf"{method}.*(not found|no such file)|unknown command.*{method}", stderr, re.IGNORECASE
    ):
        return f"{method} is not there for {user}", "name another become method, or log in as root"
    return f"{method} gives {user} no root shell (status {status}): {_last_line(stderr)}", rule


def _last_line(stderr: str) -> str:
    lines = [line.strip() for line in stderr.replace(PROMPT.decode(), "").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
