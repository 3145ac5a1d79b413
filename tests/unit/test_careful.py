"""The pure parts of being careful: going back, what stands in the way, how long ago, links and copies."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from provisioner.engine.undo import undo
from provisioner.errors import HookRefused
from provisioner.machine.facts import Facts, digest
from provisioner.machine.journal import Journal, Phase, Run
from provisioner.machine.preflight import problems, warnings
from provisioner.machine.switch import Followed, SwitchResult
from provisioner.machine.transaction import KeepCopy, MakeDir, Part, RemoveFile, SetMtime, WriteFile
from provisioner.model import Engine
from provisioner.steps import STEPS
from provisioner.steps.hook import Hooked
from provisioner.steps.module import ModuleFiles
from tests.unit.hosts import HOOK, after, converged, new_host, wanted


def feeding(facts: Facts, journal: Journal, *, remove: bool = False) -> list[Part]:
    steps = [step for step in STEPS if step.feeds_system]
    if remove:
        return [part for step in reversed(steps) for part in step.remove(facts, journal)]
    return [part for step in steps for part in step.write(wanted(), facts, journal)]


def configuration_of(facts: Facts) -> dict[str, bytes]:
    return {name: data for name, data in facts.records.items() if name.startswith(("configuration.", "module/"))}


def test_what_up_writes_can_be_turned_round() -> None:
    before = new_host()
    parts = feeding(before, Journal())
    back = undo(parts, before, HOOK)
    assert back[-1] == SetMtime(HOOK.folder, 1000)
    assert configuration_of(after(after(before, parts), back)) == configuration_of(before)


def test_what_down_removes_can_be_turned_round() -> None:
    facts, journal = converged()
    parts = feeding(facts, journal, remove=True)
    assert parts
    assert configuration_of(after(after(facts, parts), undo(parts, facts, HOOK))) == configuration_of(facts)


def test_going_back_leaves_a_file_that_was_edited_meanwhile() -> None:
    before = new_host()
    parts = feeding(before, Journal())
    edited = after(before, parts)
    edited = Facts("host1", {**edited.records, "configuration.data": b"{ }"})
    with pytest.raises(AssertionError, match=r"configuration\.nix"):
        after(edited, undo(parts, before, HOOK))


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ({}, None),
        ({"room": b"/nix/store 99999999\n/var/lib 99999999\n/etc/nixos 99999\n"}, None),
        ({"room": b"/nix/store 99999999\n/boot 1024\n"}, "/boot has 1 MiB left"),
        ({"room": b"/nix/store 4096\n"}, "/nix/store has 4 MiB left"),
        ({"read-only": b"/etc/nixos\n"}, "/etc/nixos is read-only"),
        ({"var-lib-disk": b"tmpfs\n"}, "/var/lib is in memory"),
        ({"clock": b"86400\n"}, "days off"),
        ({"clock": b"1000000000\n"}, None),
    ],
)
def test_what_stands_in_the_way(records: dict[str, bytes], words: str | None) -> None:
    found = [problem for problem, _ in problems(records, 1_000_000_000.0)]
    assert [words in problem for problem in found] if words else found == []
    assert bool(found) == bool(words)


@pytest.mark.parametrize(
    ("engine", "docker", "problem", "warning"),
    [
        (Engine.PODMAN, b"", False, False),
        (Engine.PODMAN, b"yes\n", False, True),
        (Engine.DOCKER, b"", True, False),
        (Engine.DOCKER, b"yes\n", False, False),
    ],
)
def test_the_engine_is_there_and_no_other_in_its_way(
    engine: Engine, docker: bytes, problem: bool, warning: bool
) -> None:
    records = {"docker": docker}
    assert [bool(list(problems(records, 0.0, engine))), bool(list(warnings(records, engine)))] == [problem, warning]


@pytest.mark.parametrize(
    ("line", "result"),
    [
        ("end exited commit 0 7", SwitchResult("commit", 0, 7)),
        ("end waits activate 4 6", SwitchResult("activate", 4, 6, waits=True)),
        ("end failed back 0 6 expired", SwitchResult("back", 0, 6, why="expired")),
        ("end failed build running 6", SwitchResult("build", 1, 6)),
        ("end dead lost 1", SwitchResult("lost", 1, None)),
    ],
)
def test_the_end_of_a_switch_is_read(line: str, result: SwitchResult) -> None:
    assert Followed.parse(line).result == result


def test_a_host_that_went_back_is_not_done() -> None:
    result = SwitchResult("back", 0, 6, why="expired")
    assert (result.is_done, result.phase) == (False, "back")
    assert "nobody confirmed" in result.explain()


@pytest.mark.parametrize(
    ("at", "age"),
    [
        ("2026-01-01T11:57:00+00:00", "3 min"),
        ("2026-01-01T06:00:00+00:00", "6 h"),
        ("2026-01-01T13:00:00+00:00", "2026-01-01T13:00:00+00:00"),
        ("yesterday", "yesterday"),
    ],
)
def test_how_long_ago(at: str, age: str) -> None:
    assert Run("r", "up", "me@here", at).age(datetime(2026, 1, 1, 12, tzinfo=UTC)) == age


def test_a_claim_has_installed_nothing() -> None:
    assert [phase.has_installed for phase in (Phase.NONE, Phase.CLAIMED, Phase.WRITTEN)] == [False, False, True]


@pytest.mark.parametrize("verb", ["write", "remove"])
def test_what_a_person_wrote_into_our_file_is_kept_beside_it(verb: str) -> None:
    facts, journal = converged()
    name = "module/runner.nix.data"
    edited = Facts("host1", {**facts.records, name: facts.records[name] + b"# mine\n"})
    step = ModuleFiles()
    parts = step.write(wanted(), edited, journal) if verb == "write" else step.remove(edited, journal)
    copies = [part for part in parts if isinstance(part, KeepCopy)]
    assert [copy.path for copy in copies] == [f"{HOOK.module}/runner.nix"]
    assert copies[0].copy.startswith(f"{HOOK.module}/runner.nix.edited-")
    beside = {
        f"module/{copies[0].copy.rpartition('/')[2]}.{kind}": edited.records[f"module/runner.nix.{kind}"]
        for kind in ("stat", "data")
    }
    later = Facts("host1", {**edited.records, **beside})
    removed = [part.path for part in step.remove(later, journal) if isinstance(part, RemoveFile)]
    assert copies[0].copy not in removed


def test_a_configuration_in_the_store_is_refused_before_anything() -> None:
    facts, journal = converged()
    linked = Facts("host1", {**facts.records, "configuration.real": b"/nix/store/xxx-configuration.nix"})
    with pytest.raises(HookRefused, match="link into the store"):
        Hooked().remove(linked, journal)


def linked_folder(facts: Facts) -> Facts:
    """The same host, whose /etc/nixos is a link to a folder of its owner's."""
    moved = {
        name: data.replace(b"/etc/nixos", b"/home/me/nixos") if name.endswith(".real") else data
        for name, data in facts.records.items()
    }
    return Facts("host1", {**moved, "etc-nixos": b"/home/me/nixos"})


def test_a_host_that_goes_back_alone_gives_the_file_behind_a_linked_folder_back() -> None:
    before = linked_folder(new_host())
    back = undo(feeding(before, Journal()), before, HOOK)
    given = {part.path: part.content for part in back if isinstance(part, WriteFile)}
    assert given == {"/etc/nixos/configuration.nix": before.records["configuration.data"]}
    assert "/etc/nixos/configuration.nix" not in [part.path for part in back if isinstance(part, RemoveFile)]


def test_what_down_took_out_behind_a_link_can_be_turned_round() -> None:
    facts, journal = converged()
    linked = Facts("host1", {**facts.records, "configuration.real": b"/home/me/configuration.nix"})
    back = undo(feeding(linked, journal, remove=True), linked, HOOK)
    given = {part.path: part.content for part in back if isinstance(part, WriteFile)}
    assert given["/home/me/configuration.nix"] == facts.records["configuration.data"]


def test_a_line_that_a_link_took_away_from_the_module_is_refused_unless_it_says_the_whole_path() -> None:
    facts, journal = converged()
    linked = {**facts.records, "configuration.real": b"/home/me/configuration.nix"}
    with pytest.raises(HookRefused, match="link to /home/me"):
        Hooked().compare(wanted(), Facts("host1", linked), journal)
    whole = linked["configuration.data"].replace(b"./nixprov", b"/etc/nixos/nixprov")
    assert Hooked().compare(wanted(), Facts("host1", {**linked, "configuration.data": whole}), journal).is_present


def test_an_immutable_file_is_said_before_anything() -> None:
    protected = {"configuration-protected": b"yes\n"}
    fresh = Facts("host1", {**new_host().records, **protected})
    with pytest.raises(HookRefused, match="write-protected") as caught:
        Hooked().compare(wanted(), fresh, Journal())
    assert "chattr -i" in caught.value.hint
    facts, journal = converged()
    with pytest.raises(HookRefused, match="write-protected"):
        Hooked().remove(Facts("host1", {**facts.records, **protected}), journal)


def restored(before: Facts, now: Facts, journal: Journal) -> list[Part]:
    return [part for step in reversed(STEPS) for part in step.restore(before, now, journal)]


def test_a_down_that_failed_gives_the_line_the_files_and_their_folder_back() -> None:
    facts, journal = converged()
    taken = after(facts, feeding(facts, journal, remove=True))
    assert configuration_of(taken) != configuration_of(facts)
    parts = restored(facts, taken, journal)
    assert MakeDir(HOOK.module, 0o755) in parts
    assert configuration_of(after(taken, parts)) == configuration_of(facts)


def test_a_down_that_failed_leaves_a_file_that_a_person_was_at_since() -> None:
    facts, journal = converged()
    taken = after(facts, feeding(facts, journal, remove=True))
    edited = Facts("host1", {**taken.records, "configuration.data": b"{ }\n"})
    paths = [part.path for part in restored(facts, edited, journal) if isinstance(part, WriteFile)]
    assert "/etc/nixos/configuration.nix" not in paths


def test_going_back_leaves_a_persons_own_file_beside_ours_as_they_have_it_now() -> None:
    facts, journal = converged()
    theirs = {"module/mine.nix.stat": b"644 0 0 1 regular file", "module/mine.nix.data": b"{ }\n"}
    before = Facts("host1", {**facts.records, **theirs})
    now = Facts("host1", {**before.records, "module/mine.nix.data": b"{ new = 1; }\n"})
    assert ModuleFiles().restore(before, now, journal) == ()


def test_a_file_of_ours_that_lost_its_first_line_is_kept_too() -> None:
    facts, journal = converged()
    name = "module/runner.nix.data"
    now = Facts("host1", {**facts.records, name: facts.records[name].partition(b"\n")[2] + b"# mine\n"})
    for parts in (ModuleFiles().write(wanted(), now, journal), ModuleFiles().restore(facts, now, journal)):
        assert [part.path for part in parts if isinstance(part, KeepCopy)] == [f"{HOOK.module}/runner.nix"]
        assert [part.path for part in parts if isinstance(part, WriteFile)] == [f"{HOOK.module}/runner.nix"]


def test_going_back_takes_away_nothing_that_a_person_put_there_meanwhile() -> None:
    facts, journal = converged()
    name = "module/runner.nix.data"
    old = Facts("host1", {**facts.records, name: facts.records[name].replace(b"{", b"{ ", 1)})
    theirs = {"module/mine.nix.stat": b"644 0 0 1 regular file", "module/mine.nix.data": b"{ }\n"}
    edited = {"module/settings.nix.data": facts.records["module/settings.nix.data"] + b"# mine\n"}
    now = Facts("host1", {**facts.records, **theirs, **edited})
    parts = ModuleFiles().restore(old, now, journal)
    assert not [part for part in parts if isinstance(part, RemoveFile)]
    assert [part.path for part in parts if isinstance(part, KeepCopy)] == [f"{HOOK.module}/settings.nix"]
    written = {part.path: part.expect for part in parts if isinstance(part, WriteFile)}
    assert written == {
        f"{HOOK.module}/{file}": digest(now.records[f"module/{file}.data"]) for file in ("runner.nix", "settings.nix")
    }
