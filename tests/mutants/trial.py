"""One mutant held against the filter's tests, in a process of its own that begins with pytest loaded."""

from __future__ import annotations

import enum
import gc
import importlib
import multiprocessing
import os
import resource
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Final

import pytest
from hypothesis import settings

from tests.mutants.mutant import TEMPLATES, Mutant

ROOT: Final = TEMPLATES.parents[1]
# What notices most comes first.
TESTS: Final = tuple(
    str(ROOT / "tests" / name)
    for name in (
        "unit/test_filter.py",
        "contract/test_filter_server.py",
        "unit/test_tally.py",
        "unit/test_filter_agrees.py",
    )
)
# How long a test waits for a filter that says nothing. On a busy machine a right one may need longer, so what is
# noticed by waiting alone is tried again.
SHORT_S: Final = 0.7
LONG_S: Final = 4.0
# Of one test, and of all of them; a mutant may go round for ever.
TEST_S: Final = 20
ALL_S: Final = 180
MEMORY: Final = 4 << 30


class Outcome(enum.IntEnum):
    """What the tests made of a mutant; the exit code of its process."""

    SURVIVED = 0
    NOTICED = 1
    LATE = 2
    BROKEN = 3


@dataclass
class Trial:
    mutant: Mutant | None
    folder: Path
    wait_s: float = SHORT_S
    only: str = ""
    until: float = field(default_factory=lambda: time.monotonic() + ALL_S)

    @property
    def failed(self) -> str:
        """The test that failed."""
        return (self.folder / "failed").read_text()

    @property
    def output(self) -> str:
        return (self.folder / "output").read_text(errors="replace")

    def start(self) -> ForkProcess:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(TEMPLATES, self.folder, ignore=shutil.ignore_patterns("__pycache__"))
        if self.mutant:
            file = self.folder / self.mutant.file
            file.write_bytes(self.mutant.applied(file.read_bytes()))
        process = multiprocessing.get_context("fork").Process(target=self._run)
        process.start()
        return process

    def _run(self) -> None:
        """Of the new process, whose end it is."""
        os.environ["NIXPROV_FILTER_WAIT_S"] = str(self.wait_s)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        output = os.open(self.folder / "output", os.O_CREAT | os.O_WRONLY)
        os.dup2(output, 1)
        os.dup2(output, 2)
        watcher = Watcher(self.wait_s)
        options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:cov", f"--timeout={TEST_S}"]
        # hypothesis is there before pytest looks at it.
        options += ["--assert=plain", "-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning"]
        # Before the tree's own, which is not read.
        paths = f"pythonpath={ROOT} {self.folder}"
        names = [self.only] if self.only else TESTS
        code = pytest.main([*options, "--noconftest", f"--rootdir={ROOT}", "-o", paths, *names], plugins=[watcher])
        (self.folder / "failed").write_text(watcher.failed)
        sys.stdout.flush()
        os._exit(watcher.outcome(code))


class Watcher:
    """Sees which test fails, and whether it waited in vain."""

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self.failed = ""
        self._is_late = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed = report.nodeid
            self._is_late = report.duration >= self._wait_s

    def outcome(self, code: int) -> Outcome:
        if code == pytest.ExitCode.OK:
            return Outcome.SURVIVED
        if code != pytest.ExitCode.TESTS_FAILED:
            return Outcome.BROKEN
        return Outcome.LATE if self._is_late else Outcome.NOTICED


def prepare() -> None:
    """What the processes share: the same examples for each mutant, and none of them kept."""
    settings.register_profile("mutants", database=None, derandomize=True, deadline=None)
    settings.load_profile("mutants")
    # Those that know nothing of the filter's files are loaded once.
    for name in ("tests.unit.protocol", "tests.unit.sessions"):
        importlib.import_module(name)
    gc.freeze()


def run(mutants: Iterable[Mutant | None], folder: Path, at_once: int) -> Iterator[tuple[Trial, Outcome]]:
    """The mutants as they are done; None is the filter as it is."""
    waiting = (Trial(mutant, folder / str(number)) for number, mutant in enumerate(mutants))
    again: list[Trial] = []
    running: dict[int, tuple[Trial, ForkProcess]] = {}
    while True:
        while len(running) < at_once and (trial := again.pop() if again else next(waiting, None)):
            process = trial.start()
            running[process.sentinel] = trial, process
        if not running:
            return
        for sentinel in _ended(running):
            trial, process = running.pop(sentinel)
            outcome = _outcome(process)
            follower = _follower(trial, outcome)
            if follower:
                again.append(follower)
                continue
            yield trial, outcome
            shutil.rmtree(trial.folder)


def _ended(running: dict[int, tuple[Trial, ForkProcess]]) -> list[int]:
    for trial, process in running.values():
        if time.monotonic() > trial.until:
            process.kill()
    return [sentinel for sentinel in wait(list(running), timeout=1) if isinstance(sentinel, int)]


def _outcome(process: ForkProcess) -> Outcome:
    process.join()
    code = process.exitcode
    # Killed, by us or for its memory.
    return Outcome.NOTICED if code is None or code < 0 else Outcome(code)


def _follower(trial: Trial, outcome: Outcome) -> Trial | None:
    """What has to be tried again, with more time: the test that was late, and all of them where it is not late now."""
    if outcome is Outcome.LATE and trial.wait_s == SHORT_S:
        return Trial(trial.mutant, trial.folder, LONG_S, trial.failed)
    if outcome is Outcome.SURVIVED and trial.only:
        return Trial(trial.mutant, trial.folder, LONG_S)
    return None
