"""The HTML page, its timeline, JUnit XML, diffs, the lines that matter and the next command."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioner.ci.base import Difference, RunnerAction, RunnerVerb
from provisioner.ci.gitlab.compare import settings
from provisioner.ci.gitlab.words import WORDS
from provisioner.cli.edge import Options
from provisioner.cli.reports import reporting, typed
from provisioner.diff import plan_diffs, runner_diff, unified
from provisioner.errors import ConfigError
from provisioner.events import BugMet, RunnerGone, RunStarted, Warned
from provisioner.masking import masked
from provisioner.model import RunnerSpec
from provisioner.outcome import HostResult, Outcome
from provisioner.plan import FileChange
from provisioner.report import html, junit
from provisioner.report.advice import Typed, next_commands
from provisioner.report.diff import for_people
from provisioner.report.lines import that_matter
from provisioner.report.logs import HostLogs
from provisioner.report.record import LOG_LINES_KEPT
from provisioner.report.timeline import PHASES
from provisioner.report.wording import ago, clean, elapsed
from provisioner.verb import Verb
from tests.unit.hosts import spec, wanted
from tests.unit.runs import BUILD_LOG, CHANGE, PREVIEW, Play, go, host_plan, mixed, planned, status_read

VOID = {"meta", "br", "line"}


class Strict(HTMLParser):
    """Balanced tags, and every tag, attribute and text that there is."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(play: Play) -> Strict:
    parser = Strict()
    parser.feed(html.page(play.record, Typed(Verb(play.verb))))
    parser.close()
    assert parser.open == []
    return parser


def test_the_page_has_outcomes_failures_diffs_and_the_picture() -> None:
    play = mixed()
    go(play)
    play.summary()
    page = parsed(play)
    for text in (
        "nixprov up: 4 hosts",
        "by anna@desk",
        "rolled back in switch: host2",
        "it does not evaluate",
        "The option `services.nosuch' does not exist.",
        "nixprov up host2,host3",
        "+tags: nix",
        "-b\n",
        "… unfinished",
    ):
        assert text in page.text, text
    assert page.tags.count("svg") == 1
    assert page.tags.count("details") == 4


def test_the_page_says_what_becomes_of_the_system() -> None:
    play = Play(["host1", "host2"], "plan")
    play.start()
    play.emit(planned("host1", check=True, system=PREVIEW))
    play.log("host2", ["nixprov: the new system has 3 paths more, 1 less, 20 KiB in all"])
    page = parsed(play).text
    assert "system: 2 paths more, 1 less, +2.0 KiB\n  new podman 5.4.2 (+2.0 KiB)\n  new units: a<b>.service" in page
    assert "system: 3 paths more, 1 less, 20 KiB in all" in page


def test_each_phase_has_its_colour_in_light_and_in_dark() -> None:
    styles = Path(html.__file__).with_name("page.css").read_text(encoding="utf-8")
    for phase in PHASES:
        assert styles.count(f"--p-{phase}: #") == 2, phase
        assert f".p-{phase} {{" in styles, phase


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    play = mixed()
    go(play)
    page = html.page(play.record)
    parser = parsed(play)
    assert not {"script", "link", "img", "iframe", "object"} & set(parser.tags)
    assert "default-src 'none'" in page
    assert not [name for name, _ in parser.attributes if name.startswith("on") or name == "src"]
    assert "url(" not in page
    assert "@import" not in page


EVIL = "</pre><script>alert('x')</script>\"&lt;<img src=x onerror=y>"


def test_hostile_text_stays_text() -> None:
    play = mixed((EVIL, f"{EVIL}2", f"{EVIL}3"))
    go(play)
    play.log(play.names[1], [EVIL])
    play.emit(Warned(play.names[0], EVIL))
    play.emit(Warned("", EVIL))
    play.emit(BugMet(play.names[2], EVIL))
    play.emit(RunnerGone(EVIL, EVIL, 1, EVIL))
    play.emit(status_read(EVIL, EVIL))
    play.phases(play.names[0], EVIL)
    play.summary()
    page = parsed(play)
    assert not {"script", "img"} & set(page.tags)
    assert page.text.count("alert('x')") >= 10


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_text_can_break_the_page_or_the_xml(name: str, line: str) -> None:
    play = Play([name or "h"])
    play.start()
    play.phases(play.names[0], "connect", line)
    play.log(play.names[0], [line])
    play.end(play.names[0], Outcome.FAILED, line, line)
    parsed(play)
    ET.fromstring(junit.document(play.record))  # noqa: S314 - our own


def test_a_page_of_200_hosts_is_of_moderate_size() -> None:
    play = Play([f"build{number:03}" for number in range(200)])
    play.start()
    for name in play.names:
        play.phases(name, "connect", "probe", "plan", "create", "write", "switch", "confirm")
        play.emit(planned(name))
        play.log(name, [f"line {number}" for number in range(LOG_LINES_KEPT + 1)])
        play.end(name, Outcome.CHANGED)
    assert len(html.page(play.record)) < 1_500_000


def test_bars_stand_where_the_phases_were() -> None:
    play = Play(["host1"])
    play.start()
    play.phases("host1", "connect", seconds=10)
    play.phases("host1", "switch", seconds=30)
    play.end("host1", Outcome.CHANGED)
    bars = re.findall(r'<rect class="p-(\w+)" x="([\d.]+)" y="\d+" width="([\d.]+)"', html.page(play.record))
    (_, x1, width1), (_, x2, width2) = bars
    assert [phase for phase, _, _ in bars] == ["connect", "switch"]
    assert float(width2) / float(width1) == pytest.approx(3, abs=0.02)
    assert float(x2) == pytest.approx(float(x1) + float(width1) + 0.4, abs=0.11)


def suite(play: Play) -> ET.Element:
    found = ET.fromstring(junit.document(play.record)).find("testsuite")  # noqa: S314 - our own
    assert found is not None
    return found


def test_junit_has_a_case_a_host() -> None:
    play = mixed()
    go(play)
    play.summary()
    found = suite(play)
    assert {key: found.get(key) for key in ("name", "tests", "failures", "errors", "skipped")} == {
        "name": "nixprov up",
        "tests": "4",
        "failures": "1",
        "errors": "1",
        "skipped": "1",
    }
    changed, broken, away, unbegun = found.findall("testcase")
    assert (changed.get("classname"), changed.get("name"), changed.get("time")) == ("nixprov.up", "host1", "2.000")
    assert [child.tag for child in changed] == ["system-out"]
    failure = broken.find("failure")
    assert failure is not None
    assert (failure.get("type"), failure.get("message")) == ("rolled back", "it does not evaluate; rolled back")
    assert "services.nosuch" in (failure.text or "")
    assert away.find("error") is not None
    assert unbegun.find("skipped") is not None


def test_files_are_written_at_the_end_whole_and_only_of_a_run_that_began(tmp_path: Path) -> None:
    page, xml = tmp_path / "run.html", tmp_path / "run.xml"
    page.write_text("before")
    page.chmod(0o666)
    options = Options(junit=str(xml), report=str(page), progress="plain")
    with reporting(options, Verb.UP):
        pass
    assert (page.read_text(), xml.exists()) == ("before", False)
    with pytest.raises(KeyboardInterrupt), reporting(options, Verb.UP) as report:  # noqa: PT012 - the run is cut short
        report.event(RunStarted("up", "r", "o", ("host1",), WORDS))
        assert page.read_text() == "before"
        raise KeyboardInterrupt
    assert "unfinished" in page.read_text()
    assert xml.read_bytes().startswith(b"<?xml")
    assert {file.name for file in tmp_path.iterdir()} == {"run.html", "run.xml"}
    assert page.stat().st_mode & 0o777 == xml.stat().st_mode & 0o777 == 0o600


def test_logs_are_a_file_a_host_and_no_name_leads_out_of_the_folder(tmp_path: Path) -> None:
    play = mixed(("host1", "../evil", "host3"))
    logs = HostLogs(tmp_path / "logs", play.record)
    logs.folder.mkdir()
    play.reports.append(logs)
    go(play)
    play.summary()
    assert sorted(file.name for file in logs.folder.iterdir()) == ["..%2Fevil.log", "host1.log", "host3.log"]
    assert [file.name for file in tmp_path.iterdir()] == ["logs"]
    lines = logs.path("../evil").read_text().splitlines()
    assert [line[10:] for line in lines[:4]] == ["== connect", "== probe", "== switch", BUILD_LOG[0]]
    assert lines[-1][10:] == "== rolled back; it does not evaluate; rolled back; nixos-rebuild build shows it"
    assert logs.path("host3").stat().st_mode & 0o777 == 0o600


def test_a_log_is_nobody_elses_to_read_and_no_link_is_followed(tmp_path: Path) -> None:
    play = mixed(("host1", "host2", "host3"))
    logs = HostLogs(tmp_path, play.record)
    (tmp_path / "victim").write_text("mine")
    logs.path("host1").symlink_to("victim")
    logs.path("host2").write_text("before")
    logs.path("host2").chmod(0o666)
    play.reports.append(logs)
    go(play)
    assert (tmp_path / "victim").read_text() == "mine"
    for name in ("host1", "host2"):
        assert logs.path(name).lstat().st_mode & 0o170777 == 0o100600
        assert logs.path(name).read_text().endswith("\n")


def test_a_file_that_cannot_be_written_ends_the_run_before_it_begins(tmp_path: Path) -> None:
    options = Options(report=str(tmp_path / "no/such.html"), progress="plain")
    with pytest.raises(ConfigError, match=r"such\.html cannot be written"), reporting(options, Verb.UP):
        pass


def test_diffs_of_files() -> None:
    assert unified(CHANGE) == (
        "--- /etc/nixos/configuration.nix\t(host)\n+++ /etc/nixos/configuration.nix\t(nixprov)\n"
        "@@ -1,2 +1,2 @@\n a\n-b\n+c\n"
    )
    assert unified(FileChange("/a", None, b"x")).splitlines() == [
        "--- /dev/null",
        "+++ /a\t(nixprov)",
        "@@ -0,0 +1 @@",
        "+x",
        "\\ No newline at end of file",
    ]
    assert unified(FileChange("/a", b"x\n", b"x\n")) == ""


LINES = st.lists(st.sampled_from(["a", "b", "c", ""]), max_size=30)


@given(LINES, LINES, st.booleans(), st.booleans())
def test_a_diff_is_what_patch_makes_the_file_of(old: list[str], new: list[str], cut_old: bool, cut_new: bool) -> None:
    before, after = ("\n".join(lines) + "\n" * (not cut) for lines, cut in ((old, cut_old), (new, cut_new)))
    assert patched(before, unified(FileChange("/f", before.encode(), after.encode()))) == after


def patched(text: str, diff: str) -> str:
    """As patch(1) does: each line of a hunk is where it says."""
    old, new, place, last = text.splitlines(keepends=True), "", 0, ""
    for line in diff.splitlines(keepends=True)[2:]:
        if hunk := re.match(r"@@ -(\d+)(,0)?", line):
            start = int(hunk[1]) - (not hunk[2])
            new, place = new + "".join(old[place:start]), start
        elif line.startswith("\\"):
            new = new[:-1] if last != "-" else new
        else:
            last = line[0]
            assert last == "+" or old[place].rstrip("\n") == line[1:-1]
            place, new = place + (last != "+"), new + line[1:] * (last != "-")
    return new + "".join(old[place:])


def test_a_file_of_a_host_cannot_make_the_comparison_long() -> None:
    """With difflib alone hours: each of many lines is among many that are alike."""
    lines = [f"{number % 150}\n" for number in range(200_000)]
    before = "".join(["first\n", *lines, "last\n"]).encode()
    after = "".join(["another\n", *reversed(lines), "end\n"]).encode()
    diff = unified(FileChange("/f", before, after))
    assert diff.count("\n-") == diff.count("\n+") - 1 == 200_002
    inserted = "".join(["first\n", *lines[:100_000], "new\n", *lines[100_000:], "last\n"]).encode()
    told = unified(FileChange("/f", before, inserted)).splitlines()[2:]
    assert told == ["@@ -99999,6 +99999,7 @@", " 97", " 98", " 99", "+new", " 100", " 101", " 102"]


def test_a_line_ends_where_an_editor_ends_it() -> None:
    """Elsewhere a host's file could have lines in a diff that bear no sign."""
    said = "a\u2028+b\x0cc\x85d\re\n"
    assert unified(FileChange("/f", b"x\n", said.encode())).split("\n")[3:] == ["-x", f"+{said[:-1]}", ""]


def test_our_own_code_is_one_line_for_people_where_it_comes_or_goes_as_a_whole() -> None:
    folder = "/etc/nixos/nixprov"
    code, more, settings = (f"{folder}/{name}.nix" for name in ("daemon", "filter", "settings"))
    new = (unified(FileChange(code, None, b"a\nb\n")), unified(FileChange(more, None, b"a\n")))
    gone = unified(FileChange(code, b"a\n", None))
    others = (unified(FileChange(code, b"a\n", b"b\n")), unified(FileChange(settings, None, b"a\n")), unified(CHANGE))
    assert for_people((*new, gone, *others)) == (
        f"--- /dev/null\n+++ {folder}\t(nixprov)\n@@ 2 files, 3 lines of nixprov's own @@\n",
        f"--- {folder}\t(host)\n+++ /dev/null\n@@ 1 file, 1 line of nixprov's own @@\n",
        *others,
    )


def test_diffs_of_runners_show_settings_before_and_after() -> None:
    changed = RunnerAction("big", RunnerVerb.UPDATE, "", 7, (Difference("note", "a\nb", "c"),))
    assert runner_diff(changed, WORDS) == (
        "--- GitLab runner big #7\t(GitLab)\n+++ GitLab runner big #7\t(nixprov)\n-note: a\\nb\n+note: c\n"
    )
    sets = tuple(settings(RunnerSpec(tags=("b", "a"), maximum_timeout_s=700)))
    made = runner_diff(RunnerAction("big", RunnerVerb.CREATE, settings=sets), WORDS)
    assert made.startswith("--- /dev/null\n+++ GitLab runner big\t(nixprov)\n+type: instance_type\n")
    assert "+tags: a, b\n" in made
    assert "+maximum_timeout: 700 s\n" in made
    assert (
        runner_diff(RunnerAction("big", RunnerVerb.DELETE, id=7), WORDS)
        == "--- GitLab runner big #7\t(GitLab)\n+++ /dev/null\n"
    )
    assert runner_diff(RunnerAction("big", RunnerVerb.RESET_TOKEN, id=7), WORDS) == ""
    assert len(plan_diffs(host_plan(), (CHANGE,))) == 3


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('users.root.initialHashedPassword = "$6$abc";', 'users.root.initialHashedPassword = "***";'),
        ("services.x.token = ''abc'';", 'services.x.token = "***";'),
        ('environment.SECRET_KEY = "abc";', 'environment.SECRET_KEY = "***";'),
        ('"password" = "abc";', '"password" = "***";'),
        ('  "NPM_TOKEN": "abc",', '  "NPM_TOKEN": "***",'),
        (r'"secret": "a\"b\\", "x": "y"', r'"secret": "***", "x": "y"'),
        ('password = "ab\\\nc";', 'password = "***";'),
        ("secret = ''\n  abc\n'';", 'secret = "***";'),
        ('"tokenVersion": "20260101"', '"tokenVersion": "20260101"'),
        ('passwordFile = "/run/key";', 'passwordFile = "/run/key";'),
        ('tokenVersion = "20260101";', 'tokenVersion = "20260101";'),
        ("# glrt-AbCdEfGhIj", "# glrt-***"),
        ("tags = [ ];", "tags = [ ];"),
    ],
)
def test_secrets_in_diffs_are_stars(text: str, shown: str) -> None:
    assert masked(text) == shown


def test_a_secret_among_a_jobs_variables_is_stars_in_what_would_be_written() -> None:
    """It has no place there (docs/inventory.md), and people put it there."""
    target = wanted(spec(RunnerSpec(environment={"NPM_TOKEN": 'hid"den\\', "PLAIN": "shown"})))
    diff = unified(FileChange("/etc/nixos/nixprov/settings.nix", None, target.files["settings.nix"]))
    assert '"NPM_TOKEN": "***"' in diff
    assert '"PLAIN": "shown"' in diff
    assert "hid" not in diff
    assert "den" not in diff


def test_the_lines_that_matter_begin_at_the_first_complaint() -> None:
    assert that_matter(BUILD_LOG) == BUILD_LOG[4:]
    assert that_matter(["a", "b"]) == ("a", "b")
    assert that_matter([]) == ()
    long = ["error: first", *(f"line {number}" for number in range(50)), "last"]
    told = that_matter(long, 10)
    assert (told[0], told[-1], len(told)) == ("error: first", "last", 10)
    assert "[… 43 lines]" in told


def result(host: str, outcome: Outcome) -> HostResult:
    return HostResult(host, outcome, 1.0)


@pytest.mark.parametrize(
    ("outcomes", "commands"),
    [
        ((Outcome.CHANGED, Outcome.UNCHANGED), ()),
        ((Outcome.CHANGED, Outcome.FAILED, Outcome.SKIPPED), ("nixprov up h1,h2 -i 'a b'",)),
        ((Outcome.ROLLBACK_FAILED, Outcome.FAILED), ("nixprov status h0 -i 'a b'", "nixprov up h0,h1 -i 'a b'")),
        ((Outcome.INTERRUPTED,), ("nixprov status h0 -i 'a b'", "nixprov up h0 -i 'a b'")),
    ],
)
def test_the_next_command(outcomes: tuple[Outcome, ...], commands: tuple[str, ...]) -> None:
    results = [result(f"h{number}", outcome) for number, outcome in enumerate(outcomes)]
    assert next_commands(Typed(Verb.UP, ("-i", "a b")), results) == commands


def test_the_next_command_of_many_hosts_reads_their_names_from_the_file() -> None:
    results = [result(f"h{number}", Outcome.FAILED) for number in range(50)]
    assert next_commands(Typed(Verb.DOWN), results, ("--limit", "@/f")) == ("nixprov down --limit @/f",)
    assert next_commands(Typed(Verb.PLAN_DOWN), results[:1]) == ("nixprov down h0 --check",)


def test_the_next_command_repeats_the_options_that_it_needs() -> None:
    options = Options(sources=("a", "b"), play="p.yml", ask_become_pass=True)
    assert typed(options, Verb.UP).options == ("-i", "a", "-i", "b", "--play", "p.yml", "-K")


def test_the_next_command_is_no_bolder_than_what_failed() -> None:
    rails = Options(serial="1,20%", max_fail_percentage=10.0, any_errors_fatal=True)
    told = next_commands(typed(rails, Verb.UP), [result("h0", Outcome.INTERRUPTED)])
    careful = "--serial 1,20% --max-fail-percentage 10 --any-errors-fatal"
    assert told == ("nixprov status h0", f"nixprov up h0 {careful}")


@pytest.mark.parametrize(
    ("say", "of", "words"),
    [(elapsed, 8.26, "8.3 s"), (elapsed, 245, "4:05"), (elapsed, 3729, "1:02:09"), (clean, "a\nb\tc", "a b c")],
)
def test_wording(say: Callable[[object], str], of: object, words: str) -> None:
    assert say(of) == words


@pytest.mark.parametrize(
    ("time", "told"),
    [
        ("2026-01-02T12:00:00.123Z", "0 s ago"),
        ("2026-01-02T11:59:15Z", "45 s ago"),
        ("2026-01-02T13:00:00+02:00", "1 h ago"),
        ("2025-12-31T11:00:00Z", "2 d ago"),
        ("2026-01-02T11:00:00", "2026-01-02T11:00:00"),
        ("yesterday", "yesterday"),
    ],
)
def test_how_long_ago(time: str, told: str) -> None:
    assert ago(time, datetime(2026, 1, 2, 12, tzinfo=UTC)) == told
