"""Which version is newer, and what another version alone does to a host: nothing, and never a step back by accident."""

from __future__ import annotations

import base64
import json
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from provisioner import version
from provisioner.ci.gitlab.plan import HostRunners
from provisioner.engine.unwind import RolledBack
from provisioner.errors import CiUnavailable, HostRefused
from provisioner.events import Warned
from provisioner.machine.facts import Facts
from provisioner.machine.journal import Journal, Phase
from provisioner.machine.transaction import KeepCopy, RemoveFile, WriteFile
from provisioner.model import HostSpec, RunnerSpec
from provisioner.nix.header import Header
from provisioner.plan import HostPlan, plan_up
from provisioner.steps.module import is_as_built, written_by
from tests.unit.engine_fakes import Stage, stage, switch_ends
from tests.unit.hosts import (
    SERVER,
    after,
    converged,
    runner,
    spec,
    wanted,
    with_file,
    with_old_header,
    with_old_settings,
    write,
)

OLD, NEW = "0.1.0", "0.2.0"
_STAGED = re.compile(r"printf %s (\S+) \| stage \S+/switch/")
_JOURNAL = re.compile(r"printf %s (\S+) \| stage \S+/journal.json ")
BUSIER = spec(RunnerSpec(concurrent=7))

# In the order of PEP 440's own example ("Summary of permitted suffixes and relative ordering").
ORDERED = (
    *("1.0.dev456", "1.0a1", "1.0a2.dev456", "1.0a12.dev456", "1.0a12", "1.0b1.dev456", "1.0b2"),
    *("1.0b2.post345.dev456", "1.0b2.post345", "1.0rc1.dev456", "1.0rc1", "1.0", "1.0+abc.5", "1.0+abc.7", "1.0+5"),
    *("1.0.post456.dev34", "1.0.post456", "1.0.15", "1.1.dev1", "1.9", "1.10", "1!0.1", "of tomorrow"),
)


@pytest.mark.parametrize(("lower", "higher"), list(pairwise(ORDERED)))
def test_versions_have_the_order_of_pep_440(lower: str, higher: str) -> None:
    assert version.is_newer(higher, lower)
    assert not version.is_newer(lower, higher)


def test_zeros_at_the_end_make_no_other_version() -> None:
    assert version.order("1") == version.order("1.0.0") != version.order("1.0.1")
    assert version.order("0.0") == version.order("0")


def test_the_own_version_is_one() -> None:
    assert version.order(version.OWN) < version.order("no version")


Run = Callable[[str], None]


@pytest.fixture
def run_by(monkeypatch: pytest.MonkeyPatch) -> Run:
    """From here on the program is of another version."""
    return lambda name: monkeypatch.setattr(version, "OWN", name)


def host(by: str | None, configuration: HostSpec | None = None) -> tuple[Facts, Journal]:
    """A host as `by` left it, None: by one whose journal does not say so."""
    facts, journal = converged(configuration)
    return facts, replace(journal, nixprov=by or "")


def with_old_headers(facts: Facts, by: str = OLD) -> Facts:
    """The module's files as they were written when each named the version."""
    files = {
        name: with_old_header(data, by)
        for name, data in facts.records.items()
        if name.startswith("module/") and name.endswith(".data")
    }
    return Facts(facts.host, {**facts.records, **files})


def plan(facts: Facts, journal: Journal, of: HostSpec | None = None) -> HostPlan:
    return plan_up(of or spec(), facts, journal, SERVER, HostRunners({"default": (runner(),)}))


@pytest.mark.parametrize("by", [None, OLD, NEW, "of tomorrow"])
@pytest.mark.parametrize("me", [OLD, NEW])
def test_another_version_alone_changes_nothing(by: str | None, me: str, run_by: Run) -> None:
    known = host(by)
    run_by(me)
    found = plan(*known)
    assert (found.lines(), found.newer) == ((), "")
    assert found.is_empty


@pytest.mark.parametrize("by", [OLD, NEW])
def test_a_host_whose_files_name_a_version_stays_as_it_is(by: str) -> None:
    facts, journal = host(None)
    older = with_old_headers(facts, by)
    assert older != facts
    assert plan(older, journal).is_empty
    assert [part for part in write(replace(wanted(), tokens={}), older, journal) if isinstance(part, WriteFile)] == []
    assert (written_by(older, journal), written_by(facts, journal)) == (by, "")


def test_of_old_headers_only_the_files_with_another_body_are_written() -> None:
    facts, journal = host(None)
    older = with_old_headers(facts)
    parts = write(replace(wanted(BUSIER), tokens={}), older, journal)
    assert [part.path for part in parts if isinstance(part, WriteFile)] == ["/etc/nixos/nixprov/settings.nix"]


def test_settings_in_the_older_form_are_replaced_once_and_nothing_beside_them() -> None:
    facts, journal = host(OLD)
    older = with_old_settings(facts)
    parts = write(replace(wanted(), tokens={}), older, journal)
    changed = [part for part in parts if isinstance(part, WriteFile | RemoveFile | KeepCopy)]
    assert changed == [part for part in parts if isinstance(part, WriteFile)]
    assert [part.path for part in changed] == ["/etc/nixos/nixprov/settings.nix"]
    assert plan(after(older, parts), journal).is_empty


def test_files_are_those_of_the_running_system_in_either_form() -> None:
    facts, _ = host(OLD)
    assert is_as_built(facts)
    assert is_as_built(with_old_settings(facts))
    for revision in (b"another", b""):
        assert not is_as_built(Facts("host1", {**facts.records, "revision": revision}))


def test_an_edit_under_an_old_header_is_still_seen() -> None:
    facts, journal = host(None)
    older = with_old_headers(facts)
    name = "module/runner.nix"
    edited = with_file(
        older.records, name, "/etc/nixos/nixprov/runner.nix", older.records[f"{name}.data"] + b"# more\n"
    )
    found = plan(Facts("host1", edited), journal)
    assert [action.why for action in found.steps] == ["runner.nix was edited by hand"]


def test_whose_digest_was_edited_is_no_file_of_ours_unedited() -> None:
    """The body is as wanted, and the header says it is another: a person was there."""
    facts, journal = host(None)
    name = "module/runner.nix"
    digest = Header.read(facts.records[f"{name}.data"])
    assert digest is not None
    forged = facts.records[f"{name}.data"].replace(digest.digest.encode(), b"0" * 64)
    found = plan(Facts("host1", with_file(facts.records, name, "/etc/nixos/nixprov/runner.nix", forged)), journal)
    assert [action.why for action in found.steps] == ["runner.nix was edited by hand"]


@pytest.mark.parametrize(
    ("by", "newer"), [(None, ""), (OLD, ""), ("0.2.0", ""), ("0.2.0.post1", "0.2.0.post1"), ("0.10.0", "0.10.0")]
)
def test_other_bodies_of_a_newer_version_are_a_downgrade(by: str | None, newer: str, run_by: Run) -> None:
    facts, journal = host(by)
    run_by(NEW)
    found = plan(facts, journal, BUSIER)
    assert not found.is_empty
    assert found.newer == newer
    assert any(line.startswith("downgrade: ") for line in found.lines()) == bool(newer)


def test_old_headers_tell_of_a_newer_version_where_no_journal_does() -> None:
    facts, journal = host(None)
    assert plan(with_old_headers(facts, "0.3.0"), journal, BUSIER).newer == "0.3.0"
    assert plan(with_old_headers(facts, OLD), replace(journal, nixprov="0.3.0"), BUSIER).newer == "0.3.0"


def test_a_person_who_edited_a_newer_module_makes_no_downgrade_of_the_same_one() -> None:
    """What the newer one had written is what we would write."""
    facts, journal = host("9.0")
    name = "module/runner.nix"
    edited = with_file(facts.records, name, "/etc/nixos/nixprov/runner.nix", facts.records[f"{name}.data"] + b"#\n")
    found = plan(Facts("host1", edited), journal)
    assert (found.newer, [action.step for action in found.steps]) == ("", ["module"])


def test_a_newer_module_whose_files_are_gone_counts_as_long_as_a_system_has_it() -> None:
    facts, journal = host("9.0")
    gone = {name: value for name, value in facts.records.items() if not name.startswith("module")}
    assert plan(Facts("host1", gone), journal).newer == ""
    for system in ("revision", "revision-at-boot"):
        assert plan(Facts("host1", {**gone, system: b"another"}), journal).newer == "9.0"
    none = {**gone, "revision": b"", "revision-at-boot": b""}
    assert plan(Facts("host1", none), journal).newer == ""


def refused(it: Stage) -> HostRefused:
    with pytest.raises(HostRefused) as caught:
        it.plan()
    assert len(it.session.scripts) == 1, "it was looked at and left"
    return caught.value


@pytest.mark.parametrize("verb", ["up", "plan"])
def test_up_and_plan_refuse_a_downgrade_in_one_line(verb: str) -> None:
    error = refused(stage(*host("9.0"), runner(), host=BUSIER, verb=verb))
    assert error.host == "host1"
    assert str(error) == (
        f"nixprov 9.0 installed another module there, and this is the older {version.OWN};"
        " upgrade nixprov here to 9.0; if the older module is meant, say --downgrade"
    )


def test_down_takes_a_newer_module_out() -> None:
    it = stage(*host("9.0"), runner(), verb="down", host=BUSIER)
    found = it.plan()
    assert {"hook", "module", "secrets"} <= {action.step for action in found.steps}
    assert it.texts(Warned) == [f"nixprov 9.0 installed it, and this older {version.OWN} takes back what it knows of"]
    for by in (None, "0.0.9", version.OWN):
        known = stage(*host(by), runner(), verb="down")
        assert known.plan().switch
        assert known.texts(Warned) == []


def test_status_names_whose_it_is_and_that_up_refuses() -> None:
    it = stage(*host("9.0"), runner(), host=BUSIER, verb="status")
    report = it.report()
    assert report.nixprov == "9.0"
    assert [line.partition(";")[0] for line in report.drift] == [
        f"module: `up` refuses: nixprov 9.0 installed another module there, and this is the older {version.OWN}"
    ]
    same = stage(*host("9.0"), runner(), verb="status").report()
    assert (same.nixprov, same.drift) == ("9.0", ())


def writers(it: Stage) -> list[str]:
    return [str(json.loads(one)["nixprov"]) for one in it.session.journals]


def applied(it: Stage) -> list[str]:
    it.plan()
    it.apply()
    return writers(it)


def test_the_journal_names_who_wrote_the_bodies_from_the_write_on() -> None:
    it = stage(*host("0.0.9"), runner(), host=BUSIER)
    assert applied(it) == ["0.0.9", version.OWN, version.OWN]


def test_a_downgrade_that_was_meant_is_done_and_recorded() -> None:
    it = stage(*host("9.0"), runner(), host=BUSIER, downgrade=True)
    assert applied(it) == ["9.0", version.OWN, version.OWN]


@pytest.mark.parametrize("by", ["0.0.9", "9.0"])
def test_what_leaves_the_bodies_leaves_their_version(by: str) -> None:
    """Else a newer nixprov that mended a unit would shut out all others, and an older one hide the newer's module."""
    facts, journal = host(by)
    it = stage(Facts("host1", {**facts.records, "units": b""}), journal, runner())
    assert applied(it) == [by, by, by]


def test_a_journal_of_an_older_nixprov_learns_it_with_the_next_write() -> None:
    facts, journal = host(None)
    dead = Facts("host1", {**facts.records, "units": b""})
    assert applied(stage(dead, journal, runner())) == ["", version.OWN, version.OWN]
    assert applied(stage(with_old_headers(dead, "0.0.9"), journal, runner())) == ["", "0.0.9", "0.0.9"]


def test_whoever_goes_back_takes_the_version_along() -> None:
    """An older operator is not shut out by a newer one's `up` that came to nothing."""
    it = stage(*host("0.0.9"), runner(), host=BUSIER)
    it.session.answers = switch_ends("failed build 20 4")
    it.plan()
    with pytest.raises(RolledBack):
        it.apply()
    assert writers(it) == ["0.0.9", version.OWN, "0.0.9", "0.0.9"]
    assert it.session.journal["phase"] == Phase.CONFIRMED.value


def test_the_host_that_goes_back_alone_takes_it_along_too() -> None:
    it = stage(*host("0.0.9"), runner(), host=BUSIER)
    assert applied(it)[-1] == version.OWN
    gone_back = [document for script in it.session.scripts for document in journals_to_come(script)]
    assert [(one["phase"], one["nixprov"]) for one in gone_back] == [(Phase.WENT_BACK.value, "0.0.9")]


def journals_to_come(script: str) -> list[dict[str, Any]]:
    """The journals in the scripts that a script puts on the host."""
    inner = [base64.b64decode("".join(shlex.split(data))).decode() for data in _STAGED.findall(script)]
    documents = [base64.b64decode("".join(shlex.split(data))) for text in inner for data in _JOURNAL.findall(text)]
    return [json.loads(document) for document in documents]


def test_what_only_waits_for_gitlab_to_delete_has_no_module_any_more() -> None:
    it = stage(*host("9.0"), runner(), verb="down")
    it.api.fails["delete"] = CiUnavailable("502")
    it.plan()
    with pytest.raises(CiUnavailable):
        it.apply()
    assert writers(it)[-1] == ""
    assert "9.0" in writers(it)
