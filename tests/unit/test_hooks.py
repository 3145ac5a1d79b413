"""How the module enters a configuration: chosen once, from the facts to go in, and by the journal to come out."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest

import provisioner
from provisioner import hooks, steps
from provisioner.errors import HookRefused
from provisioner.hooks.classic import Classic
from provisioner.machine import origin, preflight, preview
from provisioner.machine.facts import Facts
from provisioner.machine.journal import Journal
from provisioner.machine.transaction import WriteFile
from tests.unit.engine_fakes import stage
from tests.unit.hosts import CONFIGURATION, HOOK, NEW, converged, new_host, runner, wanted, with_file, write

FOLDER = "/srv/configuration"


@dataclass(frozen=True, slots=True)
class Elsewhere(Classic):
    """Another kind: the same edit in another folder, built by another command."""

    directory: str = FOLDER
    kind: ClassVar[str] = "elsewhere"


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Facts:
    """A host whose configuration lies elsewhere, and a nixprov that knows this kind only."""
    hook = Elsewhere()
    for module in (hooks, steps):
        monkeypatch.setattr(module, "HOOKS", (hook,))
    new = {**NEW, "etc-nixos": FOLDER.encode()}
    return Facts("host1", with_file(new, "configuration", hook.path, CONFIGURATION))


def test_a_flake_is_refused_by_the_choice_and_not_taken_out_of() -> None:
    flake = Facts("host1", {**new_host().records, "flake": b"yes"})
    with pytest.raises(HookRefused, match="nixprov never edits a flake") as caught:
        hooks.choose(flake)
    assert "classic configuration.nix so far" in caught.value.hint
    with pytest.raises(HookRefused, match=r"configuration\.nix is not there"):
        hooks.choose(Facts("host1", NEW))
    facts, journal = converged()
    came = Facts("host1", {**facts.records, "flake": b"yes"})
    assert HOOK.remains(came)
    assert hooks.installed(journal).take_out(came, None)


def test_what_put_it_in_takes_it_out() -> None:
    record = HOOK.record(new_host())
    assert hooks.installed(Journal(hook=record)) == HOOK
    assert hooks.installed(Journal()) == HOOK
    with pytest.raises(HookRefused, match="hook is not known: flake") as caught:
        hooks.installed(Journal(host="host1", hook=replace(record, kind="flake")))
    assert "at least as new" in caught.value.hint


def test_the_journal_says_the_kind_and_an_older_one_means_the_classic() -> None:
    _, journal = converged()
    recorded = replace(journal, hook=HOOK.record(new_host()))
    document = json.loads(recorded.render())
    assert document["hook"]["kind"] == "classic"
    del document["hook"]["kind"]
    older = Journal.read(Facts("host1", {"journal.data": json.dumps(document).encode()}))
    assert older.hook == recorded.hook


def test_the_folder_is_a_value(elsewhere: Facts) -> None:
    """Asked, written, looked at, built and taken back elsewhere: nothing of the usual place is left."""
    it = stage(elsewhere, None)
    it.plan()
    it.apply()
    texts = [steps.probe().decode(), *it.session.scripts]
    assert [text for text in texts if "/etc/nixos" in text] == []
    written = [part.path for part in write(wanted(), elsewhere, Journal()) if isinstance(part, WriteFile)]
    assert f"{FOLDER}/configuration.nix" in written
    assert f"{FOLDER}/nixprov/default.nix" in written
    assert it.session.journal["hook"]["kind"] == "elsewhere"
    assert it.session.journal["hook"]["path"] == f"{FOLDER}/configuration.nix"


def test_down_goes_by_the_journal(elsewhere: Facts) -> None:
    facts, journal = converged()
    there = {name: data.replace(b"/etc/nixos", FOLDER.encode()) for name, data in facts.records.items()}
    recorded = replace(journal, hook=Elsewhere().record(elsewhere))
    it = stage(Facts("host1", there), recorded, runner(), verb="down")
    it.plan()
    assert hooks.installed(it.host.machine.journal).folder == FOLDER
    taken = [
        part.path
        for step in steps.STEPS
        for part in step.remove(it.host.machine.facts, it.host.machine.journal)
        if hasattr(part, "path")
    ]
    assert f"{FOLDER}/configuration.nix" in taken
    assert FOLDER in taken
    assert [path for path in taken if path.startswith("/etc/nixos")] == []


def test_a_look_is_told_the_folder_and_the_commands() -> None:
    of = replace(
        Elsewhere().configuration, build=("make", "a system"), dry_build=("make", "-n"), evaluated="import ./x"
    )
    edits = {f"{FOLDER}/a.nix": b"{ }"}
    build, asked = preview.script("r", of, edits, build=True).decode(), origin.script("r", of, edits).decode()
    for text in (build, asked):
        assert "/etc/nixos" not in text
        assert f" {FOLDER} " in text
        assert "rm -f a.nix" in text
    assert """yes 'make '"'"'a system'"'"'' 'make -n'""" in build
    assert f"yes {FOLDER}/configuration.nix 'import ./x'" in asked
    assert f" {FOLDER} /boot" in preflight.probe([FOLDER])


def test_the_place_of_a_classic_configuration_is_named_in_one_file() -> None:
    package = Path(provisioner.__file__).parent
    files = [path for path in package.rglob("*") if path.suffix in (".py", ".sh")]
    assert [str(path.relative_to(package)) for path in files if "etc/nixos" in path.read_text(encoding="utf-8")] == [
        "hooks/classic.py"
    ]


def test_status_names_a_hook_that_only_a_newer_nixprov_knows() -> None:
    facts, journal = converged()
    newer = replace(journal, hook=replace(HOOK.record(facts), kind="flake"))
    read = stage(facts, newer, runner(), verb="status").report()
    assert read.nixprov == ""
    assert any("hook: `up` refuses" in line and "not known: flake" in line for line in read.drift), read.drift


def test_leftovers_are_looked_for_in_the_folders_of_all_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    """One record has one question, or the second answer would hide the first."""
    both = (Classic(), Elsewhere())
    for module in (hooks, steps):
        monkeypatch.setattr(module, "HOOKS", both)
    (asked,) = re.findall(r"for entry in (.*); do .*\n\} \| say staged\n", steps.probe().decode())
    assert {f"{hook.folder}/*.nixprov-new" for hook in both} <= set(asked.split())
