"""The program in front of the jobs' Nix daemon: a process for each connection, with a network of its own or none at all."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.contract.conftest import listens

PROGRAM = Path(__file__).parents[2] / "templates" / "core" / "daemon.py"
TIMEOUT_S = 30

# Hands a listening socket to a program as systemd does, in a network namespace of its own where `--net` is said.
ACTIVATE = """
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(20)
os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
os.environ["LISTEN_FDS"] = "1"
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
# Says what it was given, and then what it is told.
ECHO = """
import os, sys
handed = [name for name in os.environ if name.startswith("LISTEN")]
print(os.getpid(), handed, len(os.listdir("/proc/self/fd")), os.readlink("/proc/self/ns/net"), flush=True)
for line in sys.stdin:
    print("echo", line, end="", flush=True)
"""


@contextmanager
def serving(
    path: Path, *options: str, prefix: tuple[str, ...] = (), command: str = ECHO
) -> Iterator[Callable[[], socket.socket]]:
    """A function that connects to the program, which runs `command`, Python, for each connection."""
    argv = [
        *prefix,
        sys.executable,
        "-c",
        ACTIVATE,
        str(path),
        str(PROGRAM),
        *options,
        "--",
        sys.executable,
        "-c",
        command,
    ]

    def connect() -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(TIMEOUT_S)
        client.connect(str(path))
        return client

    with subprocess.Popen(argv, stderr=subprocess.PIPE) as program:
        try:
            while not listens(path):
                assert program.poll() is None, program.communicate()
            yield connect
        finally:
            program.kill()


def ask(client: socket.socket, line: str = "hello") -> tuple[list[str], str]:
    """The first line that the connection's process says, in words, and its answer."""
    with client, client.makefile("rw") as stream:
        first = stream.readline().split()
        stream.write(f"{line}\n")
        stream.flush()
        return first, stream.readline()


def test_each_connection_has_a_process_that_knows_nothing_of_the_socket(tmp_path: Path) -> None:
    with serving(tmp_path / "socket") as connect:
        one, other = connect(), connect()
        (first, answer), (second, _) = ask(one), ask(other)
    assert answer == "echo hello\n"
    assert first[0] != second[0]
    # Its own three descriptors, and the one that looks.
    assert first[2] == "4"


def test_a_connection_that_gets_no_network_is_ended_and_the_next_one_has_its_turn(tmp_path: Path) -> None:
    broken = tmp_path / "ip"
    broken.write_text("#!/bin/sh\necho no such device >&2\nexit 2\n")
    broken.chmod(0o755)
    with serving(tmp_path / "socket", "--ip", str(broken)) as connect:
        for _ in range(2):
            with connect() as client:
                assert client.recv(100) == b""


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and iproute2")
def test_two_connections_are_in_two_networks_and_neither_is_the_programs(tmp_path: Path) -> None:
    ip = shutil.which("ip") or ""
    with serving(tmp_path / "socket", "--ip", ip, prefix=("unshare", "--net")) as connect:
        spaces = {ask(connect())[0][-1] for _ in range(2)}
    assert len(spaces - {str(Path("/proc/self/ns/net").readlink())}) == 2
