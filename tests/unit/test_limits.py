"""What a host or a program may say: bounded, and read in time that grows with its size, not with its square."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self, cast

import pytest

from provisioner import limits
from provisioner.engine.switch import Follower
from provisioner.engine.visit import told
from provisioner.errors import ConfigError, InventoryError, RemoteFailed
from provisioner.events import Logged
from provisioner.limits import TooLongError
from provisioner.machine import preview
from provisioner.masking import masked
from provisioner.model import Secret
from provisioner.paths import read
from provisioner.selection import Selection, read_inventory
from provisioner.ssh.elevate import MARK, PROMPT, Sudo
from provisioner.ssh.exec import BEGUN, Order, _Exchange, _Feeder
from provisioner.ssh.stream import Lines, Prelude
from tests.unit.engine_fakes import stage
from tests.unit.hosts import converged

PIECE = 4096


class Counted(bytearray):
    """A buffer that counts the bytes that are put into it and looked at."""

    touched = 0

    def __iadd__(self, data: Any) -> Self:  # type: ignore[misc]
        self.touched += len(data)
        super().__iadd__(data)
        return self

    def find(self, sub: Any, start: Any = 0, end: Any = None) -> int:
        self.touched += len(self) - start
        return super().find(sub, start, end)

    def count(self, sub: Any, start: Any = 0, end: Any = None) -> int:
        self.touched += len(self) - start
        return super().count(sub, start, end)


@pytest.mark.parametrize("pieces", [1000, 4000])
def test_each_byte_before_the_mark_is_looked_at_once(pieces: int) -> None:
    prelude = Prelude(MARK, Counted())
    for _ in range(pieces):
        assert prelude.feed(b"x" * 100) is None
        assert prelude.fresh(PROMPT) == 0
    said = cast("Counted", prelude.said)
    # Put in, looked at twice, and the overlap of each piece with the one before it.
    assert said.touched <= pieces * (3 * 100 + len(MARK) + len(PROMPT))


@pytest.mark.parametrize("cut", range(1, len(MARK)))
def test_a_mark_is_found_wherever_it_is_cut(cut: int) -> None:
    prelude = Prelude(MARK)
    assert prelude.feed(b"hello\n" + MARK[:cut]) is None
    assert prelude.feed(MARK[cut:] + b"rest") == b"rest"
    assert prelude.text() == "hello\n"


@pytest.mark.parametrize("cut", range(1, len(PROMPT)))
def test_a_prompt_is_counted_once_wherever_it_is_cut(cut: int) -> None:
    prelude = Prelude(MARK)
    counts = []
    for piece in (b"lecture " + PROMPT[:cut], PROMPT[cut:], b"Sorry\n", PROMPT):
        prelude.feed(piece)
        counts.append(prelude.fresh(PROMPT))
    assert counts == [0, 1, 0, 1]


def test_a_line_without_end_comes_in_pieces_and_is_kept_nowhere() -> None:
    told: list[tuple[str, bool]] = []
    lines, most = Lines(limit=1000), 0
    for _ in range(5000):
        told += lines.feed(b"x" * 10)
        most = max(most, lines._size)
    told += lines.feed(b"\nnext\n")
    assert most <= 1000 + 10
    assert "".join(text for text, _ in told[:-1]) == "x" * 50_000
    assert [goes_on for _, goes_on in told] == [False, *[True] * (len(told) - 2), False]
    assert told[-1] == ("next", False)


def test_a_log_line_that_is_cut_says_nothing_of_how_the_switch_ended() -> None:
    """A build writes such a line: its second piece begins where it likes."""
    facts, journal = converged()
    scene = stage(facts, journal)
    follower = Follower(scene.host.context)
    follower(b"log " + b"x" * (limits.HOST_LINE - 3))
    follower(b"end waits activate 0 9\n")
    assert follower.result is None
    follower.release()
    assert scene.texts(Logged)[-1] == "end waits activate 0 9"
    follower(b"end exited build 1 4\n")
    assert follower.result is not None
    assert follower.result.phase == "build"


def test_lines_whose_cursor_never_comes_are_not_kept_for_ever() -> None:
    scene = stage(*converged())
    follower = Follower(scene.host.context)
    for _ in range(40):
        follower(b"log " + b"x" * 60_000 + b"\n")
    assert follower._size <= limits.HELD_LOG
    assert len(scene.texts(Logged)) >= 20


class Channel:
    """A channel whose host sends as told and never ends; `read` is how much of it was taken."""

    exit_status = -1
    closed = eof_received = False

    def __init__(self, stdout: Iterator[bytes], stderr: Iterable[bytes] = ()) -> None:
        self._stdout, self._stderr, self._next = stdout, iter(stderr), {"out": b"", "err": b""}
        self.read = 0
        self.sent = b""
        self._pipe = os.pipe()
        os.write(self._pipe[1], b"x")

    def fileno(self) -> int:
        return self._pipe[0]

    def _ready(self, name: str, source: Iterator[bytes]) -> bool:
        self._next[name] = self._next[name] or next(source, b"")
        return bool(self._next[name])

    def recv_ready(self) -> bool:
        return self._ready("out", self._stdout)

    def recv_stderr_ready(self) -> bool:
        return self._ready("err", self._stderr)

    def recv(self, _size: int) -> bytes:
        return self._take("out")

    def recv_stderr(self, _size: int) -> bytes:
        return self._take("err")

    def _take(self, name: str) -> bytes:
        data, self._next[name] = self._next[name], b""
        self.read += len(data)
        return data

    def exit_status_ready(self) -> bool:
        return False

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def exec_command(self, _command: str) -> None: ...

    def send(self, data: bytes) -> int:
        return len(data)

    def shutdown_write(self) -> None: ...

    def close(self) -> None:
        for end in self._pipe:
            os.close(end)


def for_ever(*first: bytes) -> Iterator[bytes]:
    yield from first
    while True:
        yield b"x" * PIECE


def exchange(channel: Channel, *, keep: bool = True, timeout_s: float = 3600, sudo: bool = False) -> None:
    elevator = Sudo(Secret("pw")) if sudo else None
    order = Order("host1", "u", elevator, b":", timeout_s, keep=keep)
    made = _Exchange(order, cast("Any", channel), _Feeder(cast("Any", channel), order), cast("Any", None), not sudo)
    try:
        made.run()
    finally:
        made.close()


@pytest.mark.parametrize(
    ("channel", "sudo", "limit", "words"),
    [
        (lambda: Channel(for_ever()), False, "HOST_GREETING", "before the script began"),
        (lambda: Channel(for_ever(BEGUN)), False, "HOST_ANSWER", "in answer to one command"),
        (lambda: Channel(iter([BEGUN]), for_ever()), False, "HOST_ANSWER", "in answer to one command"),
        (lambda: Channel(iter(()), for_ever()), True, "HOST_ELEVATION", "on the way to root"),
        (lambda: Channel(for_ever(), iter([PROMPT])), True, "HOST_GREETING", "before the script began"),
    ],
    ids=["before", "stdout", "stderr", "sudo", "greeting"],
)
def test_a_host_that_floods_ends_with_one_line(
    channel: Callable[[], Channel], sudo: bool, limit: str, words: str
) -> None:
    flood, bound = channel(), getattr(limits, limit)
    with pytest.raises(RemoteFailed) as ended:
        exchange(flood, sudo=sudo)
    assert ended.value.host == "host1"
    assert ended.value.message == f"it sent more than {limits.told(bound)} {words}"
    assert ended.value.hint
    assert bound < flood.read <= bound + 2 * PIECE + len(BEGUN)


def test_a_log_that_only_passes_may_be_longer_and_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HOST_ANSWER", 1 * limits.MIB)
    monkeypatch.setattr(limits, "HOST_LOG", 32 * limits.MIB)
    tracemalloc.start()
    try:
        with pytest.raises(RemoteFailed, match="more than 32 MiB"):
            exchange(Channel(for_ever(BEGUN)), keep=False)
        assert tracemalloc.get_traced_memory()[1] < 2 * limits.MIB
    finally:
        tracemalloc.stop()


def test_a_host_that_never_stops_sending_is_held_by_the_clock() -> None:
    with pytest.raises(RemoteFailed, match="did not end within 0 s"):
        exchange(Channel(for_ever(BEGUN)), timeout_s=0)


def test_a_file_that_does_not_end_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "INVENTORY", limits.MIB)
    with pytest.raises(InventoryError, match="cannot be read: longer than 1 MiB"):
        read_inventory(Selection(("/dev/zero",)))
    with pytest.raises(TooLongError):
        read(Path("/dev/zero"), 9)


def test_a_password_file_that_does_not_end_is_one_line() -> None:
    from provisioner.cli.passwords import become_password

    with pytest.raises(ConfigError, match="longer than 64 KiB"):
        become_password(ask=False, file="/dev/zero")


MANY = 100_000


@pytest.mark.parametrize(
    "text", ["token" * MANY, "a.b." * MANY, '"token' * MANY, "token " * MANY, "token" + " " * MANY]
)
def test_masking_takes_no_square_of_the_length(text: str) -> None:
    """Otherwise this would take an hour, and a host's file could have them."""
    assert masked(text) == text


@pytest.mark.parametrize("said", ["\n" * MANY, "will be built (" * MANY, "would restart the following units: " * MANY])
def test_reading_what_a_preview_says_takes_no_square_of_the_length(said: str) -> None:
    preview._to_do(said)
    preview.complaint(said)
    preview.unit_changes(said)


def test_what_went_wrong_is_a_line_that_is_read() -> None:
    said = told(RemoteFailed("host1", "it said " + "x" * 10_000_000))
    assert len(said) == limits.ERROR + len("...")
