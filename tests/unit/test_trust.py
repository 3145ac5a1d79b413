"""Whether a job would be root of the host: what the facts say of it, as a table."""

from __future__ import annotations

import pytest

from provisioner.machine import trust
from provisioner.machine.facts import Facts
from provisioner.model import Trust


def facts(nix: str = "", users: str = "root", told: str = "", signed: str = "") -> Facts:
    said = {"nix-version": nix, "trusted-users": users, "trust": told, "require-sigs": signed}
    return Facts("h", {name: text.encode() for name, text in said.items()})


@pytest.mark.parametrize(
    ("printed", "version"),
    [
        ("nix (Nix) 2.26.3", "2.26.3"),
        ("nix (Nix) 2.8.0pre20220512_d354fc3", "2.8.0pre20220512_d354fc3"),
        ("nix (Lix, like Nix) 2.91.1", "2.91.1"),
        ("nix (Determinate Nix 3.6.2) 2.29.0", "2.29.0"),
        ("", ""),
        ("sh: nix: not found", ""),
    ],
)
def test_the_version_of_any_nix(printed: str, version: str) -> None:
    assert facts(printed).nix_version == version


@pytest.mark.parametrize(
    ("nix", "users", "why"),
    [
        ("nix (Nix) 2.3.16", "root", "nix 2.3.16 is older than 2.4 and cannot keep jobs from being root of the host"),
        ("nix (Nix) 2.4", "root", ""),
        ("nix (Nix) 2.13.6", "root @wheel", ""),
        ("nix (Nix) 2.13.6", "root *", "nix 2.13.6 is older than 2.18, and `*` in trusted-users makes jobs root"),
        ("nix (Nix) 2.13.6", "root nixprov-filter", "`nixprov-filter` in trusted-users"),
        ("nix (Nix) 2.17.1", "@nixprov-filter", "`@nixprov-filter` in trusted-users"),
        ("nix (Nix) 2.18.0", "*", ""),
        ("nix (Lix, like Nix) 2.91.1", "*", ""),
        ("", "*", ""),
    ],
)
def test_what_would_make_jobs_root_is_named(nix: str, users: str, why: str) -> None:
    found = list(trust.problems(Trust.NONE, facts(nix, users)))
    assert [why in problem for problem, _ in found] == ([True] if why else [])
    assert all("nixprov_trust: plain" in hint for _, hint in found)
    assert list(trust.problems(Trust.PLAIN, facts(nix, users))) == []


@pytest.mark.parametrize(
    ("nix", "signed", "refused"),
    [
        ("nix (Nix) 2.13.6", " false\n", True),
        ("nix (Nix) 2.13.6", "no", True),
        ("nix (Nix) 2.13.6", " true\n", False),
        ("nix (Nix) 2.13.6", "", False),
        ("nix (Nix) 2.18.0", "false", False),
    ],
)
def test_an_old_nix_that_takes_unsigned_paths_is_refused(nix: str, signed: str, refused: bool) -> None:
    found = list(trust.problems(Trust.NONE, facts(nix, signed=signed)))
    assert ["without require-sigs" in problem for problem, _ in found] == ([True] if refused else [])


@pytest.mark.parametrize(
    ("wanted", "told", "said"),
    [
        (Trust.NONE, "", None),
        (Trust.PLAIN, "", "nixprov_trust: plain"),
        (Trust.PLAIN, "plain", "nixprov_trust: plain"),
        (Trust.NONE, "plain", "not what the inventory says"),
    ],
)
def test_trusted_jobs_are_warned_of_whoever_asks(wanted: Trust, told: str, said: str | None) -> None:
    warnings = list(trust.warnings(wanted, facts(told=told)))
    assert [said in text for text in warnings if said] == ([True] if said else [])
    assert len(warnings) == (said is not None)
