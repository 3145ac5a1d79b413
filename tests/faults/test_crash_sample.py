"""A sample of the matrix that `make faults` runs whole: one point of each kind, on both sides of every switch."""

from __future__ import annotations

import pytest
from nixprov_lab.running import Lab

from provisioner.engine import crash
from tests.faults.matrix import Fault, Matrix, all_faults

# In this order few of them need a start of their own: each begins where the one before has ended.
SAMPLE = (
    Fault("up", "after:create", "down"),
    Fault("up", "host:write:staged", "down"),
    Fault("up", "host:write:9", "down"),
    Fault("up", "unit:activated", "up"),
    Fault("down", "after:pause", "up"),
    Fault("down", "host:claim:staged", "up"),
    Fault("down", "host:write:3", "down"),
    Fault("up", "after:write", "up"),
    Fault("up", "host:write:2", "up", "new tokens"),
    Fault("down", "after:delete", "up"),
    Fault("down", "unit:set", "down"),
)


@pytest.fixture(scope="module")
def matrix(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Matrix:
    return Matrix(lab, "host1", tmp_path_factory.mktemp("homes"))


@pytest.mark.parametrize("fault", SAMPLE, ids=str)
def test_another_operator_ends_it_well(matrix: Matrix, fault: Fault) -> None:
    row = matrix.run(fault)
    assert row.reached, "nothing died: the point is not there any more"
    assert row.problems == ()


def test_every_effect_has_both_sides_in_the_matrix() -> None:
    points = {fault.point for fault in all_faults()}
    for effect in (*crash.DETOURS, *(effect for effects in crash.EFFECTS.values() for effect in effects)):
        for side in ("before", "after"):
            assert any(point.endswith(f"{side}:{effect}") for point in points), (side, effect)
