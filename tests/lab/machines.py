"""Machines for tests: where there can be none, and a lab that a person may name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from nixprov_lab import control
from nixprov_lab.process import missing_for_lab
from nixprov_lab.running import LAB_VARIABLE, Lab


def skip_without_machines() -> None:
    """Skip on a computer that cannot run machines; in CI that is a failure."""
    problem = missing_for_lab()
    if problem and os.environ.get("CI"):
        pytest.fail(f"in CI the lab's tests must run, but {problem}", pytrace=False)
    if problem:
        pytest.skip(f"lab tests: {problem}")


@contextmanager
def two_hosts() -> Iterator[Lab]:
    """A lab with host1 and host2, stopped at the end.

    NIXPROV_LAB names one that runs already, for a person who tries a single test.
    """
    if os.environ.get(LAB_VARIABLE):
        yield control.find()
        return
    started = control.start(2, progress=print)
    try:
        yield started
    finally:
        started.stop()
