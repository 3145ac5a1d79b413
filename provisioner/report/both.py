"""Several reports as one; what remembers the run stands first, so that the others find it up to date."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from provisioner.app import Report
from provisioner.events import Event


@dataclass(frozen=True, slots=True)
class Both:
    reports: Sequence[Report]

    def event(self, event: Event) -> None:
        for report in self.reports:
            report.event(event)

    def summary(self, fields: Mapping[str, object]) -> None:
        for report in self.reports:
            report.summary(fields)
