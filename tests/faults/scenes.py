"""What must be so for a point to be reached: made before the run that dies, and ended when it is dead."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from nixprov_lab.running import Lab

from tests.faults import api
from tests.faults.machine import until_running
from tests.lab.operator import Operator

SECOND: Final = "small"


@dataclass(frozen=True)
class Place:
    """One host of a lab, and people who come to it one after the other, each with a home of their own."""

    lab: Lab
    host: str
    homes: Path

    def operator(self) -> Operator:
        home = self.homes / secrets.token_hex(4)
        home.mkdir()
        return Operator(self.lab, home)

    def runners(self) -> list[int]:
        return [runner["id"] for runner in self.lab.gitlab.runners() if runner["host"] == self.host]

    def two_runners(self) -> str:
        """An inventory in which the host has a second runner."""
        path = self.homes / f"two-{self.host}"
        names = f"[{{'name':'default'}},{{'name':'{SECOND}'}}]"
        text = self.lab.files.inventory.read_text()
        path.write_text(re.sub(rf"^({self.host} .*)$", rf'\1 nixprov_runners="{names}"', text, flags=re.MULTILINE))
        return str(path)

    def dies(self, verb: str, point: str) -> None:
        self.operator()(verb, self.host, "--yes", "--json", NIXPROV_CRASH=point)


def _nothing(_place: Place) -> None:
    return


@dataclass(frozen=True)
class Scene:
    """`options` are of the run that dies; `installed`: how the host is then, None: as its verb needs it."""

    options: tuple[str, ...] = ()
    installed: bool | None = None
    runners: int = 1
    before: Callable[[Place], None] = _nothing
    after: Callable[[Place], None] = _nothing


def _doubled(place: Place) -> None:
    api.double(place.lab, place.runners()[0])


def _is_busy(place: Place) -> None:
    job = place.lab.gitlab.queue_job("sleep 600", host=place.host)
    until_running(place.lab, job)


def _is_idle(place: Place) -> None:
    mine = place.runners()
    for job in place.lab.gitlab.jobs():
        if job["status"] == "running" and job["runner_id"] in mine:
            place.lab.gitlab.cancel_job(job["id"])


def _deletes_nothing(place: Place) -> None:
    for path in _paths(place):
        place.lab.gitlab.set_fault("html_502", method="DELETE", path_regex=path, times=None)


def _deletes_again(place: Place) -> None:
    """This host's runners: other hosts have trials of their own at this moment, and the same GitLab."""
    for path in _paths(place):
        place.lab.gitlab.clear_faults(path)


def _paths(place: Place) -> list[str]:
    return [f"/runners/{runner}$" for runner in place.runners()]


SCENES: Final[Mapping[str, Scene]] = MappingProxyType(
    {
        "": Scene(),
        "token lost": Scene(before=lambda place: place.dies("up", "after:create")),
        "new tokens": Scene(options=("--new-tokens",), installed=True),
        "paused": Scene(installed=True, before=lambda place: api.pause(place.lab, place.runners()[0])),
        "doubled": Scene(installed=True, before=_doubled),
        "left by up": Scene(installed=False, before=lambda place: place.dies("up", "after:write")),
        "left by down": Scene(installed=True, before=lambda place: place.dies("down", "after:write")),
        "at once": Scene(options=("--no-confirm",)),
        "busy": Scene(options=("--drain-limit", "1"), before=_is_busy, after=_is_idle),
        "deaf": Scene(before=_deletes_nothing, after=_deletes_again),
        "two": Scene(runners=2),
    }
)
