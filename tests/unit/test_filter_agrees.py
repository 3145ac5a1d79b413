"""The filter and the daemon agree: no daemon, wherever it errs, performs a request that the filter did not judge."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.driver import drive
from tests.unit.ends import WAIT_S
from tests.unit.model_daemon import FRAMED, ModelDaemon
from tests.unit.protocol import GREETING, PASSED, PATH, VALID_PATH, number, text
from tests.unit.sessions import BYPASSES, SESSIONS, SMUGGLED

PLACES = ("", "", "", "early", "before", "unread", "within", "after")


def agree(parts: Sequence[bytes], errs: Callable[[int], str] = lambda _: "") -> list[int]:
    """What the daemon performed, after it was held against what the filter judged."""
    ours, theirs = socket.socketpair()
    daemon = ModelDaemon(theirs, errs)
    thread = threading.Thread(target=daemon.run, daemon=True)
    thread.start()
    judged = drive(parts, ours)
    thread.join(WAIT_S)
    assert not thread.is_alive()
    # The last one may have been refused before any of it was sent.
    assert daemon.performed in (judged, judged[:-1])
    return daemon.performed


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(SESSIONS, st.lists(st.sampled_from(PLACES), min_size=6, max_size=6))
def test_no_daemon_performs_what_was_not_judged(parts: list[bytes], places: list[str]) -> None:
    left = iter(places)
    agree(parts, lambda _: next(left, ""))


@pytest.mark.parametrize("way", BYPASSES)
def test_a_known_way_around_is_closed(way: str) -> None:
    assert SMUGGLED not in agree([BYPASSES[way], number(VALID_PATH) + text(PATH)])


@pytest.mark.parametrize("way", BYPASSES)
def test_a_known_way_around_is_one_for_a_daemon_alone(way: str) -> None:
    """What the first four do to the real daemon too; the others are a daemon's that errs in one more place."""
    ours, theirs = socket.socketpair()
    place = "early" if "realisation" in way else "unread" if "AddToStoreNar" in way else ""
    daemon = ModelDaemon(theirs, lambda _: place)
    thread = threading.Thread(target=daemon.run, daemon=True)
    thread.start()
    ours.sendall(GREETING + BYPASSES[way] + number(0) * 8)
    ours.shutdown(socket.SHUT_WR)
    thread.join(WAIT_S)
    ours.close()
    assert (SMUGGLED in daemon.performed) is ("too long" in way or "method" in way)


@pytest.mark.parametrize("size", [1, 2, 3, 14, 47, 4095, 70_000])
@pytest.mark.parametrize("place", ["before", "unread", "within", "after"])
def test_contents_are_no_requests_wherever_the_daemon_errs(size: int, place: str) -> None:
    """Each byte of them, and each length before them, is what a job may choose."""
    contents = (number(SMUGGLED) * (size // 8 + 1))[:size]
    head = next(request for request in PASSED if request.code == FRAMED[0]).head
    parts = [head + number(size) + contents + number(0), number(VALID_PATH) + text(PATH)]
    assert agree(parts, lambda code: place if code in FRAMED else "") == [FRAMED[0]]
