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


def activity(kind: int, name: bytes) -> bytes:
    fields = number(3) + number(1) + text(name) + number(1) + text(b"") + number(0) + number(1)
    return (
        number(tally.STDERR_START_ACTIVITY) + number(1) + number(3) + number(kind) + text(b"told") + fields + number(0)
    )


def result(line: bytes) -> bytes:
    return number(tally.STDERR_RESULT) + number(1) + number(101) + number(1) + number(1) + text(line)


def log(*messages: bytes) -> bytes:
    return b"".join(messages) + number(tally.STDERR_STOP_ACTIVITY) + number(1) + LAST


BUILD = log(number(tally.STDERR_NEXT) + text(b"hello"), activity(tally.ACT_BUILD, DRV), result(b"line"))


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
            {tally.QUERY_OUTPUTS: self.outputs, tally.QUERY_PATH_INFO: self.info}[peer.number()](peer.text())

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


def asked(*names: bytes) -> bytes:
    return number(len(names)) + b"".join(map(text, names)) + number(0)


def heard(*replies: bytes, step: int = 1 << 16) -> Tally:
    """A tally that has read these replies, each to a request of its own, in pieces."""
    counted = Tally()
    for reply in replies:
        counted.forwarded()
        for at in range(0, len(reply), step):
            counted.replies(reply[at : at + step], counted.is_fresh())
    return counted


@pytest.mark.parametrize("step", [1, 7, 8, 1 << 16])
def test_what_the_daemon_built_is_counted_with_its_size(daemon: str, step: int) -> None:
    assert heard(BUILD + number(1), step=step).settle(daemon) == (1, 0, 120)


def test_a_build_that_left_nothing_is_none(daemon: str) -> None:
    # Only one of its two outputs is there.
    assert heard(log(activity(tally.ACT_BUILD, OTHER))).settle(daemon) == (0, 0, 0)


def test_what_was_asked_for_and_there_is_found(daemon: str) -> None:
    counted = heard(LAST + number(1))
    counted.asks(tally.BUILD_PATHS, asked(DRV + b"!out", OTHER + b"!out", OTHER + b"!dev", SOURCE, b"/nix/store/gone"))
    counted.asks(tally.ENSURE_PATH, text(b"/nix/store/never.drv!out"))
    assert counted.settle(daemon) == (0, 3, 0)


def test_what_was_built_or_fetched_for_it_was_not_there(daemon: str) -> None:
    counted = heard(BUILD, log(activity(tally.ACT_SUBSTITUTE, SOURCE)))
    counted.asks(tally.BUILD_PATHS_WITH_RESULTS, asked(DRV + b"!*", SOURCE))
    assert counted.settle(daemon) == (1, 0, 120)


def test_a_connection_that_asked_for_nothing_asks_nobody() -> None:
    assert heard(LAST + number(1)).settle("/no/such/socket") == (0, 0, 0)


def test_a_result_that_looks_like_a_log_is_a_result(daemon: str) -> None:
    """A job writes the archives that it reads: what is in them is no word of the daemon's."""
    counted = Tally()
    counted.forwarded()
    counted.replies(LAST, counted.is_fresh())
    counted.replies(BUILD, counted.is_fresh())
    assert counted.settle(daemon) == (0, 0, 0)


@pytest.mark.parametrize("reply", [number(7), number(tally.STDERR_NEXT) + number(2**60), b"\xff" * 64])
def test_a_stream_that_is_not_understood_counts_no_further(daemon: str, reply: bytes) -> None:
    counted = heard(BUILD, reply + BUILD)
    assert counted.settle(daemon) == (1, 0, 120)
    assert heard(reply, BUILD)._built == {DRV}


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        (asked(DRV, SOURCE), [DRV, SOURCE]),
        (asked(DRV, SOURCE)[:40], [DRV]),
        (number(2**64 - 1) + text(DRV), [DRV]),
        (number(1) + number(2**63), []),
        (b"", []),
    ],
)
def test_a_request_is_read_as_far_as_it_goes(fields: bytes, names: list[bytes]) -> None:
    assert list(tally.names_in(tally.BUILD_PATHS, fields)) == names


def test_a_connection_holds_no_more_than_so_many_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tally, "MAX_NAMES", 2)
    counted = heard(log(*(activity(tally.ACT_BUILD, b"/nix/store/%d.drv" % n) for n in range(9))))
    counted.asks(tally.BUILD_PATHS, asked(*(b"/nix/store/%d" % n for n in range(9))))
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
        assert counters.introduce("a" * 64) is None


def test_a_receiver_that_does_not_listen_holds_nobody_up(tmp_path: Path) -> None:
    with receiver(tmp_path / "counters"), sender(tmp_path / "counters") as counters:
        pipes = []
        while (pipe := counters.introduce("a" * 64)) is not None:
            pipes.append(pipe)
            assert len(pipes) < 5000
        for pipe in pipes:
            os.close(pipe)


@pytest.mark.parametrize(
    ("peer", "container"),
    [
        (f"0::/machine.slice/libpod-{'a' * 64}.scope/container\n", "a" * 64),
        # A group that a job makes below its own.
        (f"0::/machine.slice/libpod-{'a' * 64}.scope/libpod-{'b' * 64}.scope\n", "a" * 64),
        (f"1:pids:/libpod_parent/libpod-{'c' * 64}\n0::/libpod-{'c' * 64}\n", "c" * 64),
        (f"0::/system.slice/docker-{'d' * 64}.scope\n", "d" * 64),
        (f"0::/docker/{'d' * 64}/libpod-{'b' * 64}\n", "d" * 64),
        ("0::/system.slice/ssh.service\n", None),
        (None, None),
    ],
)
def test_the_container_is_the_outermost_of_the_clients_groups(peer: str | None, container: str | None) -> None:
    assert filter_.container_of(peer) == container
