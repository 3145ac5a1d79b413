"""The host's book of jobs: whose numbers are whose, that it stays small, and that nothing depends on it."""

from __future__ import annotations

import json
import os
import socket
import threading
from pathlib import Path
from typing import Any

import counters
import pytest
from counters import Book

from provisioner.machine.counters import Counters
from provisioner.machine.facts import Facts
from tests.unit.runs import BOOK

ONE = {"built": 1, "found": 2, "bytes": 120}
GONE = "d" * 64


def labels(job: int, runner: str = "default") -> dict[str, str]:
    return {
        "nixprov-runner": runner,
        "com.gitlab.gitlab-runner.job.id": str(job),
        "com.gitlab.gitlab-runner.project.id": "3",
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "jobs.json"


def read(file: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(file.read_text())
    return document


def test_a_job_is_from_its_first_container_to_the_end_of_its_last(file: Path) -> None:
    book = Book(file)
    book.came("a", labels(1), 100.0)
    book.came("b", labels(1), 101.0)
    book.count(("default", 1), ONE)
    book.count(("default", 1), ONE)
    book.went("a", ("default", 1), 110.0)
    assert read(file)["jobs"][0]["running"]
    book.went("b", ("default", 1), 112.5)
    job = {"runner": "default", "job": 1, "project": 3, "started": 100.0, "seconds": 12.5, "running": False}
    assert read(file)["jobs"] == [job | {"built": 2, "found": 4, "bytes": 240}]
    assert read(file)["totals"] == {"jobs": 1, "seconds": 12.5, "built": 2, "found": 4, "bytes": 240}


def test_it_is_what_the_operators_side_reads(file: Path) -> None:
    book = Book(file)
    book.came("a", labels(16), 100.0)
    book.count(("default", 16), ONE)
    written, sample = read(file), json.loads(BOOK)
    assert written.keys() == sample.keys()
    assert written["totals"].keys() == sample["totals"].keys()
    assert written["jobs"][0].keys() == sample["jobs"][0].keys()
    parsed = Counters.parse(file.read_text())
    assert parsed is not None
    assert (parsed.jobs, parsed.last[0].seconds, parsed.last[0].counts.size) == (1, None, 120)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{}", "[]", "7", BOOK.replace('"version": 1', '"version": 2'), BOOK[:-3], "[" * 100_000),
        *(BOOK.replace("75.5", "NaN"), BOOK.replace("1767225600.5", '"now"'), BOOK.replace("1767225600.5", "1e300")),
    ],
)
def test_a_book_that_is_not_understood_is_none(text: str) -> None:
    assert Counters.parse(text) is None


def test_the_probe_brings_it_and_its_absence_is_no_error(file: Path) -> None:
    assert Facts("host1", {"counters": BOOK.encode()}).counters == Counters.parse(BOOK)
    assert Facts("host1", {"counters": b""}).counters is None
    assert Facts("host1", {}).counters is None


def test_it_goes_on_where_it_was_killed(file: Path) -> None:
    before = Book(file)
    before.came("a", labels(1), 100.0)
    before.came("b", labels(2), 100.0)
    before.count(("default", 1), ONE)
    # As kill -9 leaves it, and the engine with one of the two containers when it starts again.
    file.with_suffix(".new").write_text('{"version":1,')
    book = Book(file)
    book.came("b", labels(2), 100.0)
    book.only({"b"}, 200.0)
    first, second = read(file)["jobs"]
    assert (first["running"], first["built"], second["running"]) == (False, 1, True)
    book.went("b", ("default", 2), 150.0)
    assert read(file)["totals"] == {"jobs": 2, "seconds": 50.0, **ONE}


@pytest.mark.parametrize("text", ["", "{", '{"version":1}', BOOK.replace('"built": 3', '"built": "x"')])
def test_a_broken_book_is_begun_anew(file: Path, text: str) -> None:
    file.write_text(text)
    Book(file).came("a", labels(1), 100.0)
    assert read(file)["totals"]["jobs"] == 1


def test_it_keeps_the_last_jobs_and_all_of_the_sums(file: Path) -> None:
    book = Book(file)
    for number in range(300):
        book.came(f"c{number}", labels(number), float(number))
        if number != 5:
            book.went(f"c{number}", ("default", number), number + 1.0)
    jobs = read(file)["jobs"]
    assert [job["job"] for job in jobs] == [5, *range(300 - counters.KEPT + 1, 300)]
    assert read(file)["totals"]["jobs"] == 300
    assert file.stat().st_size < 4096


def test_even_of_jobs_that_never_end_it_keeps_no_more_than_so_many(file: Path) -> None:
    book = Book(file)
    for number in range(counters.KEPT_RUNNING + 50):
        book.came(f"c{number}", labels(number), float(number))
    assert len(read(file)["jobs"]) == counters.KEPT_RUNNING


def test_a_disk_that_is_full_costs_the_record_alone(
    file: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    book = Book(file)
    book.came("a", labels(1), 100.0)
    before = file.read_bytes()

    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        book.count(("default", 1), ONE)
        book.count(("default", 1), ONE)
    assert file.read_bytes() == before
    assert capfd.readouterr().err.count("No space left") == 1
    book.went("a", ("default", 1), 101.0)
    assert read(file)["totals"]["built"] == 2


@pytest.mark.parametrize(
    "message",
    [
        *(b"7", b"{}", b"\xff", b'{"built":1,"found":2}', b'{"built":1,"found":2,"bytes":3,"job":4}'),
        *(b'{"built":-1,"found":2,"bytes":3}', b'{"built":1.5,"found":2,"bytes":3}'),
        b'{"built":true,"found":2,"bytes":3}',
    ],
)
def test_nothing_but_numbers_comes_in(message: bytes) -> None:
    with pytest.raises(ValueError):
        counters.numbers_in(message)


class Engine(counters.Engine):
    """Knows one container that no event has told of."""

    def __init__(self) -> None:
        super().__init__("/no/such/socket")

    def labels(self, container: str) -> dict[str, str]:
        if container == GONE:
            raise ConnectionError("404")
        return labels(9, "late")


def deliver(book: Book, name: bytes, message: bytes) -> None:
    """One connection, through the socket that the filter writes to."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    reader, writer = os.pipe()
    socket.send_fds(theirs, [name], [reader])
    os.close(reader)
    os.write(writer, message)
    os.close(writer)
    threads = set(threading.enumerate())
    receiver = threading.Thread(target=_receive_once, args=(ours, book))
    receiver.start()
    receiver.join(10)
    for thread in set(threading.enumerate()) - threads:
        thread.join(10)
    ours.close()
    theirs.close()


def _receive_once(listener: socket.socket, book: Book) -> None:
    class Once:
        count = 0

        def recvmsg(self, *sizes: int) -> Any:
            self.count += 1
            if self.count > 1:
                raise EOFError
            return listener.recvmsg(*sizes)

    with pytest.raises(EOFError):
        counters.receive(Once(), Engine(), book)  # type: ignore[arg-type]


def test_a_connections_numbers_are_its_containers(file: Path) -> None:
    book = Book(file)
    book.came("a" * 64, labels(1), 100.0)
    book.came("b" * 64, labels(2), 100.0)
    # Whatever stands in the message, the container's name came from the filter.
    deliver(book, b"a" * 64, json.dumps(ONE).encode())
    deliver(book, b"b" * 64, b'{"built":1,"found":2,"bytes":120,"job":1}')
    deliver(book, b"b" * 64, b"")
    assert [job["built"] for job in read(file)["jobs"]] == [1, 0]


def test_a_container_that_is_not_known_is_asked_for_and_else_in_the_sums_alone(file: Path) -> None:
    book = Book(file)
    deliver(book, GONE.encode(), json.dumps(ONE).encode())
    deliver(book, b"../../images/x", json.dumps(ONE).encode())
    deliver(book, b"c" * 64, json.dumps(ONE).encode())
    assert read(file)["totals"]["built"] == 3
    assert read(file)["jobs"] == []


@pytest.mark.parametrize("gone", ["remove", "destroy"])
def test_docker_and_podman_say_the_end_each_in_its_word(file: Path, gone: str) -> None:
    book = Book(file)
    actor = {"ID": "a" * 64, "Attributes": labels(1)}
    for action, at in (("create", 100), ("start", 101), ("die", 102), ("start", 103), (gone, 105)):
        counters.take({"Action": action, "Actor": actor, "time": at, "timeNano": at * 10**9}, book)
    assert read(file)["jobs"][0]["seconds"] == 5.0


def test_what_happened_while_it_was_dead_is_made_up_for(file: Path) -> None:
    before = Book(file)
    before.came("a", labels(1), 100.0)
    os.utime(file, (1000, 1000))
    book = Book(file)
    assert book.written == 1000
    book.only(set(), 1010.0)
    actors = [{"ID": container, "Attributes": labels(job)} for container, job in (("a", 1), ("b", 2), ("b", 2))]
    for (action, at), actor in zip((("remove", 1002), ("create", 1003), ("remove", 1004)), actors, strict=True):
        counters.take({"Action": action, "Actor": actor, "time": at}, book)
    assert [(job["seconds"], job["running"]) for job in read(file)["jobs"]] == [(902.0, False), (1.0, False)]


@pytest.mark.parametrize("missing", ["nixprov-runner", "com.gitlab.gitlab-runner.job.id"])
def test_containers_of_others_are_no_jobs(file: Path, missing: str) -> None:
    book = Book(file)
    book.came("a", {name: value for name, value in labels(1).items() if name != missing}, 100.0)
    assert not file.exists()
