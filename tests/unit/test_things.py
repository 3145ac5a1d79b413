"""Declared things: a step is one file and one entry, and no unit of the module goes undeclared."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from typing_extensions import override

from provisioner import plan, resources, steps
from provisioner.engine.unwind import RolledBack
from provisioner.hooks import Hook
from provisioner.machine.facts import Facts
from provisioner.machine.journal import Journal
from provisioner.machine.things import File, Files, Folder, Record, Remnant, Seen, Thing, Unit, asking, folders, probes
from provisioner.machine.transaction import MakeDir, RemoveEmptyDir, RemoveFile, RemoveTree, SetMtime, WriteFile
from provisioner.plan import edits, file_changes, plan_down, plan_up
from provisioner.ssh.exec import Completed
from provisioner.steps import Step, Wanted
from provisioner.steps.module import UNITS
from tests.unit.engine_fakes import stage
from tests.unit.hosts import HOOK, SERVER, after, converged, new_host, runner, spec, wanted, write
from tests.unit.test_plan import view

TEXT: Final = b"# a note\n"
NOTE: Final = f"{HOOK.module}/note/note.nix"
SPOOL: Final = "/var/lib/nixprov-note"


class Note(Step):
    """All of a new step: one file in a folder of the user's, a unit that every job needs, and its remnant."""

    name = "note"
    feeds_system = True

    @override
    def things(self, hook: Hook) -> tuple[Thing, ...]:
        folder = f"{hook.module}/note"
        unit = Unit("nixprov-note.service", is_foundation=True)
        return (Folder(folder, record="note-dir"), File("note", f"{folder}/note.nix"), unit, Remnant(SPOOL))

    @override
    def contents(self, wanted: Wanted) -> Mapping[str, bytes]:
        return {NOTE: TEXT}


@pytest.fixture
def larger(monkeypatch: pytest.MonkeyPatch) -> tuple[Step, ...]:
    """STEPS with one entry more, wherever it was imported to."""
    more = steps.in_order(*steps.STEPS[:-2], Note())
    for module in list(sys.modules.values()):
        if getattr(module, "STEPS", None) is steps.STEPS and module is not steps:
            monkeypatch.setattr(module, "STEPS", more)
    monkeypatch.setattr(steps, "STEPS", more)
    return more


def probe_text() -> str:
    return steps.probe().decode()


def test_a_step_more_is_one_file_and_one_entry(larger: tuple[Step, ...]) -> None:
    """Seen by the probe, the plan, the diff, the transaction, the tests' host and `down`, with nothing else told."""
    assert f"say_file note {NOTE}" in probe_text()
    assert f"{HOOK.module}/note/*.nixprov-new" in probe_text()
    assert SPOOL in probe_text()
    assert "'nixprov-note.*'" in probe_text()

    facts, journal = new_host(), Journal()
    new = plan_up(spec(), facts, journal, SERVER, view())
    assert ("note", f"{NOTE} is not there") in [(action.step, action.why) for action in new.steps]
    assert (NOTE, None, TEXT) in [(one.path, one.before, one.after) for one in file_changes(new, facts, journal)]

    parts = [part for step in larger for part in step.write(wanted(), facts, journal)]
    assert MakeDir(f"{HOOK.module}/note") in parts
    there, journal = converged()
    assert there.records["note.data"] == TEXT
    assert plan_up(spec(), there, journal, SERVER, view(runner())).steps == ()

    edited = Facts("host1", {**there.records, "note.data": b"other"})
    (drift,) = plan_up(spec(), edited, journal, SERVER, view(runner())).steps
    assert (drift.step, drift.why) == ("note", f"{NOTE} is not as wanted")
    wide = Facts("host1", {**there.records, "note.stat": b"666 0 0 500 regular file"})
    assert [action.step for action in plan_up(spec(), wide, journal, SERVER, view(runner())).steps] == ["note"]

    gone = plan_down(spec(), there, journal, SERVER, view(runner()))
    assert ("note", f"{NOTE}, {HOOK.module}/note") in [(action.step, action.why) for action in gone.steps]
    assert (NOTE, TEXT, None) in [(one.path, one.before, one.after) for one in file_changes(gone, there, journal)]


def test_what_such_a_step_wrote_goes_and_comes_back(larger: tuple[Step, ...]) -> None:
    facts, journal = converged()
    recorded = replace(journal, hook=HOOK.record(new_host()))
    note = next(step for step in larger if step.name == "note")
    there = facts.file("note", NOTE)
    assert there
    assert note.remove(facts, recorded) == (
        RemoveFile(NOTE, expect=there.sha256),
        RemoveEmptyDir(f"{HOOK.module}/note"),
        SetMtime(HOOK.folder, 1000),
    )
    assert note.remains(after(facts, note.remove(facts, recorded)), recorded) == ()
    assert note.restore(new_host(), facts, recorded) == note.remove(facts, recorded)
    folder, back = note.restore(facts, new_host(), journal)
    assert folder == MakeDir(f"{HOOK.module}/note")
    assert isinstance(back, WriteFile)
    assert (back.path, back.content, back.mtime, back.expect) == (NOTE, TEXT, 500, "absent")
    remnants = larger[-1].remove(facts, journal)
    assert RemoveTree(SPOOL) in remnants
    left = Facts("host1", {**facts.records, "remnants": SPOOL.encode()})
    assert SPOOL in larger[-1].remains(left, journal)


@pytest.mark.usefixtures("larger")
def test_such_a_steps_unit_is_foundation() -> None:
    """Without it every job would fail, so `up` goes back."""
    it = stage(new_host(), None)
    it.plan()
    said = b"failed nixprov-note.service\nend exited activate 4 5\n"
    it.session.answers = lambda script: Completed(0, said, "") if "after=" in script else None
    with pytest.raises(RolledBack, match=r"nixprov-note\.service did not start, and every job needs it"):
        it.apply()


def test_a_unit_of_nobody_is_no_foundation() -> None:
    others = {"nixprov-note.service", "nixprov-runner-*.service", "nixprov-collect.timer", "nixprov-switch.service"}
    assert not steps.foundation() & others
    assert {"nixprov-image.service", "nixprov-podman.socket", "nixprov-nix-daemon.socket"} <= steps.foundation()


def test_a_thing_is_asked_for_once_and_a_secret_by_its_stat_only() -> None:
    file, units = File("a", "/x/a"), (Unit("n-a.service"), Unit("n-a.socket"), Unit("n.slice", is_asked=False))
    secret, tree = Files("s", "/x/s", "*.token", is_secret=True), Folder("/x/s", 0o700)
    texts = list(probes([file, Seen("b", "/y/b"), file, secret, tree, Record("c", "echo c"), *units]))
    assert len(texts) == len(("a", "b", "s", "c", "units"))
    assert [text.count("say_file") for text in texts] == [1, 1, 0, 0, 0]
    assert "cat" not in texts[2].replace("stat", "")
    assert texts[-1].count("'n-a.*'") == 1
    assert "slice" not in texts[-1]
    assert (asking("/x/s/default.token", [file, secret]), asking("/x/b", [file, secret])) == (secret, None)
    assert folders([file, Seen("b", "/y/b"), secret, tree]) == ("/x", "/y", "/x/s")


KINDS: Final = {"services": "service", "sockets": "socket", "timers": "timer", "paths": "path", "slices": "slice"}
DEFINED: Final = re.compile(r"\bsystemd\.(?!tmpfiles)(\w+)(?:\.((?:\$\{[^}]*\}|[\w@-])+))? =")
# Names that are made elsewhere, by the expression that stands where the unit is defined.
MADE: Final = {
    "": r'name = "(nixprov-runner-)\$\{name\}"',
    "${engine.networkUnit}": r'networkUnit = "([\w-]+)"',
    '${lib.removeSuffix ".socket" cfg.door.unit}': r'"(nixprov-nix-\w+)\.socket"(?= else|;)',
}


def units_of(text: str) -> set[str]:
    """The units that Nix code defines, by their names; KeyError for one whose name is made in a way not known here."""
    found = set()
    for kind, name in DEFINED.findall(text):
        names = [name]
        if not name or "$" in name:
            names = ["".join(groups) for groups in re.findall(f"(?:{MADE[name]})()", text)]
            names = [f"{one}*" if one.endswith("-") else one for one in names]
        found |= {f"{one}.{KINDS[kind]}" for one in names}
    return found


def test_every_unit_of_the_module_is_declared_and_no_other() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in Path(str(resources.templates())).rglob("*.nix"))
    assert units_of(text) == {unit.name for unit in UNITS}


def test_a_unit_that_is_not_declared_would_be_seen() -> None:
    assert units_of("systemd.services.nixprov-new = {") == {"nixprov-new.service"}
    for text in ("systemd.services.${made} = {", "systemd.automounts.x = {"):
        with pytest.raises(KeyError):
            units_of(text)


class Remark(Step):
    """A file of its own state, of which the configuration knows nothing."""

    name = "remark"
    path = "/var/lib/nixprov/remark"

    @override
    def things(self, hook: Hook) -> tuple[Thing, ...]:
        return (File("remark", self.path, 0o600),)

    @override
    def contents(self, wanted: Wanted) -> Mapping[str, bytes]:
        return {self.path: TEXT}


def test_a_file_elsewhere_is_shown_and_is_no_edit_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    more = steps.in_order(*steps.STEPS[:-2], Remark())
    for module in (steps, plan):
        monkeypatch.setattr(module, "STEPS", more)
    facts, journal = converged()
    facts = Facts("host1", {name: data for name, data in facts.records.items() if not name.startswith("remark.")})
    wants = plan_up(spec(), facts, journal, SERVER, view(runner()))
    shown = file_changes(wants, facts, journal)
    assert [(one.path, one.after) for one in shown] == [(Remark.path, TEXT)]
    assert wants.switch == ""
    assert edits(shown, HOOK) == {}


def test_a_token_is_in_no_diff() -> None:
    facts, journal = new_host(), Journal()
    wants = replace(plan_up(spec(), facts, journal, SERVER, view()), wanted=wanted())
    assert any(part.path.endswith(".token") for part in write(wanted(), facts, journal) if isinstance(part, WriteFile))
    assert [one.path for one in file_changes(wants, facts, journal) if "secrets" in one.path] == []
