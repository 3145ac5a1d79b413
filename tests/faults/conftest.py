"""A lab of their own for tests that break things: a row that goes wrong must not take the other tests with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nixprov_lab.running import Lab

from tests.lab.machines import skip_without_machines, two_hosts
from tests.lab.operator import Operator

HERE = Path(__file__).parent
TIMEOUT_S = 1200


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What is marked `rare` is for `make faults`, which says so: every test here boots or breaks a machine."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.lab)
            item.add_marker(pytest.mark.timeout(TIMEOUT_S))
    rare = [] if os.environ.get("NIXPROV_RARE") else [item for item in items if item.get_closest_marker("rare")]
    if rare:
        config.hook.pytest_deselected(items=rare)
        items[:] = [item for item in items if item not in rare]


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    skip_without_machines()
    with two_hosts() as lab:
        yield lab


@pytest.fixture
def operators(lab: Lab, tmp_path: Path) -> Callable[[], Operator]:
    """Each call is another person, with an empty home."""
    count = iter(range(100))

    def another() -> Operator:
        home = tmp_path / f"home{next(count)}"
        home.mkdir()
        return Operator(lab, home)

    return another


@pytest.fixture
def operator(operators: Callable[[], Operator]) -> Operator:
    return operators()
