"""The book of jobs: the duration of each, and the number of builds made and found for it. `nixprov status` reads it.

It has three sources, and none of them is a job. The engine lists each job's containers and reports their start and end.
The filter names the container of a connection. A pipe per connection brings its numbers. The book has a fixed size and
is replaced as a whole. It is only a record: when it cannot be written, nothing else stops.

Access to the engine's socket is access to everything on the host. So this program reads nothing but numbers from the
filter, and asks the engine with GET alone.
"""

# ruff: noqa: INP001 - a program by itself, pushed to the hosts

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlencode

LISTEN_FD = 3
VERSION = 1
# The answer to `status` is small: the last jobs one by one, all of them in the totals.
KEPT = 20
# Jobs that run are not dropped for newer ones, unless there are more of them than any host has.
KEPT_RUNNING = 200
MAX_MESSAGE = 4096
AGAIN_S = 2.0
# After a restart, at most this much of the engine's past is asked for.
LOOK_BACK_S = 3600.0

RUNNER_LABEL = "nixprov-runner"
MANAGED = "com.gitlab.gitlab-runner.managed=true"
JOB_LABEL = "com.gitlab.gitlab-runner.job.id"
PROJECT_LABEL = "com.gitlab.gitlab-runner.project.id"
COUNTED = ("built", "found", "bytes")


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("engine")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


class Engine:
    """Docker's API in the engine's newest version, also spoken by podman. Raises OSError, HTTPException, ValueError."""

    def __init__(self, path: str) -> None:
        self._path = path

    def labels(self, container: str) -> dict[str, str]:
        found = json.load(self._get(f"/containers/{container}/json"))
        return dict(found["Config"]["Labels"])

    def containers(self) -> dict[str, tuple[dict[str, str], float]]:
        """The containers of all jobs by id: labels, and the time of creation in seconds since 1970."""
        query = urlencode({"all": 1, "filters": json.dumps({"label": [RUNNER_LABEL]})})
        listed = json.load(self._get(f"/containers/json?{query}"))
        return {one["Id"]: (dict(one["Labels"]), float(one["Created"])) for one in listed}

    def events(self, since: float) -> Iterator[dict[str, Any]]:
        """Events of jobs' containers from a time on, in seconds since 1970. podman answers with the first one."""
        filters = {"type": ["container"], "label": [MANAGED]}
        answer = self._get(f"/events?{urlencode({'since': int(since), 'filters': json.dumps(filters)})}")
        return (json.loads(line) for line in answer if line.strip())

    def _get(self, path: str) -> http.client.HTTPResponse:
        connection = _Connection(self._path)
        connection.request("GET", path)
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            raise ConnectionError(f"{path.partition('?')[0]}: {answer.status}")
        return answer


class Book:
    """The jobs and their sums, on disk after each change. Safe for threads."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._containers: dict[str, tuple[str, int]] = {}
        self._complained = False
        self._totals: dict[str, Any] = {"jobs": 0, "seconds": 0, **dict.fromkeys(COUNTED, 0)}
        self._jobs: dict[tuple[str, int], dict[str, Any]] = {}
        self._since = self.written = time.time()
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            self._load(json.loads(file.read_text()))
            self.written = file.stat().st_mtime

    def _load(self, document: dict[str, Any]) -> None:
        """Load a document whole or not at all. Raises ValueError, KeyError, TypeError."""
        if document["version"] != VERSION:
            raise ValueError(document["version"])
        totals = {name: document["totals"][name] + 0 for name in self._totals}
        jobs = {(str(job["runner"]), int(job["job"])): dict(job) for job in document["jobs"]}
        self._since, self._totals, self._jobs = float(document["since"]), totals, jobs

    def came(self, container: str, labels: dict[str, str], at: float) -> None:
        """Note that a job's container exists; it may be known already."""
        key = key_of(labels)
        if key is None:
            return
        with self._lock:
            self._containers[container] = key
            if key not in self._jobs:
                self._begin(key, labels, at)
            self._jobs[key]["running"] = True
            self._save()

    def went(self, container: str, key: tuple[str, int] | None, at: float) -> None:
        """Note that a container is gone. The last one of a job ends the job."""
        with self._lock:
            self._containers.pop(container, None)
            if key is None or key in self._containers.values() or key not in self._jobs:
                return
            self._end(self._jobs[key], at)
            self._save()

    def only(self, containers: set[str], at: float) -> None:
        """End each known container that is not among `containers`: its event was missed."""
        for gone in [container for container in self._containers if container not in containers]:
            self.went(gone, self.job_of(gone), at)
        with self._lock:
            for key, job in self._jobs.items():
                if job["running"] and key not in self._containers.values():
                    job["running"] = False
            self._save()

    def job_of(self, container: str) -> tuple[str, int] | None:
        with self._lock:
            return self._containers.get(container)

    def count(self, key: tuple[str, int] | None, numbers: dict[str, int]) -> None:
        """Add the numbers to the sums, and to the job when it is known."""
        with self._lock:
            job = [self._jobs[key]] if key in self._jobs else []
            for counts in (self._totals, *job):
                for name in COUNTED:
                    counts[name] += numbers[name]
            self._save()

    def _begin(self, key: tuple[str, int], labels: dict[str, str], at: float) -> None:
        project = labels.get(PROJECT_LABEL, "")
        self._jobs[key] = {
            "runner": key[0],
            "job": key[1],
            "project": int(project) if project.isdigit() else None,
            "started": round(at, 3),
            "seconds": 0,
            "running": True,
            **dict.fromkeys(COUNTED, 0),
        }
        self._totals["jobs"] += 1
        over = [old for old, job in self._jobs.items() if not job["running"]]
        for old in over[: max(0, len(self._jobs) - KEPT)] + list(self._jobs)[: max(0, len(self._jobs) - KEPT_RUNNING)]:
            self._jobs.pop(old, None)

    def _end(self, job: dict[str, Any], at: float) -> None:
        seconds = round(max(0.0, at - job["started"]), 3)
        self._totals["seconds"] += seconds - job["seconds"]
        job.update(running=False, seconds=seconds)

    def _save(self) -> None:
        jobs = list(self._jobs.values())
        document = {"version": VERSION, "since": self._since, "totals": self._totals, "jobs": jobs}
        new = self._file.with_suffix(".new")
        try:
            new.write_text(json.dumps(document, separators=(",", ":")))
            new.replace(self._file)
        except OSError as error:
            if not self._complained:
                say(f"the book is not written: {error}")
            self._complained = True
        else:
            self._complained = False


def key_of(labels: dict[str, str]) -> tuple[str, int] | None:
    job = labels.get(JOB_LABEL, "")
    return (labels.get(RUNNER_LABEL, ""), int(job)) if job.isdigit() and labels.get(RUNNER_LABEL) else None


def numbers_in(message: bytes) -> dict[str, int]:
    """Raises ValueError for anything but the three numbers."""
    document = json.loads(message)
    if not isinstance(document, dict) or set(document) != set(COUNTED):
        raise ValueError(document)
    if not all(type(value) is int and value >= 0 for value in document.values()):
        raise ValueError(document)
    return document


def follow(engine: Engine, book: Book) -> NoReturn:
    """Follow the engine's events for ever; after each break, start from the containers that exist."""
    since = max(book.written, time.time() - LOOK_BACK_S)
    while True:
        # No answer of the engine may end this thread: the unit would look alive without it.
        with contextlib.suppress(Exception):
            listen(engine, book, since)
        since = time.time()
        time.sleep(AGAIN_S)


def listen(engine: Engine, book: Book, since: float) -> None:
    there = engine.containers()
    for container, (labels, created) in there.items():
        book.came(container, labels, created)
    book.only(set(there), time.time())
    # An event that is in the list already changes nothing.
    for event in engine.events(since):
        take(event, book)


def take(event: dict[str, Any], book: Book) -> None:
    container, labels = event["Actor"]["ID"], event["Actor"]["Attributes"]
    at = event.get("timeNano", 0) / 1e9 or float(event["time"])
    # Docker's words and podman's.
    if event["Action"] == "create":
        book.came(container, labels, at)
    elif event["Action"] in ("destroy", "remove"):
        book.went(container, key_of(labels), at)


def receive(listener: socket.socket, engine: Engine, book: Book) -> NoReturn:
    while True:
        space = socket.CMSG_SPACE(4)
        data, rights, _, _ = listener.recvmsg(MAX_MESSAGE, space)
        pipes = [
            struct.unpack("i", content[:4])[0]
            for level, kind, content in rights
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        ]
        for pipe in pipes:
            threading.Thread(target=connection, args=(data, pipe, engine, book), daemon=True).start()


def connection(name: bytes, pipe: int, engine: Engine, book: Book) -> None:
    """Look up the connection's job while its container exists; count its numbers when it has ended."""
    with open(pipe, "rb") as numbers:
        key = job_of(name.decode("ascii", "replace"), engine, book)
        with contextlib.suppress(ValueError, OSError):
            message = numbers.read(MAX_MESSAGE)
            if message:
                book.count(key, numbers_in(message))


def job_of(container: str, engine: Engine, book: Book) -> tuple[str, int] | None:
    known = book.job_of(container)
    if known is not None or not re.fullmatch("[0-9a-f]{64}", container):
        return known
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError, KeyError):
        return key_of(engine.labels(container))
    return None


def say(line: str) -> None:
    os.write(2, (line + "\n").encode())


def main() -> NoReturn:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", required=True, help="the container engine's socket")
    parser.add_argument("--book", required=True, type=Path, help="the file to write")
    said = parser.parse_args()
    if os.environ.get("LISTEN_FDS") != "1":
        sys.exit("systemd hands over no socket")
    engine, book = Engine(said.engine), Book(said.book)
    threading.Thread(target=follow, args=(engine, book), daemon=True).start()
    receive(socket.socket(fileno=LISTEN_FD), engine, book)


if __name__ == "__main__":
    main()
