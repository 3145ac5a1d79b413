"""The probe's answer and the journal: what is read back is what was meant, broken ones are refused."""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import replace

import pytest

from provisioner.errors import HostRefused, RemoteFailed
from provisioner.machine.facts import Facts, digest
from provisioner.machine.journal import Baseline, HookRecord, Journal, Phase, Run, RunnerRecord
from provisioner.model import machine_key


def facts(**records: bytes) -> Facts:
    return Facts("host1", {name.replace("_", "-").replace("--", "."): value for name, value in records.items()})


def test_a_cut_answer_is_refused() -> None:
    with pytest.raises(RemoteFailed, match="incomplete"):
        Facts.parse("h", b"os " + b64encode(b"ID=nixos") + b"\n")


@pytest.mark.parametrize(
    ("link", "generation"),
    [(b"system-42-link", 42), (b"/nix/var/nix/profiles/system-7-link", 7), (b"", None), (b"odd", None)],
)
def test_generation(link: bytes, generation: int | None) -> None:
    assert facts(generation=link).generation == generation


def test_units_leave_out_the_inactive() -> None:
    text = b"Id=a.service\nActiveState=active\nSubState=running\nNRestarts=3\n\nId=b.socket\nActiveState=inactive\n\n"
    assert [(unit.name, unit.is_active, unit.restarts) for unit in facts(units=text).units] == [("a.service", True, 3)]


@pytest.mark.parametrize("os", [b"ID=debian\n", b"", b"VARIANT_ID=nixos\n"])
def test_other_systems_are_refused(os: bytes) -> None:
    with pytest.raises(HostRefused, match="not a NixOS"):
        facts(os=os, machine_id=b"1").require_nixos()


def test_machine_key_is_short_and_not_the_id() -> None:
    key = machine_key("0123456789abcdef0123456789abcdef\n")
    assert len(key) == 12
    assert key not in "0123456789abcdef0123456789abcdef"
    assert key == machine_key("0123456789abcdef0123456789abcdef")


def full() -> Journal:
    return Journal(
        host="host1",
        machine="0123456789ab",
        phase=Phase.CONFIRMED,
        run=Run("r1", "up", "me@here", "2026-01-01T00:00:00+00:00"),
        baseline=Baseline(3, "/nix/store/x"),
        hook=HookRecord("/etc/nixos/configuration.nix", 0o644, "0:0", 5, 6, "a", "/backup"),
        runners={"default": RunnerRecord(7, "https://gitlab.example", "r1")},
        pending_deletions=(RunnerRecord(8, "https://gitlab.example", ""),),
        nixprov="0.1.0",
    )


def full_with(**fields: object) -> bytes:
    return json.dumps(json.loads(full().render()) | fields).encode()


def read(content: bytes) -> Journal:
    return Journal.read(Facts("host1", {"journal.data": content}))


def test_journal_reads_what_it_wrote() -> None:
    content = full().render()
    again = read(content)
    assert again.sha256 == digest(content)
    assert again.render() == content
    assert again.runners == full().runners
    assert again.hook == full().hook


def test_a_journal_that_names_no_version_of_nixprov_is_read() -> None:
    document = json.loads(full().render())
    assert document.pop("nixprov") == "0.1.0"
    again = read(json.dumps(document).encode())
    assert replace(again, sha256="", nixprov="0.1.0") == replace(full(), sha256="")
    assert (again.nixprov, json.loads(again.render())["nixprov"]) == ("", "")


def test_unknown_fields_are_kept() -> None:
    document = json.loads(full().render()) | {"from-the-future": [1, {"x": None}]}
    assert json.loads(read(json.dumps(document).encode()).render())["from-the-future"] == [1, {"x": None}]


def test_unknown_fields_of_records_are_kept_with_the_record() -> None:
    document = json.loads(full().render())
    document["hook"]["seen"] = [1]
    document["runners"]["default"]["note"] = {"x": None}
    again = json.loads(replace(read(json.dumps(document).encode()), phase=Phase.DRAINING).render())
    assert (again["hook"]["seen"], again["runners"]["default"]["note"]) == ([1], {"x": None})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"7",
        b"{",
        b'{"version": 1}',
        b'{"version": "x"}',
        full_with(runners=[7]),
        full_with(hook={}),
        full_with(nixprov=7),
    ],
)
def test_a_broken_journal_is_refused_not_overwritten(content: bytes) -> None:
    with pytest.raises(HostRefused, match="the journal cannot be read") as caught:
        read(content)
    assert "move it away" in caught.value.hint


def test_a_newer_journal_wants_a_newer_nixprov() -> None:
    with pytest.raises(HostRefused, match="of version 2, this nixprov knows 1") as caught:
        read(full_with(version=2, phase="not known here"))
    assert "at least as new" in caught.value.hint


def test_no_journal_is_an_empty_one() -> None:
    journal = Journal.read(Facts("host1", {}))
    assert not journal.exists
    assert journal.phase is Phase.NONE
