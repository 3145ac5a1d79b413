"""The program between jobs and daemon: it passes on what it has judged, as it writes it, and nothing else arrives."""

from __future__ import annotations

import socket
import struct
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from grammar import Limits, operations
from tally import Tally
from wire import Framer

from tests.unit.ends import NEWEST, Ends, ends_of
from tests.unit.protocol import (
    ADD_MULTIPLE,
    ADD_NAR,
    ADD_TO_STORE,
    ARCHIVES,
    BUILD,
    BUILT,
    CLIENT_MAGIC,
    CUT_ARCHIVES,
    DAEMON_MAGIC,
    DIRTY,
    DRV,
    ERROR,
    LAST,
    NAR_FROM_PATH,
    NEXT,
    ONE,
    OPTIONS,
    PASSED,
    PATH,
    PRETENDED,
    QUERY_REALISATION,
    REFUSED,
    RESULT,
    SET_OPTIONS,
    START,
    STOP,
    UNKNOWN,
    VALID_PATH,
    Request,
    by_name,
    entries_of,
    file,
    frames,
    nar,
    node,
    number,
    sequence,
    text,
    texts,
)

ERR = number(ERROR) + text("Error") + number(0) + text("Error") + text("no") + number(0) * 2
FRAMED = tuple(request for request in PASSED if request.contents)
BY_CODE = {request.code: request for request in PASSED}


@pytest.fixture
def ends() -> Iterator[Ends]:
    with ends_of() as both:
        yield both


# --- greeting


@pytest.mark.parametrize("version", [0x120, 0x121, 0x123, 0x125, 0x126, 0x1FF])
def test_both_sides_are_held_at_a_protocol_it_knows(ends: Ends, version: int) -> None:
    newest = min(version, NEWEST)
    assert ends.greet(client=version, daemon=version) == (newest, newest)
    assert ends.is_alive()


@pytest.mark.parametrize(("client", "daemon"), [(0x120, 0x125), (0x125, 0x120)])
def test_the_older_side_says_which_protocol_it_is(ends: Ends, client: int, daemon: int) -> None:
    assert ends.greet(client, daemon) == (daemon, 0x120)
    assert ends.is_alive()


@pytest.mark.parametrize("version", [0x11F, 0x225, 0x025])
def test_a_protocol_it_does_not_know_ends_the_connection(ends: Ends, version: int) -> None:
    ends.say(number(CLIENT_MAGIC))
    ends.told(8)
    ends.answer(number(DAEMON_MAGIC) + number(version))
    assert ends.client_hears_the_end()


def test_a_client_of_an_older_protocol_ends_the_connection(ends: Ends) -> None:
    ends.say(number(CLIENT_MAGIC))
    ends.told(8)
    ends.answer(number(DAEMON_MAGIC) + number(NEWEST))
    ends.heard(16)
    ends.say(number(0x11F) + number(0) * 2)
    assert ends.daemon_hears_the_end() == b""


def test_what_is_no_client_ends_the_connection(ends: Ends) -> None:
    ends.say(b"GET / HT")
    assert ends.daemon_hears_the_end() == b""


def test_a_processor_to_run_on_is_nobodys_business(ends: Ends) -> None:
    ends.say(number(CLIENT_MAGIC))
    ends.told(8)
    ends.answer(number(DAEMON_MAGIC) + number(NEWEST))
    ends.heard(16)
    ends.say(number(NEWEST) + number(1) + number(3) + number(1))
    assert ends.told(24) == number(NEWEST) + number(0) * 2
    said = text("2.26.3") + number(2) + number(LAST)
    ends.answer(said)
    assert ends.heard(len(said)) == said
    assert ends.is_alive()


# --- requests


def test_this_description_has_every_request() -> None:
    described = {request.code for request in (*PASSED, *REFUSED, *PRETENDED)} | {SET_OPTIONS}
    assert described == set(operations(b"/nix/store", 37, Limits(0, 0, 0, 0)))


@pytest.mark.parametrize("request_", PASSED, ids=by_name)
def test_what_building_needs_passes_as_it_is_meant(ends: Ends, request_: Request) -> None:
    ends.greet()
    ending = frames(request_.contents.good[0][0]) if request_.contents else b""
    reframed = reframe(request_.contents.good[0][1]) if request_.contents else b""
    for sent, had in request_.good():
        ends.say(sent + ending)
        assert ends.told(len(had + reframed)) == had + reframed
        ends.answer(number(LAST) + request_.reply)
        assert ends.heard(8 + len(request_.reply)) == number(LAST) + request_.reply
    assert ends.is_alive()


@pytest.mark.parametrize("request_", PASSED, ids=by_name)
def test_a_value_out_of_bounds_ends_the_connection(request_: Request) -> None:
    for sent in request_.bad():
        with ends_of() as ends:
            ends.greet()
            ends.say(sent)
            assert ends.is_refused(), sent


@pytest.mark.parametrize("request_", REFUSED, ids=by_name)
def test_what_is_refused_never_arrives_and_the_client_hears_why(
    ends: Ends, request_: Request, capfd: pytest.CaptureFixture[str]
) -> None:
    ends.greet()
    for sent, _ in request_.good():
        ends.say(sent + (frames(b"x" * 100_000, b"y") if request_.contents else b""))
        assert ends.hears_error() == f"{request_.name} is refused to jobs on this host (nixprov)"
        assert capfd.readouterr().err == f"refused {request_.name}\n"
    assert ends.is_alive()


@pytest.mark.parametrize("request_", [*REFUSED, *PRETENDED], ids=by_name)
def test_a_value_out_of_bounds_in_what_never_arrives_ends_the_connection(request_: Request) -> None:
    for sent in request_.bad():
        with ends_of() as ends:
            ends.greet()
            ends.say(sent)
            assert request_.name not in ends.is_refused(), sent


@pytest.mark.parametrize("request_", PRETENDED, ids=by_name)
def test_roots_in_containers_are_taken_and_forgotten(ends: Ends, request_: Request) -> None:
    ends.greet()
    for sent, _ in request_.good():
        ends.say(sent)
        assert ends.heard(16) == number(LAST) + number(1)
    assert ends.is_alive()


@pytest.mark.parametrize("code", UNKNOWN)
def test_what_it_does_not_know_ends_the_connection(ends: Ends, code: int) -> None:
    ends.greet()
    ends.say(number(code) + number(1) * 8)
    assert str(code) in ends.is_refused() or code >= 2**32


@pytest.mark.parametrize("request_", [request for request in PASSED if request.fields], ids=by_name)
def test_nothing_of_a_next_request_passes_before_the_answer(ends: Ends, request_: Request) -> None:
    """A job may send the next one at once: in a reply that it wrote itself it could have a log that is none."""
    ends.greet()
    _, had = next(iter(request_.good()))
    whole = request_.head + (frames(request_.contents.good[0][0]) if request_.contents else b"")
    passed = had + (reframe(request_.contents.good[0][1]) if request_.contents else b"")
    ends.say(whole + number(VALID_PATH) + text(PATH))
    assert ends.told(len(passed)) == passed
    ends.daemon.settimeout(0.02)
    with pytest.raises(TimeoutError):
        ends.told(1)
    ends.daemon.settimeout(20)
    ends.answer(number(LAST) + request_.reply)
    assert ends.told(len(number(VALID_PATH) + text(PATH))) == number(VALID_PATH) + text(PATH)


# --- contents in frames


def reframe(contents: bytes) -> bytes:
    """As the filter has them: frames of 64 KiB, and a first one whose length is no request's."""
    if 2 < len(contents) < 4096:
        return frames(contents[:2], contents[2:])
    return frames(*(contents[at : at + 65536] for at in range(0, len(contents), 65536)))


@pytest.mark.parametrize("size", [0, 1, 2, 3, 9, 47, 1001, 4095, 4096, 65535, 65536, 65537, 131_072, 300_000])
@pytest.mark.parametrize("piece", [1 << 20, 7001])
def test_frames_are_its_own(ends: Ends, size: int, piece: int) -> None:
    contents = bytes(number % 251 for number in range(size))
    ends.greet()
    ends.say(flat() + frames(*(contents[at : at + piece] for at in range(0, size, piece))))
    ends.told(len(flat()))
    assert ends.told(len(reframe(contents))) == reframe(contents)


def flat() -> bytes:
    return number(ADD_TO_STORE) + text("x") + text("fixed:sha256") + texts() + number(0)


def test_no_frame_is_taken_for_a_request() -> None:
    """A daemon that errs before the first frame reads its length next; then only numbers of no request may stand there."""
    known = set(operations(b"/nix/store", 37, Limits(0, 0, 0, 0)))
    for size in [*range(5000), *range(65_000, 66_000)]:
        if size == 1:
            continue
        sent: list[bytes] = []
        framer = Framer(sent.append)
        framer.raw(bytes(size))
        framer.end()
        assert b"".join(sent) == reframe(bytes(size))
        (first,) = struct.unpack("<Q", sent[0][:8])
        assert first not in known
        assert first < 3 or first >= 4096


@pytest.mark.parametrize("request_", FRAMED, ids=by_name)
def test_contents_pass_as_they_are(ends: Ends, request_: Request) -> None:
    ends.greet()
    _, had = next(iter(request_.good()))
    assert request_.contents
    for sent, passed in request_.contents.good:
        ends.say(request_.head + frames(*(sent[at : at + 7001] for at in range(0, len(sent), 7001))))
        assert ends.told(len(had)) == had
        assert ends.told(len(reframe(passed))) == reframe(passed)
        ends.answer(number(LAST) + request_.reply)
        ends.heard(8 + len(request_.reply))
    assert ends.is_alive()


def unfinished(contents: bytes) -> bytes:
    """A frame of which more is to come: what is wrong in it is refused for itself, and not for its end."""
    return number(len(contents) + 8) + contents


WRAPPED = pytest.mark.parametrize("wrapped", [frames, unfinished])


@WRAPPED
@pytest.mark.parametrize(
    "request_", [request for request in FRAMED if request.contents and request.contents.bad], ids=by_name
)
def test_contents_out_of_bounds_end_the_connection(request_: Request, wrapped: Callable[[bytes], bytes]) -> None:
    assert request_.contents
    for sent in request_.contents.bad:
        with ends_of() as ends:
            ends.greet()
            ends.say(request_.head + wrapped(sent))
            ends.hears_error()
            assert ends.daemon_hears_the_end() == next(iter(request_.good()))[1], sent


@pytest.mark.parametrize("contents", [nar(file()) + b"\0", nar(file()) * 2])
def test_archives_that_end_too_late_end_the_connection(ends: Ends, contents: bytes) -> None:
    ends.greet()
    ends.say(BY_CODE[ADD_NAR].head + frames(contents))
    assert "where they should" in ends.hears_error()


def test_a_long_request_passes_in_pieces(ends: Ends) -> None:
    """So that nothing is held of it that a client may make as long as it likes."""
    ends.greet()
    begun = number(BY_CODE[9].code) + number(10_000) + text(PATH) * 2000
    ends.say(begun)
    assert ends.told(1 << 16) == begun[: 1 << 16]


@pytest.mark.parametrize("contents", CUT_ARCHIVES)
def test_archives_that_end_too_early_end_the_connection(ends: Ends, contents: bytes) -> None:
    ends.greet()
    ends.say(BY_CODE[ADD_NAR].head + frames(contents))
    assert "too early" in ends.hears_error()
    assert ends.daemon_hears_the_end() == BY_CODE[ADD_NAR].head


@WRAPPED
@pytest.mark.parametrize("contents", ARCHIVES.bad)
def test_archives_of_several_are_held_to_the_same(contents: bytes, wrapped: Callable[[bytes], bytes]) -> None:
    info = b"".join(kind.good[0][0] for kind in BY_CODE[ADD_NAR].fields[:-2])
    with ends_of() as ends:
        ends.greet()
        ends.say(number(ADD_MULTIPLE) + number(0) * 2 + wrapped(number(1) + info + contents))
        ends.hears_error()


@pytest.mark.parametrize("size", [2**32, 2**32 + 5, 2**63, 2**64 - 1])
@pytest.mark.parametrize("request_", FRAMED, ids=by_name)
def test_a_frame_of_more_than_any_nix_reads_ends_the_connection(ends: Ends, request_: Request, size: int) -> None:
    """Of the four ways that were: a length that the daemon cannot read, and requests of no judge behind it."""
    ends.greet()
    ends.say(request_.head + number(size) + number(14) * 8)
    ends.hears_error()
    assert ends.daemon_hears_the_end() == next(iter(request_.good()))[1]


@pytest.mark.parametrize("request_", FRAMED, ids=by_name)
def test_a_length_that_is_only_said_claims_nothing(ends: Ends, request_: Request) -> None:
    ends.greet()
    ends.say(request_.head + number(2**29))
    had = next(iter(request_.good()))[1]
    assert ends.told(len(had)) == had
    ends.daemon.settimeout(0.05)
    with pytest.raises(TimeoutError):
        ends.told(1)


def test_memory_does_not_grow_with_what_passes(ends: Ends) -> None:
    ends.greet()
    size = 64 << 20
    tracemalloc.start()
    try:
        ends.say(flat())
        ends.told(len(flat()))
        block = frames(bytes(1 << 20))[:-8]
        for _ in range(size >> 20):
            ends.say(block)
            ends.told((len(block) - 8) // 65536 * (65536 + 8))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20


# --- what the daemon says


def log(*messages: bytes) -> bytes:
    return b"".join(messages)


TALK = log(
    number(NEXT) + text("a line"),
    number(NEXT) + text("x" * 100_000),
    number(START)
    + number(1)
    + number(3)
    + number(BUILD)
    + text("told")
    + number(2)
    + number(1)
    + text(DRV)
    + number(0)
    + number(5)
    + number(0),
    number(RESULT) + number(1) + number(101) + number(1) + number(1) + text("y" * 10_001),
    number(START) + number(2) + number(3) + number(0) + text("") + number(0) + number(1),
    number(STOP) + number(2) + number(STOP) + number(1),
)
REPLIES = {
    32: (number(0), text("e"), number(1), number(0), number(1), number(2), number(0)),
    36: (number(0), text("e"), number(1), number(0), number(1), number(2), number(0)),
    37: BUILT,
}


@pytest.mark.parametrize("minor", REPLIES)
@pytest.mark.parametrize("code", [36, 46])
def test_a_builds_result_is_read_as_its_protocol_has_it(ends: Ends, minor: int, code: int) -> None:
    ends.greet(0x100 + minor)
    ends.say(BY_CODE[code].head)
    ends.told(len(BY_CODE[code].head))
    result = b"".join(REPLIES[minor])
    ends.answer(number(LAST) + (result if code == 36 else number(1) + text(DRV) + result))
    ends.heard(8 + len(result) + (0 if code == 36 else 8 + len(text(DRV))))
    assert ends.is_alive()


@pytest.mark.parametrize("request_", PASSED, ids=by_name)
def test_the_log_passes_as_it_is(ends: Ends, request_: Request) -> None:
    ends.greet()
    had = next(iter(request_.good()))[1]
    ends.say(request_.head + (frames(request_.contents.good[0][0]) if request_.contents else b""))
    ends.told(len(had) + (len(reframe(request_.contents.good[0][1])) if request_.contents else 0))
    ends.answer(TALK + number(LAST) + request_.reply)
    assert ends.heard(len(TALK) + 8 + len(request_.reply)) == TALK + number(LAST) + request_.reply
    assert ends.is_alive()


def test_a_long_text_of_the_daemon_passes_in_pieces(ends: Ends) -> None:
    ends.greet()
    ends.say(number(VALID_PATH) + text(PATH))
    begun = number(NEXT) + number(100_000) + b"x" * 70_000
    ends.answer(begun)
    assert ends.heard(len(begun)) == begun


class Began(Tally):
    fields: object = None

    def began(self, _: object, fields: object) -> None:
        self.fields = fields


def test_of_an_activity_no_more_is_held_than_is_counted() -> None:
    """A build may say as many fields as it likes."""
    tally = Began()
    with ends_of(tally=tally) as ends:
        ends.greet()
        ends.say(number(VALID_PATH) + text(PATH))
        fields = number(1000) + (number(1) + text(DRV)) * 1000
        log = number(START) + number(1) + number(3) + number(BUILD) + text("told") + fields + number(0)
        ends.answer(log + number(LAST) + ONE)
        assert ends.heard(len(log) + 16) == log + number(LAST) + ONE
    assert tally.fields == [DRV.encode()] * 8


def test_contents_out_of_bounds_are_refused_after_the_daemon_has_spoken(ends: Ends) -> None:
    ends.greet()
    ends.say(flat())
    ends.told(len(flat()))
    ends.answer(TALK)
    assert ends.heard(len(TALK)) == TALK
    ends.say(number(2**32))
    assert "frame" in ends.hears_error()


def test_the_log_passes_while_contents_are_sent(ends: Ends) -> None:
    ends.greet()
    ends.say(flat())
    ends.told(len(flat()))
    ends.answer(TALK)
    assert ends.heard(len(TALK)) == TALK
    ends.say(frames(b"x" * 70_000))
    assert ends.told(len(reframe(b"x" * 70_000))) == reframe(b"x" * 70_000)


@pytest.mark.parametrize("code", [0, 0x64617461, 0x64617416, 7, 2**63])
def test_a_message_that_it_does_not_know_ends_the_connection(ends: Ends, code: int) -> None:
    ends.greet()
    ends.say(number(VALID_PATH) + text(PATH))
    ends.answer(number(code) + number(0) * 8)
    assert ends.client_hears_the_end()


def test_an_error_goes_to_the_client_and_the_connection_lives(ends: Ends) -> None:
    ends.greet()
    ends.say(number(VALID_PATH) + text(PATH))
    ends.told(8 + len(text(PATH)))
    trace = ERR[:-8] + number(2) + number(0) + text("trace") + number(0) + text("and more")
    ends.answer(trace)
    assert ends.heard(len(trace)) == trace
    assert ends.is_alive()


@pytest.mark.parametrize("request_", FRAMED, ids=by_name)
def test_an_error_while_contents_are_sent_ends_the_connection(ends: Ends, request_: Request) -> None:
    """The daemon errs and would go on with what comes; the client is heard to its end, so that it can read why."""
    ends.greet()
    ends.say(request_.head)
    ends.told(len(request_.head))
    ends.answer(ERR)
    assert ends.heard(len(ERR)) == ERR
    assert ends.daemon_hears_the_end() == b""
    # More than waits in a queue: nobody takes it when the filter has gone.
    ends.client.sendall(frames(number(14) * 200_000))
    assert ends.client_hears_the_end()


@pytest.mark.parametrize("request_", FRAMED, ids=by_name)
def test_an_error_after_the_contents_ends_the_connection_too(ends: Ends, request_: Request) -> None:
    """They are in the daemon's queue already, and it may not have begun to read them."""
    ends.greet()
    assert request_.contents
    sent, had = request_.contents.good[0]
    ends.say(request_.head + frames(sent))
    ends.told(len(request_.head) + len(reframe(had)))
    ends.say(number(VALID_PATH) + text(PATH))
    ends.answer(ERR)
    assert ends.heard(len(ERR)) == ERR
    assert ends.client_hears_the_end()
    assert ends.daemon_hears_the_end() == b""


def test_an_error_of_a_question_that_is_begun_before_it_is_read_ends_the_connection(ends: Ends) -> None:
    ends.greet()
    ends.say(BY_CODE[QUERY_REALISATION].head)
    ends.told(len(BY_CODE[QUERY_REALISATION].head))
    ends.answer(ERR)
    assert ends.heard(len(ERR)) == ERR
    assert ends.client_hears_the_end()


@pytest.mark.parametrize("request_", FRAMED, ids=by_name)
def test_a_result_before_the_contents_end_ends_the_connection(ends: Ends, request_: Request) -> None:
    ends.greet()
    ends.say(request_.head)
    ends.told(len(request_.head))
    ends.answer(number(LAST) + request_.reply)
    assert ends.daemon_hears_the_end() == b""


def test_a_text_of_the_daemon_with_dirty_padding_ends_the_connection(ends: Ends) -> None:
    ends.greet()
    ends.say(number(VALID_PATH) + text(PATH))
    ends.answer(number(NEXT) + DIRTY)
    assert ends.client_hears_the_end()


def test_a_long_text_of_the_daemon_with_dirty_padding_ends_the_connection(ends: Ends) -> None:
    ends.greet()
    ends.say(number(VALID_PATH) + text(PATH))
    ends.answer(number(NEXT) + number(5001) + b"x" * 5001 + b"\1" * 7)
    ends.daemon_hears_the_end()
    assert ends.session.judged == [VALID_PATH]


@pytest.mark.parametrize(
    "archive",
    [
        nar(node("regular", "contents") + number(2**41)),
        nar(entries_of([(b"d", node("directory"))])),
    ],
)
def test_a_file_of_the_store_may_be_larger_than_what_jobs_add(ends: Ends, archive: bytes) -> None:
    ends.greet()
    ends.say(BY_CODE[NAR_FROM_PATH].head)
    ends.told(len(BY_CODE[NAR_FROM_PATH].head))
    cut = archive[:-8] if archive.endswith(text(")")) else archive
    ends.answer(number(LAST) + cut)
    assert ends.heard(8 + len(cut) - 8)[:8] == number(LAST)


@pytest.mark.parametrize("has_splice", [True, False])
def test_a_large_file_of_the_store_passes_as_it_is(
    ends: Ends, has_splice: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_splice:
        monkeypatch.delattr("os.splice")
    contents = bytes(range(251)) * 20_000
    archive = nar(file(contents))
    ends.greet()
    ends.say(BY_CODE[NAR_FROM_PATH].head)
    ends.told(len(BY_CODE[NAR_FROM_PATH].head))
    handles = list(Path("/proc/self/fd").iterdir())
    ends.answer(number(LAST) + archive)
    assert ends.heard(8 + len(archive)) == number(LAST) + archive
    assert ends.is_alive()
    assert len(list(Path("/proc/self/fd").iterdir())) <= len(handles)


@pytest.mark.parametrize("leaves", ["client", "daemon"])
def test_who_leaves_in_the_middle_of_a_large_file_ends_the_connection(ends: Ends, leaves: str) -> None:
    ends.greet()
    ends.say(BY_CODE[NAR_FROM_PATH].head)
    ends.told(len(BY_CODE[NAR_FROM_PATH].head))
    ends.answer(number(LAST) + nar(node("regular", "contents") + number(2**30) + bytes(100_000))[:100_000])
    ends.heard(50_000)
    if leaves == "client":
        ends.client.close()
        assert ends.daemon_hears_the_end() == b""
    else:
        ends.daemon.close()
        ends.client_hears_the_end()


def test_a_log_in_a_reply_is_no_log(ends: Ends) -> None:
    """A job writes the files that it reads: their contents are no word of the daemon's."""
    ends.greet()
    evil = nar(file(number(LAST) + number(1) + ERR))
    ends.say(BY_CODE[NAR_FROM_PATH].head + number(VALID_PATH) + text(PATH))
    ends.told(len(BY_CODE[NAR_FROM_PATH].head))
    for at in range(0, len(evil), 16):
        ends.answer(number(LAST) * (at == 0) + evil[at : at + 16])
    assert ends.heard(8 + len(evil)) == number(LAST) + evil
    assert ends.told(8 + len(text(PATH))) == number(VALID_PATH) + text(PATH)
    ends.answer(number(LAST) + ONE)
    assert ends.heard(16) == number(LAST) + ONE


# --- settings


def set_options(values: Sequence[int], **overrides: str) -> bytes:
    pairs = b"".join(text(name.replace("_", "-")) + text(value) for name, value in overrides.items())
    return number(SET_OPTIONS) + b"".join(map(number, values)) + number(len(overrides)) + pairs


def options(max_jobs: int = 1, silent: int = 1, cores: int = 0) -> list[int]:
    return [0, 1, 0, 3, max_jobs, silent, 1, 7, 0, 0, cores, 1]


def passed(limits: Limits, request: bytes) -> bytes:
    """What the daemon has of it."""
    with ends_of(limits) as ends:
        ends.greet()
        ends.say(request)
        ends.answer(number(LAST))
        assert ends.heard(8) == number(LAST)
        return ends.daemon.recv(1 << 20)


LIMITS = Limits(max_jobs=2, cores=3, timeout=100, max_silent=50)


def test_limits_are_capped_and_other_settings_dropped() -> None:
    sent = set_options(
        [1, *options(99, 0, 64)[1:]],
        sandbox="false",
        timeout="0",
        max_silent_time="7",
        post_build_hook="/x",
        connect_timeout="3",
        builders="ssh://x",
        substituters="https://a https://b",
        poll_interval="x",
        secret_key_files="/x",
    )
    kept = {"timeout": "100", "max_silent_time": "7", "connect_timeout": "3", "substituters": "https://a https://b"}
    assert passed(LIMITS, sent) == set_options(options(2, 50, 3), **kept)


@pytest.mark.parametrize("at", range(len(OPTIONS)))
def test_a_number_out_of_bounds_in_the_settings_ends_the_connection(at: int) -> None:
    for value in OPTIONS[at].bad:
        with ends_of(LIMITS) as ends:
            ends.greet()
            ends.say(number(SET_OPTIONS) + b"".join(kind.good[0][0] for kind in OPTIONS[:at]) + value)
            ends.is_refused()


def test_numbers_within_bounds_pass_where_nothing_limits_them() -> None:
    free = Limits(0, 0, 0, 0)
    for sent, had in sequence(*OPTIONS).good:
        assert passed(free, number(SET_OPTIONS) + sent + number(0)) == number(SET_OPTIONS) + had + number(0)


@pytest.mark.parametrize(
    ("limits", "jobs", "got"), [(LIMITS, 0, 0), (LIMITS, 1, 1), (LIMITS, 3, 2), (Limits(0, 0, 0, 0), 99, 99)]
)
def test_fewer_jobs_than_allowed_stay_fewer(limits: Limits, jobs: int, got: int) -> None:
    assert passed(limits, set_options(options(jobs, 20)))[5 * 8 : 6 * 8] == number(got)


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        ("99999999999999999999999", "100"),
        ("-1", "100"),
        ("ten", "100"),
        ("20", "20"),
        ("5 ", "100"),
        ("100", "100"),
        ("101", "100"),
        ("0", "100"),
    ],
)
@pytest.mark.parametrize("name", ["timeout", "max_silent_time"])
def test_a_time_is_the_limit_or_less(name: str, asked: str, got: str) -> None:
    limits = Limits(0, 0, 100, 100)
    assert passed(limits, set_options(options(), **{name: asked})) == set_options(options(1, 1), **{name: got})


def test_a_time_that_is_no_number_is_dropped_where_nothing_limits_it() -> None:
    assert passed(Limits(0, 0, 0, 0), set_options(options(), timeout="ten")) == set_options(options())


@pytest.mark.parametrize(
    ("name", "value", "passes"),
    [
        ("connect_timeout", "5", True),
        ("connect_timeout", "5 ", False),
        ("connect_timeout", "1" * 11, False),
        ("poll_interval", "60", True),
        ("poll_interval", "", False),
        ("substituters", "", True),
        ("substituters", "https://cache.example.org\thttps://b\n", True),
        ("substituters", "https://a\0b", False),
        ("substituters", "é", False),
        ("substituters", "x" * 8193, False),
        ("builders", "", True),
        ("builders", "@/etc/nix/machines", False),
        ("sandbox", "", False),
        ("extra_sandbox_paths", "/", False),
    ],
)
def test_a_setting_passes_when_its_value_is_known_to_be_harmless(name: str, value: str, passes: bool) -> None:
    kept = {name: value} if passes else {}
    assert passed(LIMITS, set_options(options(), **{name: value})) == set_options(options(1, 1, 3), **kept)


@pytest.mark.parametrize(
    "settings",
    [
        number(1) + number(2**30),
        number(1) + text("x") + number(2**20),
        number(1001) + text("x") * 2002,
        number(2) + (text("substituters") + text("x" * 600_000)) * 2,
        number(1) + DIRTY,
    ],
)
def test_settings_of_a_megabyte_end_the_connection(ends: Ends, settings: bytes) -> None:
    ends.greet()
    ends.say(set_options(options())[:-8] + settings)
    ends.is_refused()


# --- ends of a connection


def test_a_client_that_goes_takes_its_connection_along(ends: Ends) -> None:
    ends.greet()
    ends.say(number(9) + number(3) + text(PATH))
    ends.client.shutdown(socket.SHUT_RDWR)
    assert ends.daemon_hears_the_end() in (b"", number(9) + number(3) + text(PATH))


def test_a_client_that_goes_while_the_daemon_works_takes_its_builds_along(ends: Ends) -> None:
    ends.greet()
    ends.say(BY_CODE[9].head)
    ends.told(len(BY_CODE[9].head))
    ends.client.close()
    assert ends.daemon_hears_the_end() == b""


def test_a_client_that_goes_in_the_middle_of_contents_takes_them_along(ends: Ends) -> None:
    ends.greet()
    ends.say(flat() + number(100) + b"half")
    ends.told(len(flat()))
    ends.client.shutdown(socket.SHUT_WR)
    assert ends.daemon_hears_the_end() == b""


@pytest.mark.parametrize("said", [b"", flat(), flat() + number(100) + b"half", number(VALID_PATH) + text(PATH)])
def test_a_daemon_that_goes_takes_the_connection_along(ends: Ends, said: bytes) -> None:
    ends.greet()
    ends.say(said)
    ends.daemon.shutdown(socket.SHUT_RDWR)
    assert ends.client_hears_the_end()


# --- counting


class Heard(Tally):
    @property
    def names(self) -> tuple[set[bytes], set[bytes]]:
        return self._asked, self._built


def test_what_is_asked_for_and_what_is_built_is_counted() -> None:
    tally = Heard()
    with ends_of(tally=tally) as ends:
        ends.greet()
        for code, reply in ((9, ONE), (10, ONE), (36, b"".join(BUILT)), (46, number(0)), (1, ONE), (26, number(0))):
            wish = number(1) + text(f"{DRV}!out{code}") + number(0)
            head = number(code) + wish if code in (9, 46) else BY_CODE[code].head
            ends.say(head)
            ends.told(len(head))
            ends.answer(TALK + number(LAST) + reply)
            ends.heard(len(TALK) + 8 + len(reply))
    asked = {f"{DRV}!out9", f"{DRV}!out46", PATH, f"{DRV}!*"}
    assert tally.names == ({name.encode() for name in asked}, {DRV.encode()})
