"""The table of advisories is in order, and which releases of Nix it hits; what a host and a run then say of it."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from typing import Any

import pytest
from nixprov_lab.control import ACCEPTED

from provisioner import advisories, resources
from provisioner.advisories import Release, Severity
from provisioner.errors import HostRefused
from provisioner.events import Warned
from provisioner.machine.facts import Facts
from provisioner.machine.flaws import Flaws
from provisioner.model import ModuleSpec, Trust
from provisioner.report.colour import Painter
from provisioner.report.ending import flaw_lines
from tests.unit.engine_fakes import Stage, stage
from tests.unit.hosts import converged, new_host, runner, spec

RAW: list[dict[str, Any]] = tomllib.loads((resources.templates() / "core" / "advisories.toml").read_text())["advisory"]
LAB = "nix (Nix) 2.26.3"
KEYS = {"id", "severity", "gives", "advice", "sources", "affected"}
PRODUCTS = {"nix", "lix"}


@pytest.mark.parametrize("entry", RAW, ids=lambda entry: entry["id"])
def test_an_entry_is_whole(entry: dict[str, Any]) -> None:
    assert entry.keys() == KEYS
    assert entry["severity"] in {severity.value for severity in Severity}
    assert entry["sources"]
    assert all(source.startswith("https://") for source in entry["sources"])
    for text in (entry["gives"], entry["advice"]):
        assert text == " ".join(text.split())
        assert 0 < len(text) < 120
    assert entry["affected"].keys() <= PRODUCTS
    assert "nix" in entry["affected"]
    assert all({"fixed"} <= said.keys() <= {"from", "fixed"} for said in entry["affected"].values())


@pytest.mark.parametrize("advisory", advisories.known(), ids=lambda advisory: advisory.id)
def test_releases_are_in_order_and_one_a_branch(advisory: advisories.Advisory) -> None:
    for range_ in advisory.affected.values():
        for releases in (range_.since, range_.fixed):
            assert list(releases) == sorted(releases)
            assert len({release.branch for release in releases}) == len(releases)
            assert all(release.final == 0 for release in releases)
        assert range_.fixed
        # A branch that is mended has, or has got, what is mended there.
        assert all(range_.holds(fix._replace(final=-1)) and not range_.holds(fix) for fix in range_.fixed)


def test_ids_are_in_order_and_none_is_twice() -> None:
    order = [tuple(map(int, entry["id"].removeprefix("CVE-").split("-"))) for entry in RAW]
    assert order == sorted(set(order))


def test_versions_are_written_as_they_are_read() -> None:
    for entry in RAW:
        for said in entry["affected"].values():
            for text in (*said.get("from", ()), *said["fixed"]):
                assert str(Release.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("2.26.3", Release(2, 26, 3)),
        ("2.26", Release(2, 26, 0)),
        ("2.26.3+dfsg-1+b2", Release(2, 26, 3)),
        ("2.31.4pre20260101_abc", Release(2, 31, 4, -1)),
        ("2.8pre20220512_d354fc3", Release(2, 8, 0, -1)),
        ("2.4pre-rc1", Release(2, 4, 0, -1)),
        ("3.0.0", Release(3, 0, 0)),
        ("2.x", None),
        ("2", None),
        ("unknown", None),
        ("", None),
    ],
)
def test_a_version_is_parsed(text: str, release: Release | None) -> None:
    assert Release.parse(text) == release


FOD, NAR, RACE, OWNER = "CVE-2026-39860", "CVE-2026-44028", "CVE-2025-46415", "CVE-2025-52993"


@pytest.mark.parametrize(
    ("product", "version", "root", "mended"),
    [
        ("nix", "2.3.16", ["CVE-2024-27297", RACE, OWNER], "2.28.7"),
        ("nix", "2.18.1", ["CVE-2024-27297", RACE, OWNER], "2.28.7"),
        ("nix", "2.18.2", [RACE, OWNER, FOD], "2.28.7"),
        ("nix", "2.20.4", ["CVE-2024-27297", RACE, OWNER], "2.28.7"),
        ("nix", "2.24.3", ["CVE-2024-45593", RACE, OWNER, FOD], "2.28.7"),
        ("nix", "2.24.15", [FOD, NAR], "2.28.7"),
        ("nix", "2.25.5", [RACE, OWNER, FOD, NAR], "2.28.7"),
        ("nix", "2.26.3", [RACE, OWNER, FOD, NAR], "2.28.7"),
        ("nix", "2.28.5", [FOD, NAR], "2.28.7"),
        ("nix", "2.28.6", [NAR], "2.28.7"),
        ("nix", "2.28.7", [], ""),
        ("nix", "2.31.4pre20260101_abc", [FOD, NAR], "2.31.5"),
        ("nix", "2.31.4", [NAR], "2.31.5"),
        ("nix", "2.33.5", [NAR], "2.33.6"),
        ("nix", "2.34.7", [], ""),
        ("nix", "2.35.0pre20260301_abc", [FOD, NAR], "2.35.3"),
        ("nix", "2.35.0", [], ""),
        ("nix", "3.0.0", [], ""),
        ("lix", "2.91.1", [RACE, OWNER], "2.91.2"),
        ("lix", "2.93.0", [RACE, OWNER, NAR], "2.93.4"),
        ("lix", "2.93.4", [], ""),
        ("lix", "2.95.2", [], ""),
    ],
)
def test_which_releases_let_jobs_become_root(product: str, version: str, root: list[str], mended: str) -> None:
    found = advisories.of(product, version)
    assert found is not None
    assert [one.id for one in found.root] == root
    assert (found.mended if root else "") == mended


@pytest.mark.parametrize(
    ("product", "version"), [("determinate nix 3.6.2", "2.29.0"), ("nix", ""), ("nix", "unknown"), ("", "2.26.3")]
)
def test_what_is_not_known_is_not_judged(product: str, version: str) -> None:
    assert advisories.of(product, version) is None


def test_only_a_release_without_a_way_to_root_mends() -> None:
    """The nearest release that closes this flaw may open another one."""
    flaw, other = (one for one in advisories.known() if one.id in (FOD, NAR))
    late = replace(other, affected={"nix": advisories.Range((Release(2, 1, 1),), (Release(2, 2, 5),))})
    early = replace(flaw, affected={"nix": advisories.Range((), (Release(2, 1, 1), Release(2, 2, 1)))})
    found = advisories.of("nix", "2.1.0", (early, late))
    assert found is not None
    assert (found.root, found.mended) == ((early,), "2.2.5")


def flaws(nix: str, *accepted: str, trust: Trust = Trust.NONE) -> Flaws:
    facts = Facts("h", {"nix-version": nix.encode()})
    return Flaws.of(ModuleSpec(trust=trust, accepted_advisories=accepted), facts)


def test_what_is_refused_is_named_with_its_mend_and_how_to_accept_it() -> None:
    found = flaws(LAB, RACE, OWNER)
    assert found.refusal() == (
        f"nix 2.26.3 lets jobs become root of the host: {FOD}, {NAR}",
        (
            "switch the host to Nix 2.28.7 or newer (nix.package), or accept by name: "
            f"`nixprov_accept_advisories: [{RACE}, {OWNER}, {FOD}, {NAR}]`"
        ),
    )
    assert list(found.warnings()) == [
        f"nix 2.26.3 lets jobs become root of the host, and this is accepted: {RACE}, {OWNER}; 2.28.7 mends it",
        "nix 2.26.3 has flaws that give jobs less than root: CVE-2025-46416, CVE-2025-52992, CVE-2026-110450",
    ]


def test_all_that_the_lab_accepts_is_what_its_nix_has() -> None:
    assert [one.id for one in flaws(LAB).all if one.is_root] == list(ACCEPTED)
    assert flaws(LAB, *ACCEPTED).refusal() is None


@pytest.mark.parametrize(
    ("nix", "said"),
    [
        ("nix (Nix) 2.35.3", []),
        ("nix (Lix, like Nix) 2.95.4", []),
        ("nix (Determinate Nix 3.6.2) 2.29.0", ["nix 2.29.0 (determinate nix 3.6.2) is not one that nixprov knows"]),
        ("", ["nix does not tell its version: advisories were not looked at"]),
    ],
)
def test_only_what_was_looked_at_is_said(nix: str, said: list[str]) -> None:
    warnings = list(flaws(nix).warnings())
    assert len(warnings) == len(said)
    assert all(part in text for part, text in zip(said, warnings, strict=True))
    assert flaws(nix).refusal() is None


def test_where_jobs_are_root_anyhow_nothing_is_refused() -> None:
    found = flaws(LAB, trust=Trust.PLAIN)
    assert found.refusal() is None
    assert list(found.warnings()) == []


def a_stage(verb: str, *accepted: str, nix: str = LAB) -> Stage:
    """A converged host whose Nix is another now: its owner may have taken an older one."""
    host = replace(spec(), module=ModuleSpec(accepted_advisories=accepted))
    facts, journal = converged(host)
    return stage(
        Facts("host1", {**facts.records, "nix-version": nix.encode()}), journal, runner(), verb=verb, host=host
    )


def test_up_refuses_before_anything_is_made_anywhere() -> None:
    new = stage(Facts("host1", {**new_host().records, "nix-version": LAB.encode()}), None)
    for it in (new, a_stage("up")):
        with pytest.raises(HostRefused, match=rf"lets jobs become root of the host: .*{FOD}"):
            it.plan()
        assert all("touched=yes" not in script for script in it.session.scripts)
        assert {name for name, _ in it.api.said} <= {"get"}


def test_up_takes_what_is_accepted_and_a_mended_nix() -> None:
    it = a_stage("up", *ACCEPTED)
    assert it.plan().is_empty
    assert [text for text in it.texts(Warned) if "this is accepted" in text]
    mended = a_stage("up", nix="nix (Nix) 2.28.7")
    assert mended.plan().is_empty
    assert not [text for text in mended.texts(Warned) if "become root" in text]


def test_down_is_never_refused() -> None:
    assert a_stage("down").plan().changes_host


def test_status_tells_and_does_not_fail() -> None:
    it = a_stage("status")
    report = it.report()
    assert [one.id for one in report.flaws.all if one.is_root] == list(ACCEPTED)
    assert [text for text in it.texts(Warned) if "`up` refuses it; switch the host to Nix 2.28.7" in text]
    accepted = a_stage("status", *ACCEPTED)
    report = accepted.report()
    assert not [text for text in accepted.texts(Warned) if "refuses" in text]
    assert [text for text in accepted.texts(Warned) if "this is accepted" in text]
    assert list(flaw_lines(report.flaws, Painter())) == [
        (
            f"way to root: {RACE} (accepted): a race with the daemon that clears up after a build removes files anywhere on"
            " the host as root"
        ),
        f"way to root: {OWNER} (accepted): a race with the daemon makes any file of the host the build user's",
        (
            f"way to root: {FOD} (accepted): a fixed-output build writes files anywhere on the host as root, through a link"
            " at its output"
        ),
        (
            f"way to root: {NAR} (accepted): an archive that is handed to the daemon overwrites its memory, and runs code as"
            " root with luck or patience"
        ),
        "less: CVE-2025-46416, CVE-2025-52992, CVE-2026-110450",
    ]
