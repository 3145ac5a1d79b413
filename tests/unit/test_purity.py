"""The guard of conftest.py: a unit test that starts a program or reaches for the network fails."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable

import pytest


def connects() -> None:
    with socket.socket() as client:
        client.connect(("127.0.0.1", 9))


def serves() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))


@pytest.mark.parametrize(
    ("act", "event"),
    [
        (lambda: subprocess.run(["true"], check=False), "subprocess.Popen"),
        (lambda: os.system("true"), "os.system"),  # noqa: S605
        (os.fork, "os.fork"),
        (lambda: socket.getaddrinfo("localhost", 9), "socket.getaddrinfo"),
        (connects, "socket.connect"),
        (serves, "socket.bind"),
    ],
)
def test_a_test_that_is_not_pure_is_told_where_it_belongs(act: Callable[[], object], event: str) -> None:
    with pytest.raises(pytest.fail.Exception, match=f"{event}: this is no unit test: move it to tests/cli"):
        act()


def test_a_socket_of_this_machine_is_pure() -> None:
    one, other = socket.socketpair()
    with one, other, socket.socket(socket.AF_UNIX) as client:
        assert client.connect_ex("/nowhere") != 0
