"""The program between jobs and daemon: what it passes on is byte for byte, and what it refuses never arrives."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import filter as filter_
import grammar
import pytest
from tally import Tally
from wire import Hangup, Peer

CLIENT_MAGIC = 0x6E697863
DAEMON_MAGIC = 0x6478696F
LAST = 0x616C7473
ERROR = 0x63787470
VALID_PATH = 1
SET_OPTIONS = 19


def number(value: int) -> bytes:
    return struct.pack("<Q", value)


def text(value: str) -> bytes:
    data = value.encode()
    return number(len(data)) + data + b"\0" * (-len(data) % 8)


def texts(*values: str) -> bytes:
    return number(len(values)) + b"".join(map(text, values))


def frames(*values: bytes) -> bytes:
    return b"".join(number(len(value)) + value for value in values) + number(0)


# What each kind of field may look like on the wire; the second ones are the awkward ones.
SAMPLES: dict[grammar.Field, tuple[bytes, bytes]] = {
    grammar.a_number: (number(7), number(2**64 - 1)),
    grammar.no_repair: (number(0), number(0)),
    grammar.a_mode: (number(0), number(2)),
    grammar.a_text: (text("/nix/store/x"), text("")),
    grammar.texts: (texts("a", "12345678", "ninecharsx"), texts()),
    grammar.pairs: (number(2) + text("k") + text("v") + text("l") + text(""), number(0)),
    grammar.outputs: (number(1) + text("out") + text("/nix/store/y") + text("") + text(""), number(0)),
    grammar.frames: (frames(b"x" * 200_000, b"odd"), frames()),
}


@dataclass
class Ends:
    """The client's and the daemon's side of one session of the filter."""

    client: socket.socket
    daemon: socket.socket

    def told(self, size: int) -> bytes:
        return _exactly(self.daemon, size)

    def heard(self, size: int) -> bytes:
        return _exactly(self.client, size)

    def greet(self, client: int = 0x126, daemon: int = 0x126) -> tuple[int, int]:
        """The versions that the client and the daemon see."""
        self.client.sendall(number(CLIENT_MAGIC))
        assert self.told(8) == number(CLIENT_MAGIC)
        self.daemon.sendall(number(DAEMON_MAGIC) + number(daemon))
        assert self.heard(8) == number(DAEMON_MAGIC)
        (seen,) = struct.unpack("<Q", self.heard(8))
        self.client.sendall(number(client) + number(0) + number(0))
        (shown,) = struct.unpack("<Q", self.told(8))
        assert self.told(16) == number(0) * 2
        return seen, shown


def _exactly(end: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = end.recv(size - len(data))
        assert piece, f"ended after {data!r}"
        data += piece
    return data


@pytest.fixture
def ends() -> Iterator[Ends]:
    client, filters_client = socket.socketpair()
    daemon, filters_daemon = socket.socketpair()
    limits = filter_.Limits(max_jobs=2, cores=0, timeout=100, max_silent=50)

    def run() -> None:
        peers = Peer(filters_client), Peer(filters_daemon)
        try:
            filter_.Session(*peers, limits, Tally()).run()
        except (Hangup, OSError):
            # As the end of its process does.
            for peer in peers:
                peer.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    for end in (client, daemon):
        end.settimeout(10)
    yield Ends(client, daemon)
    for end in (client, daemon):
        end.close()
    thread.join(10)
    assert not thread.is_alive()
    filters_client.close()
    filters_daemon.close()


def is_alive(ends: Ends) -> None:
    """The connection still works: a question and its answer."""
    ends.client.sendall(number(VALID_PATH) + text("/nix/store/z"))
    assert ends.told(8 + len(text("/nix/store/z"))) == number(VALID_PATH) + text("/nix/store/z")
    ends.daemon.sendall(number(LAST) + number(1))
    assert ends.heard(16) == number(LAST) + number(1)


@pytest.mark.parametrize("version", [0x120, 0x123, 0x125, 0x126, 0x1FF])
def test_both_sides_are_held_at_a_protocol_it_knows(ends: Ends, version: int) -> None:
    newest = min(version, 0x125)
    assert ends.greet(client=version, daemon=version) == (newest, newest)


@pytest.mark.parametrize("version", [0x11F, 0x225, 0x025])
def test_a_protocol_it_does_not_know_ends_the_connection(ends: Ends, version: int) -> None:
    ends.client.sendall(number(CLIENT_MAGIC))
    ends.told(8)
    ends.daemon.sendall(number(DAEMON_MAGIC) + number(version))
    assert ends.client.recv(8) == b""


@pytest.mark.parametrize("code", sorted(grammar.ALLOWED), ids=lambda code: grammar.ALLOWED[code][0])
@pytest.mark.parametrize("sample", [0, 1])
def test_what_building_needs_passes_byte_for_byte(ends: Ends, code: int, sample: int) -> None:
    ends.greet()
    request = number(code) + b"".join(SAMPLES[field][sample] for field in grammar.ALLOWED[code][1])
    sender = threading.Thread(target=ends.client.sendall, args=(request,))
    sender.start()
    assert ends.told(len(request)) == request
    sender.join()
    is_alive(ends)


REPAIRS: dict[grammar.Field, bytes] = {grammar.no_repair: number(1), grammar.a_mode: number(1)}
CAN_REPAIR = sorted(code for code, (_, fields) in grammar.ALLOWED.items() if REPAIRS.keys() & set(fields))


def test_every_request_that_writes_could_repair() -> None:
    names = {grammar.ALLOWED[code][0] for code in CAN_REPAIR}
    assert {name for _, (name, _) in grammar.ALLOWED.items() if name.startswith(("Add", "Build"))} - names == {
        "AddTempRoot"
    }


@pytest.mark.parametrize("code", CAN_REPAIR, ids=lambda code: grammar.ALLOWED[code][0])
def test_no_request_repairs(ends: Ends, code: int) -> None:
    ends.greet()
    fields = grammar.ALLOWED[code][1]
    asked = number(code) + b"".join(REPAIRS.get(field, SAMPLES[field][1]) for field in fields)
    ends.client.sendall(asked)
    passed = number(code) + b"".join(number(0) if field in REPAIRS else SAMPLES[field][1] for field in fields)
    assert ends.told(len(passed)) == passed
    is_alive(ends)


@pytest.mark.parametrize("code", sorted(grammar.REFUSED), ids=lambda code: grammar.REFUSED[code][0])
def test_what_it_refuses_never_arrives_and_the_client_hears_why(ends: Ends, code: int) -> None:
    ends.greet()
    name, fields = grammar.REFUSED[code]
    request = number(code) + b"".join(SAMPLES[field][0] for field in fields)
    threading.Thread(target=ends.client.sendall, args=(request,)).start()
    assert ends.heard(8) == number(ERROR)
    message = f"{name} is refused to jobs on this host (nixprov)"
    expected = text("Error") + number(0) + text("Error") + text(message) + number(0) * 2
    assert ends.heard(len(expected)) == expected
    is_alive(ends)


@pytest.mark.parametrize("code", [0, 2, 5, 8, 16, 27, 48, 2**63])
def test_what_it_does_not_know_ends_the_connection(ends: Ends, code: int) -> None:
    ends.greet()
    ends.client.sendall(number(code) + number(1) * 8)
    assert ends.heard(8) == number(ERROR)
    with pytest.raises((AssertionError, ConnectionError)):
        ends.told(8)


@pytest.mark.parametrize("code", sorted(grammar.PRETENDED), ids=lambda code: grammar.PRETENDED[code][0])
def test_roots_in_containers_are_taken_and_forgotten(ends: Ends, code: int) -> None:
    ends.greet()
    ends.client.sendall(number(code) + b"".join(SAMPLES[field][0] for field in grammar.PRETENDED[code][1]))
    assert ends.heard(16) == number(LAST) + number(1)
    is_alive(ends)


def set_options(max_jobs: int, silent: int, **overrides: str) -> bytes:
    values = [1, 1, 0, 3, max_jobs, silent, 1, 0, 0, 0, 0, 1]
    pairs = b"".join(text(name.replace("_", "-")) + text(value) for name, value in overrides.items())
    return number(SET_OPTIONS) + b"".join(map(number, values)) + number(len(overrides)) + pairs


def test_limits_are_capped_and_other_settings_dropped(ends: Ends) -> None:
    ends.greet()
    ends.client.sendall(
        set_options(99, 0, sandbox="false", timeout="0", max_silent_time="7", post_build_hook="/x", connect_timeout="3")
    )
    values = [0, 1, 0, 3, 2, 50, 1, 0, 0, 0, 0, 1]
    kept = text("timeout") + text("100") + text("max-silent-time") + text("7") + text("connect-timeout") + text("3")
    expected = number(SET_OPTIONS) + b"".join(map(number, values)) + number(3) + kept
    assert ends.told(len(expected)) == expected
    is_alive(ends)


@pytest.mark.parametrize(
    ("asked", "got"), [("99999999999999999999999", "100"), ("-1", "100"), ("ten", "100"), ("20", "20")]
)
def test_a_time_that_is_no_number_is_the_limit(ends: Ends, asked: str, got: str) -> None:
    ends.greet()
    ends.client.sendall(set_options(1, 1, timeout=asked))
    head = len(set_options(1, 1))
    ends.told(head)
    assert ends.told(len(text("timeout") + text(got))) == text("timeout") + text(got)


def test_fewer_jobs_than_allowed_stay_fewer(ends: Ends) -> None:
    ends.greet()
    ends.client.sendall(set_options(0, 20))
    told = struct.unpack("<13Q", ends.told(13 * 8))
    assert (told[5], told[6]) == (0, 20)


def test_a_setting_of_a_gigabyte_ends_the_connection(ends: Ends) -> None:
    ends.greet()
    ends.client.sendall(number(SET_OPTIONS) + number(0) * 12 + number(1) + number(2**30))
    with pytest.raises((AssertionError, ConnectionError)):
        ends.told(8)


def test_many_settings_of_a_megabyte_end_the_connection(ends: Ends) -> None:
    ends.greet()
    big = text("substituters") + text("x" * 600_000)
    request = number(SET_OPTIONS) + number(0) * 12 + number(2) + big * 2

    def send() -> None:
        with contextlib.suppress(OSError):
            ends.client.sendall(request)

    sender = threading.Thread(target=send)
    sender.start()
    with pytest.raises((AssertionError, ConnectionError)):
        ends.told(8)
    sender.join()


def admitted(order: Sequence[str], per_job: int, total: int, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many connections each container gets when they ask in this order and keep what they have."""
    listener, end = socket.socketpair()
    limits, counters = filter_.Limits(1, 0, 0, 0), filter_.Counters("")
    server = filter_.Server(listener, "/nowhere", limits, counters, per_job=per_job, total=total)
    asking = iter(order)
    pids = iter(range(1, len(order) + 1))
    monkeypatch.setattr(filter_, "peer_of", lambda _: next(asking))
    monkeypatch.setattr(filter_, "say", lambda _: None)
    monkeypatch.setattr("os.fork", lambda: next(pids))
    for _ in order:
        server._serve(end)
    for one in (listener, end, counters._socket):
        one.close()
    return Counter(str(peer) for peer in server._children.values())


def test_a_container_gets_no_more_connections_than_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    assert admitted(["a"] * 100, 64, 512, monkeypatch) == {"a": 64}
    assert admitted(["a"] * 3, 64, 2, monkeypatch) == {"a": 2}


def test_a_job_with_many_containers_leaves_room_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    services = [f"service{n}" for n in range(20) for _ in range(100)]
    got = admitted([*services, *(["other"] * 4)], 64, 512, monkeypatch)
    assert got["other"] == 4
    assert sum(got.values()) <= 512


def test_a_client_that_goes_takes_its_connection_along(ends: Ends) -> None:
    ends.greet()
    ends.client.sendall(number(9) + number(3) + text("half"))
    ends.client.shutdown(socket.SHUT_RDWR)
    assert ends.told(8 + 8 + len(text("half"))) == number(9) + number(3) + text("half")
    assert ends.daemon.recv(8) == b""
