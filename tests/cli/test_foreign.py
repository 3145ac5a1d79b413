"""Foreign text on every way out: whatever a host, an inventory, GitLab or the command line says, it is read, not obeyed.

What is fed is enumerated: the documents of events and their values' own fields, the records that the probe's script
says, the methods of GitLab's client, the variables that the inventory's models have. A new one is covered by being there.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import io
import json
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final, Self, cast
from xml.etree import ElementTree as ET

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError, nodes
from markupsafe import escape

import provisioner.cli
from provisioner import app
from provisioner.ci import DEFAULT
from provisioner.ci.base import Provider
from provisioner.ci.gitlab.api import Api
from provisioner.ci.gitlab.failures import Action, Failure, Kind, explain
from provisioner.ci.gitlab.provider import GitLab
from provisioner.ci.gitlab.values import Runner
from provisioner.ci.gitlab.words import WORDS
from provisioner.cli import main
from provisioner.diff import plan_diffs
from provisioner.engine.host import Limits
from provisioner.errors import CiError, CiRefused
from provisioner.events import Event, HostDone, HostEvent, Planned, RunDone, RunStarted, Warned
from provisioner.inventory import hosts as inventory_hosts
from provisioner.inventory import module
from provisioner.inventory.play import Play as PlayFile
from provisioner.inventory.runners import RunnerSettings
from provisioner.model import FrozenDict
from provisioner.outcome import Outcome
from provisioner.report import html, junit
from provisioner.report.colour import Painter
from provisioner.report.foreign import Guard, visible
from provisioner.report.json_lines import JsonLines
from provisioner.report.live import LiveTable
from provisioner.report.logs import HostLogs
from provisioner.report.text import PlainText
from provisioner.report.wording import clean, told
from provisioner.ssh.exec import Completed
from provisioner.ssh.session import Session
from provisioner.steps import probe
from tests.unit.engine_fakes import FakeApi, FakeSession
from tests.unit.hosts import MACHINE_ID, converged, runner, with_file
from tests.unit.runs import CHANGE, KINDS, SAMPLES, Play, host_plan
from tests.unit.test_layers import LAB, PACKAGE, trees
from tests.unit.test_origin import DESCRIBED, SAID, answer
from tests.unit.test_report_pages import Strict

# No colour of ours and no movement of the table's: both could be told from it.
STEERING: Final = "\x1b[66;6H"
HOSTILE: Final = (
    f"{STEERING}\x1b]0;owned\x07\x1bP1$t\x1b\\\x9b31m\x08\r\x7f\x00"
    "\u202e\u2066\u200e\u200f\u061c\u200b\u200d\ufeff\u00ad\u2028\u2029\u180e\u3164\ufe0f\U000e0041\ufff9\ufffe\ue000\udcff"
    "</pre><script>alert(1)</script>&lt;[bold red]:smile:[/]\"'"
)
# What a host of an inventory can be called (brackets are ranges), and what a mark in GitLab can say.
NAME: Final = HOSTILE.translate(dict.fromkeys(map(ord, "\x00\udcff[]")))
MARKED: Final = "".join(NAME.split()).replace("/", "")
# What a host's bytes can be: no surrogates.
BYTES: Final = HOSTILE.encode("utf-8", "replace")
TOKEN: Final = "glpat-12345678901234567890"
UNSEEN: Final = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def raw(text: str, *, allowed: str = "\n\t") -> set[str]:
    """What in it is not drawn, by Unicode's word and not by ours."""
    return {sign for sign in set(text) - set(allowed) if unicodedata.category(sign) in UNSEEN or sign in "\u3164\ufe0f"}


def poisoned(value: Any) -> Any:
    """The same value with hostile text in every text of it, however deep, in dataclasses by their own fields."""
    if isinstance(value, enum.Enum) or value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return f"{value}{HOSTILE}"
    if isinstance(value, bytes):
        return value + BYTES + b"\n"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        changes = {one.name: poisoned(getattr(value, one.name)) for one in dataclasses.fields(value) if one.init}
        return dataclasses.replace(value, **changes)
    if isinstance(value, Mapping):
        return FrozenDict({key: poisoned(item) for key, item in value.items()})
    return type(value)(map(poisoned, value)) if isinstance(value, tuple | list) else value


def test_every_event_and_every_field_of_it_has_a_sample() -> None:
    assert {type(sample) for sample in SAMPLES} == set(KINDS)
    for sample in SAMPLES:
        for one in dataclasses.fields(sample):
            assert getattr(sample, one.name) not in ("", (), None), (type(sample), one.name)


def hostile(sample: Event, host: str, verb: str) -> Event:
    """The sample with hostile text in every text of it, of this host where it is of one, of this verb."""
    event: Any = poisoned(sample)
    if isinstance(event, HostEvent):
        event = dataclasses.replace(event, host=host)
    match event:
        case RunStarted():
            # A provider's nouns are the program's own.
            return dataclasses.replace(event, verb=verb, hosts=(host,), words=WORDS)
        case HostDone(result=result):
            return HostDone.of(dataclasses.replace(result, host=host))
        case Planned():
            # Diffs of hostile files, beside diffs that are hostile themselves.
            diffs = plan_diffs(poisoned(host_plan()), (poisoned(CHANGE),))
            return dataclasses.replace(event, diffs=(*diffs, *event.diffs), check=verb == "plan")
    return cast("Event", event)


def told_run(folder: Path, *, is_plan: bool) -> dict[str, str]:
    """Everything that the reports make of one run in which every text of every event is hostile."""
    # A name of a file has 255 bytes at most, and this one is quoted.
    host, streams = (
        f"host1{STEERING}\u202e\udcff<b>[bold red]:smile:[/]",
        {name: io.StringIO() for name in ("plain", "result", "live", "shown", "json")},
    )
    play = Play([host], "plan" if is_plan else "up")
    shown: dict[str, Any] = {"verbose": True, "debug": True, "diff": True}
    logs = HostLogs(folder, play.record)
    play.reports += [
        logs,
        PlainText(streams["plain"], streams["result"], play.record, **shown),
        LiveTable(streams["live"], streams["shown"], play.record, **shown),
        JsonLines(streams["json"], diff=True),
    ]
    for sample in SAMPLES:
        if isinstance(sample, RunDone):
            play.emit(Warned("", HOSTILE))
        play.emit(hostile(sample, host, play.verb))
    files = {"log": logs.path(host).read_text()}
    files |= {"page": html.page(play.record), "xml": junit.document(play.record).decode()}
    return {**{name: stream.getvalue() for name, stream in streams.items()}, **files}


@pytest.mark.parametrize("is_plan", [True, False])
def test_no_text_of_any_event_leaves_any_report_raw(tmp_path: Path, is_plan: bool) -> None:
    outputs = told_run(tmp_path, is_plan=is_plan)
    assert "owned" in outputs["result"]
    for name, text in outputs.items():
        assert "owned" in text, name
        assert STEERING not in text, (name, text[text.index(STEERING) - 50 :][:70])
        # The table moves its cursor.
        assert raw(text, allowed="\n\t\r\x1b" if name == "live" else "\n\t") == set(), name
        if name not in ("page", "xml", "json"):
            assert "[bold red]:smile:[/]" in text, name
            assert "\\x1b[66;6H\\x1b]0;owned\\x07" in text, name


def test_json_loses_nothing(tmp_path: Path) -> None:
    lines = list(map(json.loads, told_run(tmp_path, is_plan=True)["json"].splitlines()))
    [log] = [line for line in lines if line["event"] == "log"]
    assert log["text"] == f"error: no such option{HOSTILE}"
    assert log["host"].startswith(f"host1{STEERING}\u202e\udcff")


def test_the_page_and_the_xml_have_no_markup_of_others(tmp_path: Path) -> None:
    outputs = told_run(tmp_path, is_plan=True)
    parser = Strict()
    parser.feed(outputs["page"])
    assert parser.open == []
    assert "script" not in parser.tags
    assert ET.fromstring(outputs["xml"]).find(".//script") is None  # noqa: S314 - our own


def test_no_expression_of_the_page_goes_past_the_spelling_and_the_escaping() -> None:
    """Every filter and test of the page is listed: among Jinja2's own there are some that give markup."""
    environment = html._environment()
    source = (PACKAGE / "report" / "page.html.j2").read_text(encoding="utf-8")
    tree = environment.parse(source)
    used = {node.name for node in tree.find_all(nodes.Filter)}
    assert used == {"counted", "elapsed", "format", "join", "length", "line", "list", "lower", "phase_class", "trim"}
    assert not list(tree.find_all((nodes.MarkSafe, nodes.ScopedEvalContextModifier)))
    assert environment.from_string("{{ a }}").render(a=f"{HOSTILE}{TOKEN}") == str(escape(told(f"{HOSTILE}{TOKEN}")))
    assert TOKEN not in environment.from_string("{{ a }}").render(a=TOKEN)
    with pytest.raises(UndefinedError):
        environment.from_string("{{ a.b }}").render(a="")


@given(st.text())
def test_what_is_visible_is_drawn_and_stays_so(text: str) -> None:
    once = visible(text)
    assert raw(once) == set()
    assert visible(once) == once
    assert raw(clean(text)) == set()
    assert raw(told(text)) == set()
    assert "\n" not in clean(text)


@pytest.mark.parametrize("text", ["plain", "höst ✓ … │ → 日本語 العربية עברית", "a\u00a0b", "a\tb\nc"])
def test_what_people_write_stays_as_it_is(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "spelled"),
    [("\x1b", "\\x1b"), ("\x9b", "\\x9b"), ("\u202e", "\\u202e"), ("\U000e0041", "\\U000e0041"), ("\udcff", "\\udcff")],
)
def test_one_spelling_everywhere(text: str, spelled: str, tmp_path: Path) -> None:
    play, out = Play(["h"]), io.StringIO()
    logs = HostLogs(tmp_path, play.record)
    play.reports += [PlainText(out, out, play.record), logs]
    play.start()
    play.end("h", Outcome.FAILED, text)
    logs.close()
    page, xml = html.page(play.record), junit.document(play.record).decode()
    for said in (out.getvalue(), logs.path("h").read_text(), page, xml):
        assert spelled in said


def test_the_guard_lets_our_colours_by_and_nothing_else() -> None:
    out = io.StringIO()
    guard = Guard(out)
    ours = Painter(on=True)("good", "bold", "green")
    guard.write(f"{ours} \x1b[2J\x1b[5mbad\x1b[31m\n")
    guard.writelines(["a\u202e\n"])
    guard.buffer.write(b"b\x1b\n")
    assert out.getvalue() == f"{ours} \\x1b[2J\\x1b[5mbad\x1b[31m\na\\u202e\nb\\x1b\n"


# Below: the program itself, as it is typed. Without the guard, which would hide what was forgotten before it.


class Host(FakeSession):
    """The session of a machine that answers as told."""

    warnings: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


class Answering(FakeApi):
    writes = 0

    def check(self) -> None:
        self._do("check")

    def close(self) -> None: ...


@dataclasses.dataclass
class Scene:
    """What `nixprov` finds when it is typed: one host, one GitLab, an inventory."""

    folder: Path
    capfd: pytest.CaptureFixture[str]
    records: dict[str, bytes]
    gitlab: Answering
    answers: Callable[[str], Completed | None] = lambda _script: None

    def typed(self, *words: str) -> dict[str, str]:
        """What comes out, on every way."""
        with pytest.raises(SystemExit):
            main(list(words))
        out, err = self.capfd.readouterr()
        files = {file.name: file.read_text() for file in self.folder.glob("out/**/*") if file.is_file()}
        return {"out": out, "err": err, **files}

    def run(self, verb: str, *words: str, inventory: str = "") -> dict[str, str]:
        """A run with all reports there are: people's text on stderr, JSON on stdout, and files."""
        files = ("--junit", "out/xml", "--report", "out/page", "--log-dir", "out/logs") if verb != "prune" else ()
        shown = ("--json", "-v", "--debug", "--progress", "plain")
        return self.typed(verb, "-i", inventory or "inventory.json", *files, *shown, *words)


def assert_harmless(outputs: Mapping[str, str]) -> None:
    for name, text in outputs.items():
        assert raw(text) == set(), (name, sorted(map(ascii, raw(text))), ascii(text)[:2000])
        assert "<script>" not in text or name in ("out", "err") or name.endswith(".log"), name


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Scene:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "inventory.json").write_text('{"all": {"hosts": {"host1": {}}}}')
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in ("NIXPROV_INVENTORY", "NIXPROV_GITLAB_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NIXPROV_GITLAB_URL", "https://gitlab.example")
    monkeypatch.setenv("NIXPROV_GITLAB_TOKEN", "glpat-x")
    facts, journal = converged()
    records = {**facts.records, "journal.data": journal.render(), "machine-id": MACHINE_ID}
    scene = Scene(tmp_path, capfd, records, Answering({7: runner(7)}))

    def opened(*_: object, **__: object) -> Host:
        return Host(dict(scene.records), scene.answers)

    monkeypatch.setattr(Session, "open", opened)
    kind = dataclasses.replace(DEFAULT, connect=lambda *_: GitLab(cast("Api", scene.gitlab)))
    monkeypatch.setattr(app, "KINDS", {"gitlab": kind})
    monkeypatch.setattr(provisioner.cli, "Guard", lambda stream: stream)
    # What is waited for in vain here is not waited for.
    monkeypatch.setattr(Limits, "__init__", _quick(Limits.__init__))
    return scene


def _quick(init: Any) -> Any:
    def made(self: Limits, **given: Any) -> None:
        init(self, **{**given, "contact_s": 0.05, "poll_s": 0.01})

    return made


RUNNING: Final = {"running": "system", "boot": "profile"}
SAYS: Final = re.compile(r"\| ?\n? *say ([\w.-]+)|say_file ([\w./-]+) ")


def said_records() -> list[str]:
    """The records that the probe's script can say."""
    script = probe().decode()
    names: set[str] = set()
    for record, file in SAYS.findall(script):
        names |= {record} if record else {f"{file}.{part}" for part in ("stat", "real", "data")}
    return sorted(names)


def test_the_records_are_found_in_the_script() -> None:
    assert {"os", "units", "trust", "journal.data", "configuration.stat", "failed-units"} <= set(said_records())


@pytest.mark.parametrize("record", sorted({*said_records(), *converged()[0].records}))
@pytest.mark.parametrize("verb", [("plan", "--diff"), ("status",)], ids=["plan", "status"])
def test_no_record_of_a_host_leaves_raw(scene: Scene, record: str, verb: tuple[str, ...]) -> None:
    scene.records[record] = scene.records.get(record, b"").rstrip(b"\n") + BYTES
    assert_harmless(scene.run(*verb))


@pytest.mark.parametrize(
    "verb",
    [
        ("up", "--yes", "--diff", "--adopt-configuration"),
        ("down", "--yes", "--diff"),
        ("plan", "--build"),
    ],
)
def test_no_file_and_no_log_of_a_host_leaves_raw(scene: Scene, verb: tuple[str, ...]) -> None:
    hostile = (
        b"{ ... }:\n/* "
        + BYTES.replace(b"\0", b"").replace(b"\r", b"")
        + b" */\n{\n  imports = [ ./hardware-configuration.nix ];\n}\n"
    )
    scene.records = with_file(scene.records, "configuration", "/etc/nixos/configuration.nix", hostile)
    scene.records = with_file(scene.records, "module/default.nix", "/etc/nixos/nixprov/default.nix", hostile)

    spoken = HOSTILE.replace("\udcff", "")

    def answers(script: str) -> Completed | None:
        if "after=" in script:
            lines = (b"log " + BYTES, BYTES, b"failed " + BYTES, b"end exited activate 4 4")
            return Completed(0, b"\n".join(lines) + b"\n", HOSTILE)
        if "nixprov-origin-" in script:
            system = {name: scene.records[record].decode().strip() for name, record in RUNNING.items()}
            said = {name: f"{text}{spoken}" for name, text in SAID.items()} | system
            return Completed(0, answer(said, DESCRIBED), "")
        if "nixprov-plan-" in script:
            return Completed(1, b"log " + BYTES + b"\n", HOSTILE)
        return None

    scene.answers = answers
    outputs = scene.run(*verb)
    assert_harmless(outputs)
    assert "owned" in outputs["err"]


@pytest.mark.parametrize("verb", ["up", "down", "plan", "status"])
def test_no_complaint_of_a_host_leaves_raw(scene: Scene, verb: str) -> None:
    scene.answers = lambda _script: Completed(1, BYTES, f"{HOSTILE}\n{HOSTILE}")
    outputs = scene.run(verb, *(["--yes"] if verb in ("up", "down") else []))
    assert "owned" in outputs["err"]
    assert_harmless(outputs)


METHODS: Final = sorted(name for name, value in vars(Api).items() if callable(value) and not name.startswith("_"))


@pytest.mark.parametrize("method", ["check", *(name for name in METHODS if name not in ("check", "close"))])
@pytest.mark.parametrize("verb", [("up", "--yes"), ("down", "--yes"), ("status",), ("prune", "--yes")], ids=" ".join)
def test_no_refusal_of_gitlab_leaves_raw(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, method: str, verb: tuple[str, ...]
) -> None:
    def refuse(*_: object) -> None:
        raise CiRefused(f"answered {HOSTILE}", hint=HOSTILE)

    monkeypatch.setattr(scene.gitlab, method, refuse)
    assert_harmless(scene.run(*verb))


@pytest.mark.parametrize("field", [one.name for one in dataclasses.fields(Runner) if one.name != "id"])
@pytest.mark.parametrize("verb", [("plan", "--diff"), ("status",), ("prune", "--yes")], ids=" ".join)
def test_no_field_of_a_runner_in_gitlab_leaves_raw(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, field: str, verb: tuple[str, ...]
) -> None:
    there = runner(7)
    changed: dict[str, Any] = {field: poisoned(getattr(there, field) or "")}
    if isinstance(getattr(there, field), tuple):
        changed = {field: (HOSTILE,)}
    elif isinstance(getattr(there, field), bool | int | enum.Enum):
        changed = {"description": there.description.replace("host1", f"host1{MARKED}")}
    scene.gitlab.there = {7: dataclasses.replace(there, **changed), 8: dataclasses.replace(there, **changed, id=8)}
    managers = tuple(map(poisoned, scene.gitlab.managers(7)))
    monkeypatch.setattr(scene.gitlab, "managers", lambda _id: managers)
    assert_harmless(scene.run(*verb))


def test_what_prune_finds_and_asks_leaves_nothing_raw(scene: Scene) -> None:
    there = runner(8, machine="0" * 12)
    marked = dataclasses.replace(there, description=there.description.replace("host1", f"gone{MARKED}"))
    scene.gitlab.there = {8: marked}
    for words in ((), ("--yes",)):
        outputs = scene.run("prune", *words)
        assert "owned" in outputs["err"]
        assert_harmless(outputs)
    scene.gitlab.there = {8: marked}
    assert "owned" in scene.typed("prune", "-i", "inventory.json", "--yes")["out"]


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("status", [400, 403, 404, 408, 500])
def test_no_answer_of_gitlab_that_ends_a_run_leaves_raw(scene: Scene, kind: Kind, status: int) -> None:
    failure = Failure(kind, status, HOSTILE, HOSTILE)
    error: CiError = explain(Action(f"read {HOSTILE}"), failure, "https://gitlab.example")
    scene.gitlab.fails["check"] = error
    outputs = scene.run("status")
    assert "owned" in outputs["err"]
    assert_harmless(outputs)


def known_variables() -> list[str]:
    """Every variable that the inventory knows, by its models and its own list of Ansible's."""
    ansible = re.findall(r'"(ansible_\w+)"', Path(inventory_hosts.__file__).read_text())
    return sorted({*ansible, *(f"nixprov_{name}" for name in RunnerSettings.model_fields), *module.VARIABLES, "any"})


LOOKS: Final = (
    ("status",),
    ("plan", "--diff"),
    ("inventory", "list"),
    ("inventory", "list", "--json"),
    ("inventory", "graph", "--vars"),
    ("inventory", "host", "host1"),
)


def look(scene: Scene, verb: tuple[str, ...], inventory: str) -> dict[str, str]:
    return scene.typed(*verb, "-i", inventory) if verb[0] == "inventory" else scene.run(*verb, inventory=inventory)


@pytest.mark.parametrize("verb", LOOKS, ids=" ".join)
def test_no_variable_of_an_inventory_leaves_raw(scene: Scene, verb: tuple[str, ...]) -> None:
    for name in known_variables():
        for value in (HOSTILE, [HOSTILE], {HOSTILE: HOSTILE}):
            Path("inventory.json").write_text(json.dumps({"all": {"hosts": {"host1": {name: value}}}}))
            assert_harmless(look(scene, verb, "inventory.json"))


@pytest.mark.parametrize("verb", [*LOOKS, ("inventory", "match", "*")], ids=" ".join)
def test_no_name_in_an_inventory_leaves_raw(scene: Scene, verb: tuple[str, ...]) -> None:
    for text in (
        json.dumps({"all": {"hosts": {f"h{NAME}": {}}}}),
        json.dumps({"all": {"hosts": {"host1": {f"v{NAME}": "a"}}}}),
        json.dumps({f"g{NAME}": {"hosts": {"host1": {}}, "vars": {"a": NAME}, NAME: {}}}),
        HOSTILE,
    ):
        for file in ("inventory.json", "inventory.ini"):
            Path(file).write_text(text, errors="replace")
            assert_harmless(look(scene, verb, file))


@pytest.mark.parametrize("field", sorted(PlayFile.model_fields))
@pytest.mark.parametrize("verb", [("up", "--yes"), ("plan",)], ids=" ".join)
def test_no_field_of_a_play_leaves_raw(scene: Scene, field: str, verb: tuple[str, ...]) -> None:
    play = {"name": "p", "hosts": "all", "runners": [{"tags": ["a"]}]}
    for value in (HOSTILE, [{"name": HOSTILE}], {HOSTILE: HOSTILE}):
        Path("play.yml").write_text(json.dumps([{**play, field: value}]))
        assert_harmless(scene.run(*verb, "--play", "play.yml"))


TYPED: Final = HOSTILE.replace("\x00", "").replace("/", "")


@pytest.mark.parametrize(
    "words",
    [
        ("status", TYPED),
        ("status", f"--{TYPED}"),
        (TYPED,),
        ("status", "--progress", TYPED),
        ("status", "-T", TYPED),
        ("status", "-i", TYPED),
        ("status", "-i", f"{TYPED},"),
        ("status", "--play", TYPED),
        ("status", "--report", f"no/{TYPED}"),
        ("status", "--gitlab-url", TYPED),
        ("status", "--gitlab-token-file", TYPED),
        ("up", "--serial", TYPED),
        ("up", "--resume", TYPED),
        ("down", "--gone", TYPED),
        ("down", TYPED),
        ("play", TYPED, "up"),
        ("inventory", "host", TYPED),
        ("inventory", "graph", TYPED),
        ("completion", TYPED),
    ],
    ids=lambda words: ascii(" ".join(words))[:30],
)
def test_nothing_that_is_typed_comes_back_raw(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """click's own errors quote it: there it is the guard that holds."""
    monkeypatch.setattr(provisioner.cli, "Guard", Guard)
    assert_harmless(scene.typed(*words))


def test_a_bug_shows_its_traceback_without_steering(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Provider:
        raise ValueError(HOSTILE)

    monkeypatch.setattr(provisioner.cli, "Guard", Guard)
    monkeypatch.setattr(app, "KINDS", {"gitlab": dataclasses.replace(DEFAULT, connect=broken)})
    outputs = scene.run("status")
    assert "Traceback" in outputs["err"]
    assert "owned" in outputs["err"]
    assert_harmless(outputs)


def test_a_question_names_hosts_without_steering(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("inventory.json").write_text(json.dumps({"all": {"hosts": {f"h{NAME}": {}}}}))
    terminal = io.StringIO("n\n")
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    outputs = scene.typed("down", "-i", "inventory.json")
    assert "owned" in outputs["err"]
    assert_harmless(outputs)


def test_a_question_of_prune_is_no_rawer(monkeypatch: pytest.MonkeyPatch) -> None:
    ask: Any = sys.modules["provisioner.cli.prune"]
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(click.UsageError) as refused:
        ask._may(f"Finish what waits on {HOSTILE}?")
    assert "owned" in refused.value.message
    assert raw(refused.value.message) == set()


@pytest.mark.parametrize("name", ["$(reboot)", "a b", "a;b", "`b`", "a\x1bb", "a\u202eb", "a'b", "a\\b", "a\nb"])
def test_no_name_is_completed_that_a_shell_would_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    completion: Any = sys.modules["provisioner.cli.completion"]  # the command has its name in the package
    monkeypatch.setattr(completion, "_names", lambda _options: ["höst-1.example.org", "[::1]", name])
    context: Any = type("Context", (), {"params": {}})
    assert [item.value for item in completion.hosts(context, None, "")] == ["höst-1.example.org", "[::1]"]


# Who may print, escape or write JSON, checked on the syntax tree: another way out than these has to be thought about.
ONLY: Final = {
    # The streams themselves: opened, guarded and given to reports.
    r"sys\.(stdout|stderr)(\.\w+)*": ("cli/__init__.py", "cli/reports.py", "cli/man.py", "lab/*"),
    r"(sys\.__std\w+__|print|traceback\.print_\w+|.*\.print_exc)": ("cli/__init__.py", "lab/*"),
    r"click\.(echo|secho|echo_via_pager)": ("cli/*", "lab/cli.py"),
    # Jinja2 escapes; Markup is text that it lets by.
    r"(html\.|markupsafe\.)?escape": (),
    r"(markupsafe\.)?Markup": ("report/html.py",),
    r"ensure_ascii": ("report/json_lines.py", "machine/journal.py", "nix/values.py", "lab/*"),
    r"unguarded": ("report/foreign.py", "report/live.py"),
}


def ways_out(file: str, tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        named = isinstance(node, ast.Name | ast.Attribute)
        name = ast.unparse(node) if named else node.arg if isinstance(node, ast.keyword) else None
        for pattern, places in ONLY.items():
            if name and re.fullmatch(pattern, name) and not any(fnmatch(file, place) for place in places):
                yield f"{file}:{getattr(node, 'lineno', 0)}: {name}"


def test_nothing_else_prints() -> None:
    assert [found for file, tree in trees(PACKAGE, LAB) for found in ways_out(file, tree)] == []


def test_the_table_is_drawn_with_one_pen() -> None:
    """It goes past the guard, so that each cell is made where its text is made visible."""
    tree = ast.parse((PACKAGE / "report/live.py").read_text())
    calls = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert [call for call in calls if re.match(r"Text\(", call)] == [
        "Text(visible(said), style, no_wrap=True, overflow='ellipsis')"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "sys.stderr.write('x')",
        "print('x')",
        "click.echo('x')",
        "json.dumps(1, ensure_ascii=False)",
        "escape('x')",
        "Markup('x')",
    ],
)
def test_another_way_out_would_be_seen(text: str) -> None:
    assert list(ways_out("engine/new.py", ast.parse(text)))
