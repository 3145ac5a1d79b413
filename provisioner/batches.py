"""The hosts that run together, and the failures after which no further host is started: arithmetic only.

The rules are those of Ansible's `serial`, `max_fail_percentage` and `any_errors_fatal` (its guide, "Controlling
playbook execution", "Error handling in playbooks"). Knows nothing of threads, ssh or outcomes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from provisioner.errors import ConfigError
from provisioner.model import HostSpec

_SIZE = re.compile(r"0*[1-9][0-9]{0,6}|(?:100|[1-9][0-9]?)%")


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of a play's rollout.

    `serial` are sizes of batches: numbers of hosts, or a percentage ("20%") of the play's hosts. The last one is
    repeated; empty is all at once. `max_fail_percentage` is of a batch and must be exceeded, not reached.
    """

    serial: tuple[int | str, ...] = ()
    max_fail_percentage: float | None = None
    any_errors_fatal: bool = False

    def why_stop(self, failed: int, size: int) -> str:
        """The reason to start no further host after `failed` failures in a batch of `size`; empty to go on."""
        share = f"{failed} of {size} hosts of the batch failed" if size > 1 else "the only host of the batch failed"
        if failed and self.any_errors_fatal:
            return f"{share}, and any error is fatal"
        if self.max_fail_percentage is not None and failed * 100 > self.max_fail_percentage * size:
            return f"{share}, more than {self.max_fail_percentage:g} %"
        # A dead canary is enough: a failure on all hosts is not repeated on the next machines.
        return share if failed == size else ""


@dataclass(frozen=True, slots=True)
class Stage:
    """The hosts of one play, in their order; `name` is the play's, for people."""

    hosts: tuple[HostSpec, ...]
    rules: Rules = Rules()
    name: str = ""

    def batches(self) -> tuple[tuple[HostSpec, ...], ...]:
        found, start = [], 0
        for size in sizes(self.rules.serial, len(self.hosts)):
            found.append(self.hosts[start : start + size])
            start += size
        return tuple(found)


def sizes(serial: tuple[int | str, ...], total: int) -> list[int]:
    """The sizes of the batches. A percentage is of all hosts, rounded down, at least one host."""
    found: list[int] = []
    left = total
    while left > 0:
        wanted = serial[min(len(found), len(serial) - 1)] if serial else total
        found.append(min(left, _hosts(wanted, total)))
        left -= found[-1]
    return found


def _hosts(size: int | str, total: int) -> int:
    if isinstance(size, int):
        return size
    return max(1, total * int(size.rstrip("%")) // 100)


def parse_serial(text: str) -> tuple[int | str, ...]:
    """Read `1,5,20%`. Raises ConfigError."""
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if not _SIZE.fullmatch(word):
            raise ConfigError(f"{word!r} is no size of a batch", hint="say hosts or 1% to 100%, such as 1,5,20%")
    return tuple(word if word.endswith("%") else int(word) for word in words)
