"""No attack gets through our door; through the plain daemon's, the known ones do, which shows that they are attacks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from nixprov_lab import control

from tests.attacks import arena
from tests.attacks.case import Case, Door, Outcome, Result
from tests.attacks.cases import ALL
from tests.lab.machines import skip_without_machines

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[str, Door], Result]]:
    skip_without_machines()
    lab = control.start(2, progress=print)
    try:
        arena.prepare(lab, tmp_path_factory.mktemp("operator"))
        yield {(result.case.name, result.door): result for result in arena.fight(lab, ALL)}
    finally:
        lab.stop()


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_through_the_plain_door_it_is_what_is_known(case: Case, results: dict[tuple[str, Door], Result]) -> None:
    result = results[case.name, Door.PLAIN]
    assert result.outcome is case.plain, result.trace


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_through_our_door_nothing_gets(case: Case, results: dict[tuple[str, Door], Result]) -> None:
    result = results[case.name, Door.OURS]
    assert result.outcome is case.ours, result.trace


def test_what_stays_open_is_said_to_be(results: dict[tuple[str, Door], Result]) -> None:
    still_open = {
        name for (name, door), result in results.items() if door is Door.OURS and result.outcome is Outcome.OPEN
    }
    assert still_open == {case.name for case in ALL if case.inherent}
