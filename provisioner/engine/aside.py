"""Runs a read-only look on a host (machine/aside.py): one more remote command, its log emitted as it comes."""

from __future__ import annotations

from dataclasses import dataclass, field

from provisioner.engine.host import Context, Machine
from provisioner.machine import aside
from provisioner.ssh.exec import Completed
from provisioner.ssh.stream import Lines


def ask(machine: Machine, script: bytes) -> Completed:
    """Raises HostError."""
    log = _Log(machine.context)
    return machine.session.run(script, timeout_s=aside.LIMIT_S, on_output=log, cancel=machine.cancel)


def last_words(done: Completed) -> str:
    """The reason of a failed look, in the host's own words."""
    last = (done.stderr.splitlines() or ["it said nothing"])[-1]
    return f"status {done.status}: {last}"


@dataclass(slots=True)
class _Log:
    """Cuts the answer's stream into lines and emits those of the log."""

    context: Context
    lines: Lines = field(default_factory=Lines)
    is_log: bool = False

    def __call__(self, chunk: bytes) -> None:
        for line, goes_on in self.lines.feed(chunk):
            text = line if goes_on else aside.log_line(line)
            self.is_log = self.is_log if goes_on else text is not None
            if self.is_log and text is not None:
                self.context.log(text)
