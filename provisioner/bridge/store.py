"""The bridge's memory between passes, in SQLite. All of it can be lost: the two sides say it again.

Each statement is a transaction of its own, and an intent is written before its effect.
"""

from __future__ import annotations

import fcntl
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from provisioner.bridge.errors import BridgeError, Busy
from provisioner.bridge.policy import HOUR_S
from provisioner.bridge.values import Build, Claim, Person, Source, Stage

_VERSION: Final = 2
_TABLES: Final = """
CREATE TABLE claim (source TEXT, id INTEGER, pull INTEGER, head TEXT, user INTEGER, login TEXT,
                    PRIMARY KEY (source, id));
CREATE TABLE build (ref TEXT PRIMARY KEY, head TEXT, stage TEXT, at REAL, pipeline INTEGER, status TEXT, reason TEXT,
                    failures INTEGER, is_found INTEGER);
CREATE TABLE report (head TEXT PRIMARY KEY, check_id INTEGER, told TEXT, is_final INTEGER);
CREATE TABLE own_ci (head TEXT, base TEXT, is_changed INTEGER, PRIMARY KEY (head, base));
CREATE TABLE push (ref TEXT, at REAL);
CREATE TABLE standing (pull INTEGER PRIMARY KEY, head TEXT, title TEXT);
CREATE TABLE note (name TEXT PRIMARY KEY, value TEXT);
"""


@dataclass(frozen=True, slots=True)
class Report:
    """The check of one commit on GitHub and its last text."""

    head: str
    check_id: int | None = None
    told: str = ""
    is_final: bool = False


class Store:
    """One file of one bridge; `folder` is its owner's alone."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._file = folder / "state.sqlite"
        self._lock = folder / "lock"
        self._db = self._opened()

    def _opened(self) -> sqlite3.Connection:
        """Open the file. A broken one, or one of another version, is put aside and made anew.

        Raises BridgeError for a file that is locked or cannot be read: it may be whole.
        """
        try:
            database = self._connected()
        except sqlite3.OperationalError as error:
            raise BridgeError(f"cannot open {self._file}: {error}") from None
        except sqlite3.DatabaseError:
            self._file.replace(self._file.with_suffix(".broken"))
            database = self._connected()
        return database

    def _connected(self) -> sqlite3.Connection:
        # One connection for the service's pass and its doorbell; sqlite3 is built to serialise them.
        database = sqlite3.connect(self._file, isolation_level=None, timeout=30, check_same_thread=False)
        try:
            # Two processes may open a new file at once: only one of them sees the version 0.
            database.execute("BEGIN IMMEDIATE")
            version = database.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                for statement in _TABLES.strip().split(";"):
                    database.execute(statement)
                database.execute(f"PRAGMA user_version = {_VERSION}")
            database.execute("COMMIT")
        except BaseException:
            database.close()
            raise
        if version in {0, _VERSION}:
            return database
        database.close()
        raise sqlite3.DatabaseError(f"version {version}")

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Only one pass at a time works on this state. Raises Busy."""
        with self._lock.open("w") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Busy("another bridge works on this state", hint="`nixprov bridge status` shows it") from None
            yield

    # --- claims: a person asks for a run of a commit

    def add_claim(self, claim: Claim) -> None:
        person = claim.person
        values = (claim.source.value, claim.id, claim.pull, claim.head, person.id, person.login)
        self._db.execute("INSERT OR REPLACE INTO claim VALUES (?, ?, ?, ?, ?, ?)", values)

    def next_claim_id(self, source: Source) -> int:
        found = self._db.execute("SELECT MAX(id) FROM claim WHERE source = ?", (source.value,)).fetchone()[0]
        return int(found or 0) + 1

    def drop_claim(self, source: Source, number: int) -> None:
        self._db.execute("DELETE FROM claim WHERE source = ? AND id = ?", (source.value, number))

    def claims(self) -> tuple[Claim, ...]:
        rows = self._db.execute("SELECT source, id, pull, head, user, login FROM claim ORDER BY id")
        return tuple(Claim(Source(row[0]), row[1], row[2], row[3], Person(row[4], row[5])) for row in rows)

    # --- builds: the wanted or present commit of each ref on GitLab

    def builds(self) -> Mapping[str, Build]:
        rows = self._db.execute("SELECT ref, head, stage, at, pipeline, status, reason, failures, is_found FROM build")
        return {row[0]: _build(row) for row in rows}

    def put_build(self, build: Build) -> None:
        values = (build.ref, build.head, build.stage.value, build.at, build.pipeline, build.status, build.reason)
        statement = "INSERT OR REPLACE INTO build VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
        self._db.execute(statement, (*values, build.failures, build.is_found))

    def drop_build(self, ref: str) -> None:
        self._db.execute("DELETE FROM build WHERE ref = ?", (ref,))

    def note_push(self, ref: str, at: float) -> None:
        self._db.execute("DELETE FROM push WHERE at < ?", (at - HOUR_S,))
        self._db.execute("INSERT INTO push VALUES (?, ?)", (ref, at))

    def pushes(self, ref: str) -> tuple[float, ...]:
        return tuple(row[0] for row in self._db.execute("SELECT at FROM push WHERE ref = ?", (ref,)))

    # --- reports: one check for each commit

    def report(self, head: str) -> Report:
        row = self._db.execute("SELECT * FROM report WHERE head = ?", (head,)).fetchone()
        return _report(row) if row else Report(head)

    def reports(self) -> tuple[Report, ...]:
        return tuple(_report(row) for row in self._db.execute("SELECT * FROM report"))

    def put_report(self, report: Report) -> None:
        values = (report.head, report.check_id, report.told, report.is_final)
        self._db.execute("INSERT OR REPLACE INTO report VALUES (?, ?, ?, ?)", values)

    def drop_report(self, head: str) -> None:
        """Forget it, and the answers about its pipeline."""
        with self._transaction():
            self._db.execute("DELETE FROM report WHERE head = ?", (head,))
            self._db.execute("DELETE FROM own_ci WHERE head = ?", (head,))

    def own_ci(self, head: str, base: str) -> bool | None:
        """Tell if the commit changes the pipeline of this base; None until it was looked at."""
        row = self._db.execute("SELECT is_changed FROM own_ci WHERE head = ? AND base = ?", (head, base)).fetchone()
        return None if row is None else bool(row[0])

    def put_own_ci(self, head: str, base: str, *, is_changed: bool) -> None:
        self._db.execute("INSERT OR REPLACE INTO own_ci VALUES (?, ?, ?)", (head, base, is_changed))

    # --- for people, and between passes

    def put_standings(self, standings: Mapping[int, tuple[str, str]]) -> None:
        """How each open pull request stands, by number: its head and a title."""
        with self._transaction():
            self._db.execute("DELETE FROM standing")
            rows = [(number, *standing) for number, standing in standings.items()]
            self._db.executemany("INSERT INTO standing VALUES (?, ?, ?)", rows)

    def standings(self) -> Mapping[int, tuple[str, str]]:
        rows = self._db.execute("SELECT pull, head, title FROM standing ORDER BY pull")
        return {row[0]: (row[1], row[2]) for row in rows}

    def note(self, name: str) -> str:
        row = self._db.execute("SELECT value FROM note WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else ""

    def put_note(self, name: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO note VALUES (?, ?)", (name, value))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")


def _build(row: tuple[Any, ...]) -> Build:
    ref, head, stage, at, pipeline, status, reason, failures, is_found = row
    return Build(ref, head, Stage(stage), at, pipeline, status, reason, failures, bool(is_found))


def _report(row: tuple[Any, ...]) -> Report:
    head, check_id, told, is_final = row
    return Report(head, check_id, told, bool(is_final))
