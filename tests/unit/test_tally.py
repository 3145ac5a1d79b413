"""What is counted of one connection: by the daemon's word and by the requests that passed, and never at their cost."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filter as filter_
import pytest
import tally
from tally import Tally
from wire import CLIENT_MAGIC, DAEMON_MAGIC, STDERR_ERROR, STDERR_LAST, Hangup, Peer, number, text

DRV = b"/nix/store/d-x.drv"
OTHER = b"/nix/store/e-y.drv"
OUT = b"/nix/store/o-x"
SOURCE = b"/nix/store/s-source"
LAST = number(STDERR_LAST)
SIZES = {OUT: 120, SOURCE: 7, b"/nix/store/o-y": 1000}
OUTPUTS = {DRV: {b"out": OUT}, OTHER: {b"out": b"/nix/store/o-y", b"dev": b"/nix/store/o-y-dev"}}


class Daemon:
    """Answers what the store has, as src/libstore/daemon.cc does at protocol 1.37."""

    def __init__(self, connection: socket.socket) -> None:
        self.peer = Peer(connection)

    def run(self) -> None:
        peer = self.peer
        assert peer.number() == CLIENT_MAGIC
        peer.send(number(DAEMON_MAGIC) + number(0x126))
        assert peer.number() == 0x125
        peer.exactly(16)
        peer.send(text(b"2.26.3") + number(2) + LAST)
        while True:
            {tally.QUERY_OUTPUTS: self.outputs, tally.QUERY_PATH_INFO: self.info}[peer.number()](peer.text(4095))

    def outputs(self, drv: bytes) -> None:
        if drv not in OUTPUTS:
            error = text(b"Error") + number(0) + text(b"Error") + text(b"no") + number(0) + number(1) + number(0)
            self.peer.send(number(STDERR_ERROR) + error + text(b"trace"))
            return
        pairs = b"".join(text(name) + text(path) for name, path in OUTPUTS[drv].items())
        self.peer.send(LAST + number(len(OUTPUTS[drv])) + pairs)

    def info(self, path: bytes) -> None:
        known = text(DRV) + text(b"hash") + number(1) + text(SOURCE) + number(5) + number(SIZES.get(path, 0))
        rest = number(1) + number(1) + text(b"signature") + text(b"")
        self.peer.send(LAST + (number(1) + known + rest if path in SIZES else number(0)))


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[str]:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "d"))
    listener.listen()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, pytest.raises(Hangup):
            Daemon(connection).run()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield str(tmp_path / "d")
    with socket.socket(socket.AF_UNIX) as nobody:
        nobody.connect(str(tmp_path / "d"))
    thread.join(10)
    listener.close()


def began(kind: int, *names: bytes) -> Tally:
    """A tally that has heard of an activity for each name."""
    counted = Tally()
    for name in names:
        counted.began(kind, [name, b"", 1, 1])
    return counted


def test_what_the_daemon_built_is_counted_with_its_size(daemon: str) -> None:
    assert began(tally.ACT_BUILD, DRV).settle(daemon) == (1, 0, 120)


def test_a_build_that_left_nothing_is_none(daemon: str) -> None:
    # Only one of its two outputs is there.
    assert began(tally.ACT_BUILD, OTHER).settle(daemon) == (0, 0, 0)


def test_what_was_asked_for_and_there_is_found(daemon: str) -> None:
    counted = Tally()
    for name in (
        DRV + b"!out",
        OTHER + b"!out",
        OTHER + b"!dev",
        SOURCE,
        b"/nix/store/gone",
        b"/nix/store/never.drv!out",
    ):
        counted.asks(name)
    assert counted.settle(daemon) == (0, 3, 0)


def test_what_was_built_or_fetched_for_it_was_not_there(daemon: str) -> None:
    counted = began(tally.ACT_BUILD, DRV)
    counted.began(tally.ACT_SUBSTITUTE, [SOURCE])
    counted.asks(DRV + b"!*")
    counted.asks(SOURCE)
    assert counted.settle(daemon) == (1, 0, 120)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (([DRV], []), b'{"built": 1, "found": 0, "bytes": 120}'),
        (([], [SOURCE]), b'{"built": 0, "found": 1, "bytes": 0}'),
        (([], [b"/nix/store/gone"]), b""),
    ],
)
def test_what_was_counted_is_told_where_there_is_something(
    daemon: str, names: tuple[list[bytes], list[bytes]], said: bytes
) -> None:
    built, asked = names
    counted = began(tally.ACT_BUILD, *built)
    for name in asked:
        counted.asks(name)
    reader, writer = os.pipe()
    filter_.report(counted, daemon, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as told:
        assert told.read() == said


def test_a_connection_that_asked_for_nothing_asks_nobody() -> None:
    assert Tally().settle("/no/such/socket") == (0, 0, 0)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [(7, [DRV]), (None, [DRV]), (tally.ACT_BUILD, []), (tally.ACT_BUILD, [None]), (tally.ACT_BUILD, [7]), (105, None)],
)
def test_an_activity_of_another_kind_counts_for_nothing(kind: object, fields: object) -> None:
    counted = Tally()
    counted.began(kind, fields)
    assert counted.settle("/no/such/socket") == (0, 0, 0)


def test_a_connection_holds_no_more_than_so_many_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "MAX_NAMES", 2)
    counted = began(tally.ACT_BUILD, *(b"/nix/store/%d.drv" % n for n in range(9)))
    for n in range(9):
        counted.asks(b"/nix/store/%d" % n)
    assert (len(counted._built), len(counted._asked)) == (2, 2)


@contextmanager
def receiver(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.settimeout(5)
        yield listener


@contextmanager
def sender(path: Path | str) -> Iterator[filter_.Counters]:
    counters = filter_.Counters(str(path))
    with counters._socket:
        yield counters


def test_the_pipe_is_introduced_with_the_container_and_the_child_only_has_the_pipe(tmp_path: Path) -> None:
    container = "a" * 64
    with receiver(tmp_path / "counters") as listener, sender(tmp_path / "counters") as counters:
        pipe = counters.introduce(container)
        assert pipe is not None
        data, fds, _, _ = socket.recv_fds(listener, 100, 1)
        os.write(pipe, b"numbers")
        os.close(pipe)
        with os.fdopen(fds[0], "rb") as reader:
            assert (data, reader.read()) == (container.encode(), b"numbers")


@pytest.mark.parametrize("path", ["", "/no/such/socket"])
def test_without_a_receiver_nothing_is_counted_and_nothing_fails(path: str) -> None:
    with sender(path) as counters:
        handles = len(list(Path("/proc/self/fd").iterdir()))
        assert counters.introduce("a" * 64) is None
        assert counters.introduce(None) is None
        assert len(list(Path("/proc/self/fd").iterdir())) == handles


def test_a_receiver_that_does_not_listen_holds_nobody_up(tmp_path: Path) -> None:
    with receiver(tmp_path / "counters"), sender(tmp_path / "counters") as counters:
        pipes = []
        while (pipe := counters.introduce("a" * 64)) is not None:
            pipes.append(pipe)
            assert len(pipes) < 5000
        for pipe in pipes:
            os.close(pipe)


@pytest.mark.parametrize(
    ("groups", "container"),
    [
        (f"0::/machine.slice/libpod-{'a' * 64}.scope/container\n", "a" * 64),
        # A group that a job makes below its own.
        (f"0::/machine.slice/libpod-{'a' * 64}.scope/libpod-{'b' * 64}.scope\n", "a" * 64),
        (f"1:pids:/libpod_parent/libpod-{'c' * 64}\n0::/libpod-{'c' * 64}\n", "c" * 64),
        (f"0::/system.slice/docker-{'d' * 64}.scope\n", "d" * 64),
        (f"0::/docker/{'d' * 64}/libpod-{'b' * 64}\n", "d" * 64),
        ("0::/system.slice/ssh.service\n", None),
        (f"0::/machine.slice/libpod-{'a' * 63}\n", None),
        (f"0::/machine.slice/libpod-{'g' * 64}\n", None),
        (f"0::/docker_{'d' * 64}\n", None),
        ("", None),
    ],
)
def test_the_container_is_the_outermost_of_the_clients_groups(groups: str, container: str | None) -> None:
    assert filter_.container_in(groups) == container
