"""The live table: what a frame holds, how it is drawn on a terminal of a given size, and what stays afterwards."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from provisioner.events import Warned
from provisioner.outcome import Outcome
from provisioner.report.colour import Painter, can_redraw, wants_colour
from provisioner.report.html import page
from provisioner.report.live import LiveTable, draw
from provisioner.report.table import MAX_ROWS, Table
from provisioner.report.text import PlainText
from tests.unit.runs import Play, go, mixed, planned

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def fleet(hosts: int, forks: int, bad: int = 0) -> Play:
    """A run in its middle: `bad` hosts failed, `forks` are at work, the rest waits."""
    play = Play([f"build{number:03}" for number in range(hosts)])
    play.start()
    for name in play.names[:bad]:
        play.end(name, Outcome.FAILED, "it broke")
    for name in play.names[bad : bad + forks]:
        play.phases(name, "connect", "switch", seconds=0)
        play.log(name, ["copying"])
    return play


def drawn(table: Table, width: int = 80, height: int = 24) -> list[str]:
    console = Console(width=width, height=height, file=io.StringIO(), color_system=None)
    with console.capture() as captured:
        console.print(draw(table.frame(height), width))
    return captured.get().splitlines()


def test_a_line_a_host_with_phase_time_and_last_log_line() -> None:
    play = fleet(3, 1, bad=1)
    play.clock.now += 65
    lines = [line.rstrip() for line in drawn(Table(play.record))]
    assert lines == [
        "nixprov up  1:05  ━━━━━━━━╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌  1 of 3 hosts",
        "✗ build000 failed        2.0 s it broke",
        "▸ build001 switch         1:05 copying",
        "· build002 waiting",
        "1 failed · 1 at work · 1 waiting",
    ]


@pytest.mark.parametrize(("width", "height"), [(80, 24), (140, 40), (40, 10), (20, 6)])
@pytest.mark.parametrize("hosts", [1, 12, 200])
def test_a_frame_never_exceeds_the_terminal(width: int, height: int, hosts: int) -> None:
    play = fleet(hosts, forks=hosts // 4, bad=hosts // 5)
    for name in play.names:
        play.log(name, ["x" * 500 + "界" * 100])
    lines = drawn(Table(play.record), width, height)
    assert len(lines) <= min(height, MAX_ROWS + 4)
    assert all(len(line) <= width for line in lines)


def test_200_hosts_show_those_at_work_and_failures_and_sum_up_the_rest() -> None:
    lines = drawn(Table(fleet(200, forks=30, bad=20).record))
    assert sum(line.startswith("▸") for line in lines) == 12
    assert sum(line.startswith("✗") for line in lines) == 6
    assert lines[-2].startswith("18 more at work; 14 more failures; 150 waiting: build050, build051, build052")
    assert lines[-1].strip() == "20 failed · 30 at work · 150 waiting"


def test_a_host_at_work_keeps_its_line() -> None:
    play = fleet(200, forks=5)
    table = Table(play.record)
    before = [row.host for row in table.frame(24).rows]
    play.end("build001", Outcome.CHANGED)
    play.phases("build100", "connect", seconds=0)
    assert [row.host for row in table.frame(24).rows] == ["build000", "build100", *before[2:]]


def live(play: Play, **settings: Any) -> tuple[LiveTable, io.StringIO, io.StringIO]:
    out, result = io.StringIO(), io.StringIO()
    report = LiveTable(out, result, play.record, paint=Painter(on=settings.pop("colour", False)), **settings)
    play.reports.append(report)
    return report, out, result


def test_what_stays_ends_with_failures_totals_and_the_next_command() -> None:
    play = mixed()
    _, out, _ = live(play)
    go(play)
    play.summary()
    said = ESCAPES.sub("", out.getvalue())
    after = said[said.rindex("↶ host2: rolled back in switch") :].splitlines()
    assert after[0] == "↶ host2: rolled back in switch after 2.0 s"
    assert after[1] == "  │ error:"
    assert after[3] == "  │        error: The option `services.nosuch' does not exist."
    assert after[4:6] == ["  it does not evaluate; rolled back", "  nixos-rebuild build shows it"]
    assert after[7] == "! host3: unreachable in connect after 2.0 s"
    assert after[-1] == "next: nixprov up host2,host3"


def test_alike_failures_are_one_paragraph() -> None:
    play = Play([f"h{number}" for number in range(40)])
    _, out, _ = live(play)
    play.start()
    for number, name in enumerate(play.names):
        play.end(name, Outcome.UNREACHABLE, f"192.0.2.{number} port 22: timed out", f"is {name} up?")
    play.summary(failed_hosts_file="/state/r.failed")
    said = ESCAPES.sub("", out.getvalue())
    assert said.count("timed out\n") == 1
    assert "the same on h1, h2, h3, h4, h5, h6, h7, h8 and 31 more" in said
    assert said.splitlines()[-1] == "next: nixprov up --limit @/state/r.failed"


def test_what_each_of_alike_hosts_left_behind_is_said() -> None:
    play = Play(["h0", "h1"])
    _, out, _ = live(play)
    play.start()
    for number, name in enumerate(play.names):
        play.end(name, Outcome.CI, "GitLab does not answer", remains=(f"runner {7 + number} in GitLab",))
    play.summary()
    said = ESCAPES.sub("", out.getvalue())
    assert said.count("GitLab does not answer\n") == 1
    assert "left behind on h0: runner 7 in GitLab\n  left behind on h1: runner 8 in GitLab\n" in said
    assert "left behind on h1: runner 8 in GitLab" in page(play.record)


def test_the_result_goes_to_its_own_stream() -> None:
    play = Play(["host1"], "plan")
    _, out, result = live(play, diff=True)
    play.start()
    play.phases("host1", "connect")
    play.emit(planned("host1", check=True))
    play.end("host1", Outcome.CHANGED)
    play.summary()
    assert "+tags: b" in result.getvalue()
    assert "+tags: b" not in out.getvalue()
    assert "\x1b" not in result.getvalue()


@pytest.mark.parametrize(("verb", "word"), [("plan", "to change"), ("plan down", "to change"), ("up", "changed")])
def test_a_plan_has_changed_nothing_and_nobody_says_so(verb: str, word: str) -> None:
    play = Play(["host1"], verb)
    plain = io.StringIO()
    _, out, _ = live(play)
    play.reports.append(PlainText(plain, io.StringIO(), play.record))
    play.start()
    play.phases("host1", "connect")
    play.end("host1", Outcome.CHANGED)
    play.summary()
    for said in (ESCAPES.sub("", out.getvalue()), plain.getvalue(), page(play.record)):
        assert re.search(rf"host1\b.*\b{word}\b", said)
        assert ("changed" in re.sub("o-changed", "", said.partition("<body>")[2] or said)) == (word == "changed")


def test_no_colour_means_no_colour_in_the_table_either() -> None:
    for colour in (False, True):
        play = mixed()
        _, out, _ = live(play, colour=colour)
        go(play)
        play.summary()
        assert bool(re.search(r"\x1b\[[0-9;]*3[1-7]m", out.getvalue())) is colour


def test_warnings_that_say_the_same_share_a_line() -> None:
    play = Play(["host1", "host2", "host3"])
    _, out, _ = live(play)
    play.start()
    for name in play.names[:2]:
        play.emit(Warned(name, f"the key of {name} was recorded"))
    play.emit(Warned("host3", "disk is full"))
    play.summary()
    said = ESCAPES.sub("", out.getvalue())
    assert "warning: host1, host2: the key of HOST was recorded\n" in said
    assert "warning: host3: disk is full\n" in said


def test_nothing_is_drawn_after_the_end() -> None:
    play = mixed()
    report, out, _ = live(play)
    go(play)
    play.summary()
    report.close()
    before = out.getvalue()
    play.phases("host4", "connect")
    assert out.getvalue() == before


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "colour", "redraw"),
    [
        ({"TERM": "xterm"}, True, True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False, True),
        ({"TERM": "xterm", "NO_COLOR": ""}, True, True),
        ({"TERM": "xterm", "NO_COLOR": "1", "CLICOLOR_FORCE": "1"}, False, True),
        ({"TERM": "xterm", "CLICOLOR": "0"}, False, True),
        ({"TERM": "xterm", "CLICOLOR": "0", "FORCE_COLOR": "1"}, True, True),
        ({"TERM": "dumb"}, False, False),
        ({"TERM": "dumb", "CLICOLOR_FORCE": "1"}, True, False),
        ({}, False, False),
    ],
)
def test_rules_of_colour(environment: dict[str, str], colour: bool, redraw: bool) -> None:
    assert wants_colour(Terminal(), environment) is colour
    assert can_redraw(Terminal(), environment) is redraw
    forced = any(environment.get(name, "0") != "0" for name in ("CLICOLOR_FORCE", "FORCE_COLOR"))
    assert wants_colour(io.StringIO(), environment) is (forced and not environment.get("NO_COLOR"))
    assert can_redraw(io.StringIO(), environment) is False
