"""JSON lines on stdout: one event a line, in the shapes of `events.documents`.

ASCII alone, the rest as JSON's own escapes. Nothing is lost, and no line steers a terminal that shows it.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TextIO

from provisioner.events import Event, Planned
from provisioner.events.documents import VERSION
from provisioner.masking import without_tokens


@dataclass(slots=True)
class JsonLines:
    """`diff`: plans carry their diffs."""

    out: TextIO
    diff: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def event(self, event: Event) -> None:
        if isinstance(event, Planned) and not self.diff:
            event = replace(event, diffs=())
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = json.dumps({**event.to_json(), "time": time, "version": VERSION}, ensure_ascii=True)
        with self._lock:
            self.out.write(without_tokens(line) + "\n")
            self.out.flush()
