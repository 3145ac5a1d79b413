"""The seam's exception map: the meaning for a host of exceptions of paramiko, fabric, invoke and the socket layer.

Keyed by name, so that reading this imports none of them. A test walks the three libraries and fails when one of them
has an exception that is not listed here.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum, auto
from typing import Final

from provisioner.errors import ConnectionLost, HostError, HostKeyError, HostRefused, NixprovError, Unreachable


class Kind(Enum):
    """The meaning of a foreign exception. NEVER: of a part that is not used; mapped all the same."""

    UNREACHABLE = auto()
    HOST_KEY = auto()
    REFUSED = auto()
    BROKEN = auto()
    NEVER = auto()


KINDS: Final[Mapping[str, Kind]] = {
    "paramiko.ssh_exception.SSHException": Kind.UNREACHABLE,
    "paramiko.ssh_exception.NoValidConnectionsError": Kind.UNREACHABLE,
    "paramiko.ssh_exception.IncompatiblePeer": Kind.REFUSED,
    "paramiko.ssh_exception.MessageOrderError": Kind.REFUSED,
    "paramiko.ssh_exception.ProxyCommandFailure": Kind.UNREACHABLE,
    "paramiko.ssh_exception.ChannelException": Kind.UNREACHABLE,
    "paramiko.ssh_exception.BadHostKeyException": Kind.HOST_KEY,
    "paramiko.hostkeys.InvalidHostKey": Kind.HOST_KEY,
    "paramiko.ssh_exception.AuthenticationException": Kind.REFUSED,
    "paramiko.ssh_exception.BadAuthenticationType": Kind.REFUSED,
    "paramiko.ssh_exception.PartialAuthentication": Kind.REFUSED,
    "paramiko.ssh_exception.PasswordRequiredException": Kind.REFUSED,
    "paramiko.ssh_exception.UnableToAuthenticate": Kind.REFUSED,
    "paramiko.auth_strategy.AuthFailure": Kind.REFUSED,
    "paramiko.pkey.UnknownKeyType": Kind.REFUSED,
    "paramiko.ssh_exception.CouldNotCanonicalize": Kind.UNREACHABLE,
    "paramiko.ssh_exception.ConfigParseError": Kind.UNREACHABLE,
    "paramiko.buffered_pipe.PipeTimeout": Kind.BROKEN,
    "paramiko.packet.NeedRekeyException": Kind.BROKEN,
    "paramiko.ber.BERException": Kind.BROKEN,
    "paramiko.sftp.SFTPError": Kind.NEVER,
    "fabric.exceptions.NothingToDo": Kind.NEVER,
    "fabric.exceptions.GroupException": Kind.NEVER,
    "fabric.exceptions.InvalidV1Env": Kind.NEVER,
    "invoke.config.AmbiguousMergeError": Kind.NEVER,
    "invoke.exceptions.CollectionNotFound": Kind.NEVER,
    "invoke.exceptions.Failure": Kind.NEVER,
    "invoke.exceptions.UnexpectedExit": Kind.NEVER,
    "invoke.exceptions.CommandTimedOut": Kind.NEVER,
    "invoke.exceptions.AuthFailure": Kind.NEVER,
    "invoke.exceptions.ParseError": Kind.NEVER,
    "invoke.exceptions.Exit": Kind.NEVER,
    "invoke.exceptions.PlatformError": Kind.NEVER,
    "invoke.exceptions.AmbiguousEnvVar": Kind.NEVER,
    "invoke.exceptions.UncastableEnvVar": Kind.NEVER,
    "invoke.exceptions.UnknownFileType": Kind.NEVER,
    "invoke.exceptions.UnpicklableConfigMember": Kind.NEVER,
    "invoke.exceptions.ThreadException": Kind.NEVER,
    "invoke.exceptions.WatcherError": Kind.NEVER,
    "invoke.exceptions.ResponseNotAccepted": Kind.NEVER,
    "invoke.exceptions.SubprocessPipeError": Kind.NEVER,
}

_PLAIN: Final[Mapping[int, str]] = {
    errno.ECONNREFUSED: "the connection is refused",
    errno.ECONNRESET: "the connection is reset",
    errno.EHOSTUNREACH: "there is no route to it",
    errno.ENETUNREACH: "there is no route to it",
    errno.ETIMEDOUT: "the connection timed out",
}


_NO_BANNER: Final = "Error reading SSH protocol banner"


class Cancelled(HostError):
    """The operator interrupted and the command was let go. Its processes on the host may still run."""


@contextmanager
def opening(host: str, where: str) -> Iterator[None]:
    """Raise any exception from inside as Unreachable, HostKeyError or HostRefused, with its cause.

    `where` names the machine for people: `root@10.0.0.1`.
    """
    try:
        yield
    except NixprovError:
        raise
    except Exception as error:
        # paramiko re-raises any exception of its reader in our thread, ValueError and struct.error included.
        raise _when_opening(host, where, error) from error


@contextmanager
def running(host: str) -> Iterator[None]:
    """Raise any exception from inside as ConnectionLost, with its cause."""
    try:
        yield
    except NixprovError:
        raise
    except Exception as error:
        raise ConnectionLost(host, f"the connection was lost: {describe(error)}") from error


def kind_of(error: BaseException) -> Kind | None:
    """The kind of the nearest class of `error` in the map; None if none of them is the libraries'."""
    names = (f"{cls.__module__}.{cls.__qualname__}" for cls in type(error).__mro__)
    return next((KINDS[name] for name in names if name in KINDS), None)


def is_worth_retrying(error: Unreachable) -> bool:
    """Whether the next attempt may succeed: yes for silence and refusal, no for names and broken set-ups."""
    cause = error.__cause__
    if isinstance(error, HostKeyError) or cause is None:
        return False
    if isinstance(cause, socket.gaierror):
        return cause.errno == socket.EAI_AGAIN
    if isinstance(cause, OSError | EOFError):
        return not isinstance(cause, FileNotFoundError | PermissionError)
    return kind_of(cause) is Kind.UNREACHABLE


def describe(error: BaseException) -> str:
    """One line in lower case for people, without the libraries' quirks."""
    if isinstance(error, socket.gaierror):
        return "its name is not known" if error.errno != socket.EAI_AGAIN else "its name cannot be looked up just now"
    if isinstance(error, TimeoutError):
        return "the connection timed out"
    if isinstance(error, EOFError):
        return "it closed the connection"
    if isinstance(error, OSError) and error.errno is not None:
        return _PLAIN.get(error.errno, os.strerror(error.errno).lower())
    text = " ".join(str(getattr(error, "text", error)).split()).rstrip(".")
    if text.startswith(_NO_BANNER):
        return "it does not answer as an ssh server"
    return text[:1].lower() + text[1:] if kind_of(error) else f"{type(error).__name__}: {text}"


def _when_opening(host: str, where: str, error: Exception) -> HostError:
    match kind_of(error):
        case Kind.REFUSED:
            return HostRefused(host, f"{where}: {describe(error)}", hint="see OpenSSH's output: ssh -v")
        case Kind.HOST_KEY:
            return HostKeyError(host, f"{where}: {describe(error)}", hint="see known_hosts")
        case _:
            return Unreachable(host, f"{where} cannot be reached: {describe(error)}", hint=_hint(error))


def _hint(error: Exception) -> str:
    if isinstance(error, socket.gaierror):
        return "check ansible_host, or the alias in ssh_config"
    if isinstance(error, ConnectionRefusedError):
        return "is sshd running, and on this port?"
    if isinstance(error, EOFError) or str(error).startswith(_NO_BANNER):
        # sshd_config(5): it hangs up before its banner.
        return "is this sshd's port? after failed logins or many at once sshd puts an address off for a while"
    return "check address, port, network and firewall"
