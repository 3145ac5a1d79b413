"""Several reports as one; what remembers the run stands first, so that the others find it up to date."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from provisioner.app import Report
from provisioner.events import Event


@dataclass(frozen=True, slots=True)
class Both:
    """A report that can no longer be written (`| head`, a full disk) ends there, and the run does not: see `lost`."""

    reports: Sequence[Report]
    lost: dict[int, OSError] = field(default_factory=dict)

    def event(self, event: Event) -> None:
        self._tell(lambda report: report.event(event))

    def summary(self, fields: Mapping[str, object]) -> None:
        self._tell(lambda report: report.summary(fields))

    def _tell(self, say: Callable[[Report], None]) -> None:
        for place, report in enumerate(self.reports):
            if place in self.lost:
                continue
            try:
                say(report)
            except OSError as error:
                self.lost[place] = error
