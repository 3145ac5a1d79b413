"""Unit tests are pure: during each of them, starting a program or reaching for the network fails the test."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from typing import Final

import pytest

# Audit events of CPython, https://docs.python.org/3/library/audit_events.html.
SPAWNS: Final = {"subprocess.Popen", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "pty.spawn"}
REACHES: Final = {"socket.bind", "socket.connect", "socket.getaddrinfo", "socket.sendto"}

_guards: list[bool] = []


def _no_unit_test(event: str, arguments: tuple[object, ...]) -> None:
    if not _guards or event not in SPAWNS | REACHES:
        return
    # Sockets with a path stay on this machine, and cost next to nothing.
    if event in REACHES and isinstance(arguments[0], socket.socket) and arguments[0].family == socket.AF_UNIX:
        return
    pytest.fail(f"{event}: this is no unit test: move it to tests/cli or tests/contract")


# A hook stays for the life of the process, and asks itself whether a test runs.
sys.addaudithook(_no_unit_test)


@pytest.fixture(autouse=True)
def _is_pure() -> Iterator[None]:
    _guards.append(True)
    yield
    _guards.pop()
