"""The live table: drawn over itself on a terminal, a few times a second, never higher than the terminal.

Owns the drawing; the content is `table`'s, the text that stays afterwards `ending`'s. The only importer of rich.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, TextIO

from provisioner.events import Event, Logged, PhaseBegun, RunDone, Warned
from provisioner.report.advice import Typed
from provisioner.report.colour import Painter
from provisioner.report.ending import Ending, asked_for, warning_line
from provisioner.report.foreign import unguarded, visible
from provisioner.report.record import RunRecord
from provisioner.report.table import Frame, Row, Table
from provisioner.report.wording import clean, names

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.text import Text

FRAMES_PER_SECOND: Final = 4
_SHOW_CURSOR: Final = "\x1b[?25h"  # DECTCEM
_ANY: Final = "HOST"
_BAR_WIDTH: Final = 24
_HOST_WIDTH: Final = 32
_WORD_WIDTH: Final = 11  # "unreachable"; only "rollback failed" is longer
_TIME_WIDTH: Final = 7


class LiveTable:
    """A report for a person at a terminal; `close()` always gives the terminal back.

    `record` must have been given each event before this report. The table appears with the first host's event.
    Questions asked before it (passwords) have the terminal to themselves.
    """

    def __init__(
        self,
        out: TextIO,
        result: TextIO,
        record: RunRecord,
        *,
        typed: Typed | None = None,
        paint: Painter | None = None,
        paint_result: Painter | None = None,
        verbose: bool = False,
        debug: bool = False,
        diff: bool = False,
    ) -> None:
        self._out, self._result, self._record = out, result, record
        self._paint, self._paint_result = paint or Painter(), paint_result or Painter()
        self._verbose, self._diff = verbose, diff
        self._table = Table(record)
        self._console = _console(out, colour=self._paint.on)
        self._ending = Ending(record, typed or Typed(), self._paint, debug, self._console.size.width)
        self._live = _live(self._console, self._render)
        self._drawn = self._closed = False
        self._lock = threading.RLock()

    def event(self, event: Event) -> None:
        with self._lock:
            match event:
                case PhaseBegun() if not (self._drawn or self._closed):
                    self._drawn = True
                    self._live.start(refresh=True)
                case Logged(host, text) if self._verbose:
                    self._above(f"{clean(host)}: {clean(text)}")
                case Warned("", text):
                    self._above(warning_line(text, self._paint))
                case RunDone():
                    self._end()

    def _end(self) -> None:
        self.close()
        asked = asked_for(self._record, self._paint_result, diff=self._diff, applied=self._diff)
        self._write(self._result, asked)
        self._write(self._out, self._warnings())
        self._write(self._out, self._ending.failures())
        self._write(self._out, ("", *self._ending.total(), *self._ending.advice()))

    def close(self) -> None:
        """Stop drawing, show the cursor again; may be called twice."""
        with self._lock:
            was_drawn, self._drawn, self._closed = self._drawn, False, True
            self._live.transient = self._record.done is not None and not self._stays()
            try:
                self._live.stop()
            finally:
                # rich cannot do this when it was itself interrupted in the middle of a write.
                if was_drawn:
                    self._write(unguarded(self._out), (), end=_SHOW_CURSOR)

    def _stays(self) -> bool:
        """Keep the last frame when it has every host and no later text says the same."""
        asked = any(host.check or host.status for host in self._record.hosts.values())
        return not asked and self._table.fits(self._console.size.height)

    def _warnings(self) -> Iterable[str]:
        """Hosts that were warned of the same thing share a line."""
        said: dict[str, list[str]] = {}
        for host in self._record.hosts.values():
            for text in host.warnings:
                said.setdefault(text.replace(host.name, _ANY), []).append(host.name)
        label = self._paint("warning", "yellow")
        for text, hosts in said.items():
            if len(hosts) == 1:
                yield f"{label}: {clean(hosts[0])}: {text.replace(_ANY, clean(hosts[0]))}"
            else:
                yield f"{label}: {names(hosts)}: {text}"

    def _above(self, line: str) -> None:
        from rich.text import Text

        self._console.print(Text.from_ansi(line), soft_wrap=True)

    def _write(self, stream: TextIO, lines: Iterable[str], end: str = "") -> None:
        stream.writelines(f"{line}\n" for line in lines)
        stream.write(end)
        stream.flush()

    def _render(self) -> RenderableType:
        return draw(self._table.frame(self._console.size.height - 1), self._console.size.width)


def draw(frame: Frame, width: int) -> RenderableType:
    """A frame as lines that fill `width` at most; no line wraps."""
    from rich.console import Group
    from rich.table import Table as Grid

    grid = Grid.grid(padding=(0, 1, 0, 0), expand=True)
    # Widths that do not depend on the current text: columns must not move.
    widest = min(frame.longest_name, max(8, width // 4), _HOST_WIDTH)
    for fixed in (1, widest, _WORD_WIDTH):
        grid.add_column(width=fixed, no_wrap=True, overflow="ellipsis")
    grid.add_column(width=_TIME_WIDTH, no_wrap=True, justify="right")
    grid.add_column(no_wrap=True, ratio=1, overflow="ellipsis")
    for row in frame.rows:
        grid.add_row(*_cells(row))
    return Group(_head(frame), grid, *(_note(note) for note in frame.notes), _counts(frame))


def _head(frame: Frame) -> Text:
    done = _BAR_WIDTH * frame.ended // max(1, frame.hosts)
    head = _text("").append(visible(frame.title), "bold").append(f"  {frame.time}")
    if frame.hosts > 1:
        head.append("  ").append("━" * done, "green").append("╌" * (_BAR_WIDTH - done), "dim")
        head.append(f"  {frame.ended} of {frame.hosts} hosts")
    return head


def _note(note: str) -> Text:
    return _text(note, "yellow" if note.startswith("interrupted") else "dim")


def _counts(frame: Frame) -> Text:
    counts = _text("")
    for position, (number, word, style) in enumerate(frame.counts):
        counts.append(" · " if position else "", "dim").append(f"{number} {word}", style)
    return counts


def _cells(row: Row) -> Iterable[Text]:
    yield _text(row.symbol, row.style)
    yield _text(row.host, "dim" if row.style == "dim" else "")
    yield _text(row.word, row.style)
    yield _text(row.time, "dim")
    # A failure is read, progress is glanced at.
    yield _text(row.text, "" if row.style in ("red", "yellow", "magenta") else "dim")


def _text(said: str, style: str = "") -> Text:
    """The one place where text is drawn: drawing goes past the guard of the stream."""
    from rich.text import Text

    return Text(visible(said), style, no_wrap=True, overflow="ellipsis")


def _console(out: TextIO, *, colour: bool) -> Console:
    from rich.console import Console

    return Console(
        file=unguarded(out),
        force_terminal=True,
        no_color=not colour,
        color_system="auto" if colour else None,
        markup=False,
        emoji=False,
        highlight=False,
    )


def _live(console: Console, render: Callable[[], RenderableType]) -> Live:
    from rich.live import Live

    return Live(
        console=console,
        get_renderable=render,
        refresh_per_second=FRAMES_PER_SECOND,
        redirect_stdout=False,
        redirect_stderr=False,
        vertical_overflow="crop",
    )
