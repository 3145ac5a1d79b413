"""The live table on a real terminal, and Ctrl-C."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

INTERRUPTED = """
import os, signal, sys
from provisioner.ci.gitlab.words import WORDS
from provisioner.cli.edge import Options
from provisioner.cli.reports import reporting
from provisioner.events import PhaseBegun, RunStarted
from provisioner.verb import Verb
with reporting(Options(), Verb.UP) as report:
    report.event(RunStarted("up", "r", "o", ("host1",), WORDS))
    report.event(PhaseBegun("host1", "connect"))
    os.write(int(sys.argv[1]), b"drawn")
    signal.pause()
"""


def test_ctrl_c_gives_the_cursor_back() -> None:
    controller, terminal = pty.openpty()
    ready, tells = os.pipe()
    environment = {**os.environ, "TERM": "xterm", "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(tells)],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=environment,
        pass_fds=[tells],
    ) as process:
        os.close(terminal)
        os.close(tells)
        said = _read_until(controller, b"connect")
        assert os.read(ready, 5) == b"drawn"  # waits for it, however long drawing takes
        process.send_signal(signal.SIGINT)
        said += _read_until(controller, b"KeyboardInterrupt")
    os.close(controller)
    os.close(ready)
    assert b"\x1b[?25h" in said[said.rindex(b"\x1b[?25l") :], said


def _read_until(controller: int, wanted: bytes) -> bytes:
    said = b""
    while wanted not in said:
        try:
            said += os.read(controller, 4096)
        except OSError:  # the other end is closed: the program has ended
            pytest.fail(f"it ended without {wanted!r}: {said!r}")
    return said
