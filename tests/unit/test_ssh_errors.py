from __future__ import annotations

import importlib
import inspect
import pkgutil
import socket
from types import ModuleType

import fabric
import invoke
import paramiko
import pytest

from provisioner.errors import ConnectionLost, HostError, HostKeyError, HostRefused, Unreachable
from provisioner.ssh.errors import KINDS, Kind, is_worth_retrying, kind_of, opening, running

# Vendored copies and front ends that are never imported by the seam.
SKIPPED = ("invoke.vendor", "fabric.testing", "fabric.__main__", "invoke.__main__", "paramiko.win_", "paramiko._winapi")


def modules(package: ModuleType) -> list[ModuleType]:
    names = [info.name for info in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
    return [package, *(importlib.import_module(name) for name in names if not name.startswith(SKIPPED))]


def exceptions() -> list[type[Exception]]:
    """Every exception class that one of the three libraries defines itself."""
    classes = {
        cls
        for package in (paramiko, fabric, invoke)
        for module in modules(package)
        for _, cls in inspect.getmembers(module, inspect.isclass)
        if issubclass(cls, Exception) and cls.__module__ == module.__name__
    }
    return sorted(classes, key=lambda cls: f"{cls.__module__}.{cls.__qualname__}")


@pytest.mark.parametrize("cls", exceptions(), ids=lambda cls: f"{cls.__module__}.{cls.__qualname__}")
def test_every_exception_of_the_libraries_is_in_the_map(cls: type[Exception]) -> None:
    name = f"{cls.__module__}.{cls.__qualname__}"
    assert name in KINDS, f'say in ssh.errors.KINDS what it means: "{name}": Kind...'


def test_the_map_names_only_what_exists() -> None:
    assert set(KINDS) == {f"{cls.__module__}.{cls.__qualname__}" for cls in exceptions()}


@pytest.mark.parametrize(
    "error",
    [
        paramiko.SSHException("x"),
        OSError(5, "x"),
        EOFError(),
        ValueError("x"),
        UnicodeDecodeError("utf-8", b"x", 0, 1, "x"),
    ],
    ids=repr,
)
def test_nothing_foreign_comes_out(error: Exception) -> None:
    with pytest.raises(HostError) as opened, opening("h", "root@h"):
        raise error
    assert isinstance(opened.value, Unreachable)
    assert opened.value.__cause__ is error
    with pytest.raises(ConnectionLost), running("h"):
        raise error


def test_our_own_errors_pass_as_they_are() -> None:
    ours = HostRefused("h", "no")
    for seam in (opening("h", "root@h"), running("h")):
        with pytest.raises(HostRefused) as caught, seam:
            raise ours
        assert caught.value is ours


def test_an_interrupt_is_not_caught() -> None:
    with pytest.raises(KeyboardInterrupt), opening("h", "root@h"):
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("error", "cls", "text"),
    [
        (ConnectionRefusedError(111, "x"), Unreachable, "root@h cannot be reached: the connection is refused"),
        (TimeoutError(), Unreachable, "the connection timed out"),
        (OSError(113, "x"), Unreachable, "there is no route to it"),
        (socket.gaierror(socket.EAI_NONAME, "x"), Unreachable, "its name is not known"),
        (EOFError(), Unreachable, "it closed the connection"),
        (paramiko.SSHException("Error reading SSH protocol banner[Errno 104]"), Unreachable, "answer as an ssh server"),
        (paramiko.ssh_exception.IncompatiblePeer("no kex"), HostRefused, "no kex"),
        (paramiko.AuthenticationException("Authentication timeout."), HostRefused, "authentication timeout"),
        (paramiko.ChannelException(2, "Connect failed"), Unreachable, "connect failed"),
        (paramiko.hostkeys.InvalidHostKey("line", ValueError("x")), HostKeyError, "root@h"),
        (RuntimeError("a\nb"), Unreachable, "RuntimeError: a b"),
    ],
    ids=repr,
)
def test_each_error_has_its_class_and_words(error: Exception, cls: type[HostError], text: str) -> None:
    with pytest.raises(HostError) as caught, opening("h", "root@h"):
        raise error
    assert type(caught.value) is cls
    assert text in caught.value.message
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [EOFError(), paramiko.SSHException("Error reading SSH protocol banner")], ids=repr)
def test_a_server_that_hangs_up_at_once_may_be_putting_us_off(error: Exception) -> None:
    with pytest.raises(Unreachable) as caught, opening("h", "root@h"):
        raise error
    assert "sshd puts an address off for a while" in caught.value.hint


@pytest.mark.parametrize(
    ("cause", "again"),
    [
        (ConnectionRefusedError(111, "x"), True),
        (ConnectionResetError(104, "x"), True),
        (TimeoutError(), True),
        (EOFError(), True),
        (paramiko.SSHException("Error reading SSH protocol banner"), True),
        (socket.gaierror(socket.EAI_AGAIN, "x"), True),
        (socket.gaierror(socket.EAI_NONAME, "x"), False),
        (FileNotFoundError(2, "x"), False),
        (ValueError("x"), False),
        (None, False),
    ],
    ids=repr,
)
def test_only_what_may_end_otherwise_is_tried_again(cause: Exception | None, again: bool) -> None:
    error = Unreachable("h", "x")
    error.__cause__ = cause
    assert is_worth_retrying(error) is again
    changed = HostKeyError("h", "x")
    changed.__cause__ = cause
    assert not is_worth_retrying(changed)


def test_a_subclass_that_is_not_listed_means_what_its_parent_means() -> None:
    class New(paramiko.AuthenticationException):
        pass

    assert kind_of(New()) is Kind.REFUSED
    assert kind_of(ValueError()) is None
