"""A job's trace as on GitLab's page: without the times and section marks that gitlab-runner writes for machines.

gitlab-runner 19 begins each line with time and stream, and with `+` when it continues the line before (FF_TIMESTAMPS).
Its sections are marked by `section_start:TIME:NAME` and `section_end:TIME:NAME` with a carriage return (GitLab docs,
ci/jobs/job_logs). Colours stay: the job's own text is as foreign as before.
"""

from __future__ import annotations

import re
from typing import Final

_STAMP: Final = re.compile(r"^\d{4}-\d\d-\d\dT[0-9:.]+Z [0-9a-f]{2}[OE]([+ ])")
_SECTION: Final = re.compile(r"section_(?:start|end):\d+:[\w.-]+(?:\[[^\]]*\])?\r?(?:\x1b\[0K)?")


def readable(trace: str) -> str:
    """The whole trace for people. Text without stamps loses only its section marks."""
    lines: list[str] = []
    for line in trace.split("\n"):
        stamp = _STAMP.match(line)
        text = line[stamp.end() :] if stamp else line
        if stamp and stamp[1] == "+" and lines:
            lines[-1] += text
        else:
            lines.append(text)
    shown = [_SECTION.sub("", line) for line in lines]
    return "\n".join(text for text, line in zip(shown, lines, strict=True) if text or not line)


class Reader:
    """The readable text of a growing trace: whole lines only, each once."""

    def __init__(self) -> None:
        self._trace = ""
        self._shown = 0

    def feed(self, piece: str, *, is_end: bool = False) -> str:
        """The lines that became complete with `piece`; a line may still be continued until the next one begins."""
        self._trace += piece
        whole = self._trace if is_end else self._trace.rpartition("\n")[0]
        lines = readable(whole).split("\n")
        complete = lines if is_end else lines[:-1]
        new, self._shown = complete[self._shown :], max(self._shown, len(complete))
        return "".join(f"{line}\n" for line in new)
