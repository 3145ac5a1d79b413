"""Several reports as one; the record of the run stands first, so that the others find it up to date."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from provisioner.app import Report
from provisioner.events import Event


@dataclass(frozen=True, slots=True)
class Both:
    """A report that can no longer be written (`| head`, a full disk) ends there. The run goes on: see `lost`."""

    reports: Sequence[Report]
    lost: dict[int, OSError] = field(default_factory=dict)

    def event(self, event: Event) -> None:
        for place, report in enumerate(self.reports):
            if place in self.lost:
                continue
            try:
                report.event(event)
            except OSError as error:
                self.lost[place] = error
