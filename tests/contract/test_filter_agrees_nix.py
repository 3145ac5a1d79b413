"""The filter and real daemons agree: what a daemon says that it received is what the filter judged, whatever a job sends.

`make attacks` goes on for a minute (NIXPROV_FUZZ_S); tests/unit/test_filter_agrees.py has daemons that err where they like.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings

from tests.contract.nix_store import DAEMONS, TIMEOUT_S, Store, daemon_program, filtered_store
from tests.unit.driver import drive
from tests.unit.protocol import GREETING, PASSED, PATH, VALID_PATH, Request, by_name, frames, number, text
from tests.unit.sessions import BYPASSES, SESSIONS, SMUGGLED

FUZZ_S: Final = float(os.environ.get("NIXPROV_FUZZ_S", "0"))
needs_nix = pytest.mark.skipif(
    shutil.which("nix-daemon") is None or os.geteuid() != 0, reason="needs root and the package nix-bin"
)
pytestmark = [needs_nix, pytest.mark.timeout(900 + FUZZ_S)]


# Whose first good values are of a feature that is off, or of a derivation that is not there.
DOUBTED: Final = ("QueryRealisation", "BuildDerivation")


class Daemon:
    """A real one that trusts nobody, and its log."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._log = store.root / "log-of-daemon"

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(self._store.root / "daemon"))
        return connection

    def received(self, parts: Sequence[bytes]) -> tuple[list[int], list[int]]:
        """(received by the daemon, judged by the filter) of one session."""
        start = self._log.stat().st_size
        judged = drive(parts, self.connect())
        return self.requests(start), judged

    def requests(self, start: int) -> list[int]:
        """Those of the connection whose log begins at `start`."""
        deadline = time.monotonic() + TIMEOUT_S
        children = Path(f"/proc/{self._store.daemon_pid}/task/{self._store.daemon_pid}/children")
        while True:
            # Some values make the process of a connection end itself, without its last line.
            is_served = bool(children.read_text()) or b"accepted" not in self._log.read_bytes()[start:]
            said = self._log.read_bytes()[start:].decode(errors="replace")
            if not is_served or re.search(r"^\d+ operations$", said, re.MULTILINE):
                return [int(code) for code in re.findall(r"^received daemon op (\d+)$", said, re.MULTILINE)]
            assert time.monotonic() < deadline, f"the daemon did not end the connection:\n{said[-2000:]}"
            time.sleep(0.002)

    def size_of_log(self) -> int:
        return self._log.stat().st_size


@pytest.fixture(scope="module", params=DAEMONS)
def daemon(request: pytest.FixtureRequest) -> Iterator[Daemon]:
    program = [*daemon_program(request.param), "--debug", "--option", "trusted-users", ""]
    with filtered_store(program, apart=True) as store:
        yield Daemon(store)


def test_a_daemon_receives_what_was_judged(daemon: Daemon) -> None:
    @settings(max_examples=50, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(SESSIONS)
    def agree(parts: list[bytes]) -> None:
        received, judged = daemon.received(parts)
        # A daemon ends a connection at a value of a feature that is off, and does not receive what was judged after that.
        assert received == judged[: len(received)]
        reached.append(len(received))

    reached: list[int] = []
    until = time.monotonic() + FUZZ_S
    agree()
    while time.monotonic() < until:
        agree()
    assert sum(reached) > len(reached), "hardly a session got further than its first request"


@pytest.mark.parametrize("request_", PASSED, ids=by_name)
def test_a_daemon_reads_each_request_to_its_end(daemon: Daemon, request_: Request) -> None:
    last = number(VALID_PATH) + text(PATH)
    for at, (sent, _) in enumerate(request_.good()):
        contents = request_.contents.good[-1 - at % 4][0] if request_.contents else b""
        received, judged = daemon.received([sent + (frames(contents) if request_.contents else b""), last])
        assert received == judged[: len(received)]
        assert received[0] == request_.code
        assert at or request_.name in DOUBTED or received == judged


@pytest.mark.parametrize("way", BYPASSES)
def test_a_known_way_around_is_closed(daemon: Daemon, way: str) -> None:
    received, judged = daemon.received([BYPASSES[way]])
    assert SMUGGLED not in received
    assert received == judged[: len(received)]


@pytest.mark.parametrize("daemon", DAEMONS[1:], indirect=True)
@pytest.mark.parametrize("way", list(BYPASSES)[:4])
def test_a_known_way_around_is_one_without_the_filter(daemon: Daemon, way: str) -> None:
    start = daemon.size_of_log()
    with daemon.connect() as alone:
        alone.sendall(GREETING + BYPASSES[way] + number(0) * 8)
        alone.shutdown(socket.SHUT_WR)
        while alone.recv(1 << 16):
            pass
    assert SMUGGLED in daemon.requests(start)
