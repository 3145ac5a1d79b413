"""The filter as a program: a process for each connection, and how many of them there may be."""

from __future__ import annotations

import select
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import filter as filter_
import pytest
from grammar import Limits

from tests.unit.ends import WAIT_S
from tests.unit.protocol import CLIENT_MAGIC, number

# A program has to start first.
START_S = WAIT_S + 5
# Hands a listening socket over, as systemd does.
ACTIVATE = """
import os, sys
given = int(sys.argv[1])
os.dup2(given, 3)
if given != 3:
    os.close(given)
os.environ["LISTEN_FDS"] = "1"
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


@dataclass
class Program:
    """The filter with its socket, and the socket of a daemon behind it."""

    path: Path
    daemon: socket.socket
    said: Path
    process: subprocess.Popen[bytes]
    held: ExitStack

    def connect(self) -> tuple[socket.socket, socket.socket] | None:
        """Both ends of a connection through it; None when it is ended at once."""
        client = self.held.enter_context(socket.socket(socket.AF_UNIX))
        client.settimeout(START_S)
        client.connect(str(self.path))
        readable, _, _ = select.select([client, self.daemon], [], [], START_S)
        assert readable, "neither here nor there"
        if client in readable:
            assert client.recv(1) == b""
            return None
        daemon = self.held.enter_context(self.daemon.accept()[0])
        daemon.settimeout(START_S)
        return client, daemon

    def opened(self) -> tuple[socket.socket, socket.socket]:
        """Tried again until the processes of those that have left are gone."""
        deadline = time.monotonic() + START_S
        while (ends := self.connect()) is None:
            assert time.monotonic() < deadline
        return ends

    @property
    def children(self) -> list[int]:
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def ended(self) -> str:
        """What it said until then."""
        self.process.kill()
        return self.said.read_text()


def sockets_of(pid: int) -> list[str]:
    found = []
    for handle in Path(f"/proc/{pid}/fd").iterdir():
        # It may be closed while it is looked at.
        with suppress(FileNotFoundError):
            found.append(str(handle.readlink()))
    return [handle for handle in found if handle.startswith("socket:")]


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    with ExitStack() as held:
        listener, daemon = (held.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2))
        for each, name in ((listener, "filter"), (daemon, "daemon")):
            each.bind(str(tmp_path / name))
            each.listen()
        argv = [sys.executable, "-c", ACTIVATE, str(listener.fileno()), str(filter_.__file__)]
        options = ["--daemon", str(tmp_path / "daemon"), "--per-job", "2"]
        said = held.enter_context((tmp_path / "said").open("w"))
        process = held.enter_context(subprocess.Popen([*argv, *options], stderr=said, pass_fds=[listener.fileno()]))
        held.callback(process.kill)
        yield Program(tmp_path / "filter", daemon, tmp_path / "said", process, held)


def test_what_a_client_says_comes_to_a_daemon_and_both_end_together(program: Program) -> None:
    client, daemon = program.opened()
    client.sendall(number(CLIENT_MAGIC))
    assert daemon.recv(8) == number(CLIENT_MAGIC)
    client.close()
    assert daemon.recv(1) == b""
    client, daemon = program.opened()
    daemon.close()
    assert client.recv(1) == b""
    assert program.ended() == ""


def test_who_has_his_share_is_sent_away_until_one_of_his_has_ended(program: Program) -> None:
    (first, _), _ = program.opened(), program.opened()
    assert program.connect() is None
    first.close()
    program.opened()
    said = program.ended().splitlines()
    assert said
    assert all(line.startswith("too many connections: 2 of ") for line in said)


def test_a_connections_process_cannot_take_others_and_the_first_process_holds_none(program: Program) -> None:
    program.opened()
    (child,) = program.children
    listening = str(Path(f"/proc/{program.process.pid}/fd/3").readlink())
    assert listening not in sockets_of(child)
    deadline = time.monotonic() + START_S
    # The one that it listens on, and the one for counters.
    while len(sockets_of(program.process.pid)) > 2:
        assert time.monotonic() < deadline
    assert listening in sockets_of(program.process.pid)


def admitted(order: Sequence[str | None], per_job: int, total: int, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many connections each container gets when they ask in this order and keep what they have."""
    listener, end = socket.socketpair()
    counters = filter_.Counters("")
    server = filter_.Server(listener, "/nowhere", Limits(1, 0, 0, 0), counters, per_job=per_job, total=total)
    asking = iter(order)
    pids = iter(range(1, len(order) + 1))
    monkeypatch.setattr(filter_, "container_of", lambda _: next(asking))
    monkeypatch.setattr("os.fork", lambda: next(pids))
    for _ in order:
        server._serve(end)
    for one in (listener, end, counters._socket):
        one.close()
    return Counter(str(container) for container in server._children.values())


def test_a_container_gets_no_more_connections_than_its_share(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert admitted(["a"] * 65, 64, 512, monkeypatch) == {"a": 64}
    assert capfd.readouterr().err == "too many connections: 64 of this container, 64 in all\n"
    assert admitted(["a"] * 3, 64, 2, monkeypatch) == {"a": 2}
    # Of the last quarter no more than of the rest.
    assert admitted([*"bbccddeeffgg", *"aaaaa"], 2, 16, monkeypatch)["a"] == 2


def test_those_that_nobody_knows_share_few(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """A process that has ended is in no group, so each of a job's would count for another one, or for none."""
    assert admitted([None] * 17, 64, 512, monkeypatch) == {"None": 16}
    assert capfd.readouterr().err == "too many connections: 16 of nobody known, 16 in all\n"
    assert admitted([None] * 100, 8, 512, monkeypatch) == {"None": 8}


def test_a_job_with_many_containers_leaves_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    services = [f"service{n}" for n in range(20) for _ in range(100)]
    got = admitted([*services, *(["other"] * 4)], 64, 512, monkeypatch)
    assert got["other"] == 4
    assert sum(got.values()) <= 512


def test_the_container_is_the_same_whatever_group_a_job_made_below(monkeypatch: pytest.MonkeyPatch) -> None:
    outer = "a" * 64
    groups = [f"0::/machine.slice/libpod-{outer}.scope/{n}\n" for n in range(100)]
    assert admitted([filter_.container_in(group) for group in groups], 64, 512, monkeypatch) == {outer: 64}
