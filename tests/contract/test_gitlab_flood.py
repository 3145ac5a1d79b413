"""A GitLab, or what stands in its place, that says more than anybody asked for: without end, packed, page after page."""

from __future__ import annotations

import gzip
import json
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from provisioner import limits, transport
from provisioner.errors import CiUnavailable
from provisioner.model import RunnerType
from tests.contract.conftest import Connect

PIECE = b" " * 65536
RUNNER = json.dumps({"id": 7, "runner_type": "instance_type"}).encode()
Answer = Callable[[BaseHTTPRequestHandler], None]


class Server(ThreadingHTTPServer):
    """`calls` counts requests, `sent` the bytes of bodies that got away."""

    daemon_threads = True
    calls = sent = 0


@contextmanager
def answering(answer: Answer) -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        server: Server

        def do_GET(self) -> None:
            self.server.calls += 1
            try:
                answer(self)
            except OSError:
                self.close_connection = True

        def log_message(self, *_: object) -> None: ...

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def head(to: BaseHTTPRequestHandler, **headers: str) -> None:
    to.send_response(200)
    for name, value in {"Content-Type": "application/json", **headers}.items():
        to.send_header(name.replace("_", "-"), value)
    to.end_headers()


def write(to: BaseHTTPRequestHandler, data: bytes) -> None:
    to.wfile.write(data)
    assert isinstance(to.server, Server)
    to.server.sent += len(data)


def a_gigabyte(to: BaseHTTPRequestHandler) -> None:
    head(to, Content_Length=str(1 << 30))
    for _ in range((1 << 30) // len(PIECE)):
        write(to, PIECE)


def chunks_without_end(to: BaseHTTPRequestHandler) -> None:
    head(to, Transfer_Encoding="chunked")
    while True:
        write(to, b"%x\r\n%s\r\n" % (len(PIECE), PIECE))


def no_length_at_all(to: BaseHTTPRequestHandler) -> None:
    to.close_connection = True
    head(to, Connection="close")
    while True:
        write(to, PIECE)


BOMB = gzip.compress(bytes(256 * limits.MIB), 9)


def a_bomb(to: BaseHTTPRequestHandler) -> None:
    head(to, Content_Encoding="gzip", Content_Length=str(len(BOMB)))
    write(to, BOMB)


@pytest.mark.parametrize("answer", [a_gigabyte, chunks_without_end, no_length_at_all, a_bomb])
def test_an_answer_without_end_is_one_line(connect: Connect, answer: Answer) -> None:
    assert len(BOMB) < limits.MIB
    with answering(answer) as server:
        tracemalloc.start()
        try:
            with pytest.raises(CiUnavailable, match=r"gave no usable answer \(more than 16 MiB\)") as ended:
                connect(url=f"http://127.0.0.1:{server.server_port}").get(7)
            assert tracemalloc.get_traced_memory()[1] < 3 * limits.GITLAB_REPLY
        finally:
            tracemalloc.stop()
        assert "check the URL" in ended.value.hint
        # What lies in the buffers of two sockets is not read by anybody.
        assert server.sent < limits.GITLAB_REPLY + 16 * limits.MIB
        assert server.calls == 1


def packed_twice(to: BaseHTTPRequestHandler) -> None:
    head(to, Content_Encoding="gzip, gzip", Content_Length="2")
    write(to, b"{}")


def more_behind_its_end(to: BaseHTTPRequestHandler) -> None:
    head(to, Content_Encoding="gzip", Transfer_Encoding="chunked")
    for data in (gzip.compress(RUNNER), *[PIECE] * 100):
        write(to, b"%x\r\n%s\r\n" % (len(data), data))
    write(to, b"0\r\n\r\n")


@pytest.mark.parametrize("answer", [packed_twice, more_behind_its_end])
def test_what_is_packed_otherwise_is_no_answer(connect: Connect, answer: Answer) -> None:
    with answering(answer) as server, pytest.raises(CiUnavailable, match="gave no usable answer"):
        connect(url=f"http://127.0.0.1:{server.server_port}").get(7)


def test_what_is_packed_as_asked_is_read_over_one_connection(connect: Connect) -> None:
    asked = []

    def answer(to: BaseHTTPRequestHandler) -> None:
        asked.append((to.headers["Accept-Encoding"], to.client_address))
        body = gzip.compress(RUNNER)
        head(to, Content_Encoding="gzip", Content_Length=str(len(body)))
        write(to, body)

    with answering(answer) as server:
        api = connect(url=f"http://127.0.0.1:{server.server_port}")
        found = [api.get(7), api.get(7)]
    assert [one.id for one in found if one] == [7, 7]
    assert len(set(asked)) == 1
    assert asked[0][0] == "gzip"


def page(*runners: int) -> Answer:
    def answer(to: BaseHTTPRequestHandler) -> None:
        body = json.dumps([{"id": id_, "runner_type": "instance_type"} for id_ in runners]).encode()
        assert isinstance(to.server, Server)
        there = f"http://127.0.0.1:{to.server.server_port}/api/v4/runners/all?page={to.server.calls}"
        head(to, Content_Length=str(len(body)), Link=f'<{there}>; rel="next"')
        write(to, body)

    return answer


@pytest.mark.parametrize(
    ("runners", "words"), [((), "a list of empty pages without end"), ((1, 2), "a list of more than 50 entries")]
)
def test_pages_without_end_are_one_line(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, runners: tuple[int, ...], words: str
) -> None:
    monkeypatch.setattr(limits, "GITLAB_ENTRIES", 50)
    with answering(page(*runners)) as server, pytest.raises(CiUnavailable, match=words):
        connect(url=f"http://127.0.0.1:{server.server_port}").runners(RunnerType.INSTANCE, None)


def test_an_answer_that_comes_a_byte_at_a_time_is_not_waited_for(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each byte comes in time, all of them never: a clock that goes on a minute at each look stands for the wait."""
    now = iter(range(0, 1 << 30, 60))
    monkeypatch.setattr(transport, "time", type("Clock", (), {"monotonic": lambda: next(now), "sleep": time.sleep}))
    stop = threading.Event()

    def answer(to: BaseHTTPRequestHandler) -> None:
        head(to, Content_Length="1000000")
        while not stop.is_set():
            write(to, b" ")
            stop.wait(0.01)

    with answering(answer) as server, pytest.raises(CiUnavailable, match="timed out"):
        connect(url=f"http://127.0.0.1:{server.server_port}").get(7)
    stop.set()
