"""What a host says of a system that is not there yet: Nix's and switch-to-configuration's words, old and new."""

from __future__ import annotations

from base64 import b64encode

import pytest

from provisioner.ci.gitlab.words import WORDS
from provisioner.engine.preview import checked
from provisioner.errors import RemoteFailed
from provisioner.machine import preview
from provisioner.machine.preview import Closure, PackageChange, Preview, UnitChange
from provisioner.plan import HostPlan
from provisioner.report.system import system_lines
from provisioner.steps import Wanted
from tests.unit.hosts import HOOK, spec

REVISION = "0123abc"
HASH = "0c3d2fghijklmnpqrsvwxyz0123456789"[:32]
NIX_2_3 = f"""\
building the system configuration...
these derivations will be built:
  /nix/store/{HASH}-etc.drv
  /nix/store/{HASH}-nixos-system-a-20.09.drv
these paths will be fetched (1.20 MiB download, 4.00 MiB unpacked):
  /nix/store/{HASH}-podman-2.1.1
"""
NIX_2_26 = f"""\
evaluation warning: something is old
this derivation will be built:
  /nix/store/{HASH}-etc.drv
these 2 paths will be fetched (0.1 MiB download, 0.4 MiB unpacked):
  /nix/store/{HASH}-podman-5.4.2
  /nix/store/{HASH}-podman-5.4.2-man
"""
PERL = """\
would stop the following units: a.service, b.socket
would NOT restart the following changed units: dbus.service
would activate the configuration...
would reload the following units: d.service
would restart the following units: e.service
"""


def answer(**records: str) -> bytes:
    lines = {name.replace("_", "-"): b64encode(text.encode()).decode() for name, text in records.items()}
    log = "log these derivations will be built\nlog aGVsbG8=\n"
    return (log + "".join(f"{name} {data}\n" for name, data in lines.items()) + "answer-end eWVzCg==\n").encode()


def paths(*names: tuple[int, str]) -> str:
    return "".join(f"{size} /nix/store/{HASH}-{name}\n" for size, name in names)


@pytest.mark.parametrize(
    ("said", "build", "fetch", "sizes"),
    [
        (NIX_2_3, ("etc", "nixos-system-a-20.09"), ("podman-2.1.1",), "1.20 MiB download, 4.00 MiB unpacked"),
        (NIX_2_26, ("etc",), ("podman-5.4.2", "podman-5.4.2-man"), "0.1 MiB download, 0.4 MiB unpacked"),
    ],
)
def test_what_would_be_built_and_fetched(said: str, build: tuple[str, ...], fetch: tuple[str, ...], sizes: str) -> None:
    seen = preview.read("h", answer(dry_run=said))
    assert (seen.build, seen.fetch, seen.sizes, seen.closure) == (build, fetch, sizes, None)


def test_the_closure_by_names_and_versions() -> None:
    added = paths((300, "nix-2.28.3"), (50, "etc"), (70, "perl5.40-net-http-6.23"), (5, "unit-a.service"))
    removed = paths((100, "nix-2.26.3"), (20, "nix-2.26.3-doc"), (50, "etc"), (9, "unit-b.service"))
    units = {"new_units": "x.service\ny.timer\n", "dry_activate": PERL}
    seen = preview.read("h", answer(added=added, removed=removed, revision="abc\n", **units))
    assert seen.closure is not None
    closure = seen.closure
    assert (closure.added, closure.removed, closure.size, closure.revision) == (4, 4, 246, "abc")
    assert closure.packages == (
        PackageChange("etc", ("",), ("",), 0),
        PackageChange("nix", ("2.26.3", "2.26.3-doc"), ("2.28.3",), 180),
        PackageChange("perl5.40-net-http", (), ("6.23",), 70),
        PackageChange("unit-a.service", (), ("",), 5),
        PackageChange("unit-b.service", ("",), (), -9),
    )
    assert closure.units == (
        UnitChange("add", ("x.service", "y.timer")),
        UnitChange("stop", ("a.service", "b.socket")),
        UnitChange("reload", ("d.service",)),
        UnitChange("restart", ("e.service",)),
    )


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (
            "error: while evaluating\n       … x\n       error: option `a' does not exist.\n",
            "option `a' does not exist.",
        ),
        ("error:\n  error: The unit is bad\n\n  Did you mean b?\n", "The unit is bad"),
        ("nixos-rebuild: not found\n", "nixos-rebuild: not found"),
        ("", "nixos-rebuild failed"),
    ],
)
def test_why_it_would_not_build_is_one_line(said: str, why: str) -> None:
    assert preview.read("h", answer(failed=said)).failed == why


def test_an_answer_that_was_cut_short_says_nothing() -> None:
    with pytest.raises(RemoteFailed):
        preview.read("h", answer(added="")[:-8])


def test_what_files_hold_is_in_no_argument() -> None:
    script = preview.script(
        "r",
        HOOK.configuration,
        {"/etc/nixos/configuration.nix": b"{ poison }", "/etc/nixos/a b/c.nix": None},
        build=True,
    )
    arguments, _, program = script.partition(b"<< 'END-OF-QUESTION'")
    poison = b64encode(b"{ poison }")
    assert poison in program
    assert poison not in arguments
    assert b"rm -f 'a b/c.nix'" in program


@pytest.mark.parametrize(
    ("seen", "lines"),
    [
        (None, []),
        (Preview(failed="x"), []),
        (Preview(unknown="/etc/nixos is larger"), ["system: not known: /etc/nixos is larger"]),
        (Preview(Closure(0, 0, 0, ())), ["system: as it is"]),
        (
            Preview(build=("a", "b"), fetch=("c",), sizes="1 MiB download"),
            [
                "system: would build 2 derivations and fetch 1 path (1 MiB download); --build shows what comes of it",
                "  build a, b",
                "  fetch c",
            ],
        ),
        (
            Preview(
                Closure(
                    3,
                    2,
                    -3 * 1024 * 1024,
                    (
                        PackageChange("etc", ("",), ("",), 3),
                        PackageChange("python3", (), ("3.13.5",), 2048),
                        PackageChange("nix", ("2.8",), ("2.9", "2.9-doc"), 1024),
                        PackageChange("big", ("1",), ("1",), -(1 << 31)),
                        PackageChange("unit", (), ("",), 10),
                    ),
                    (UnitChange("restart", ("a.service", "b.service")),),
                )
            ),
            [
                "system: 3 paths more, 2 less, -3.0 MiB",
                "  new python3 3.13.5 (+2.0 KiB)",
                "  nix 2.8 → 2.9, 2.9-doc (+1.0 KiB)",
                "  big (-2.0 GiB)",
                "  restarts a.service, b.service",
            ],
        ),
    ],
)
def test_what_people_are_told(seen: Preview | None, lines: list[str]) -> None:
    assert list(system_lines(seen)) == lines


@pytest.mark.parametrize(
    ("wanted", "found", "failed"),
    [
        (REVISION, REVISION, ""),
        (REVISION, "", "would not contain the module"),
        (REVISION, "other", "would not contain the module"),
        ("", "", ""),
        ("", "other", "would still contain the module"),
    ],
)
def test_a_system_that_is_not_what_was_meant_fails_the_plan(wanted: str, found: str, failed: str) -> None:
    plan = HostPlan("h", WORDS, (), (), "why", Wanted(spec(), {}, wanted, "0.1.0", {}) if wanted else None)
    seen = checked(Preview(Closure(1, 1, 0, (), (), found)), plan, "/etc/nixos/configuration.nix")
    assert failed in seen.failed
    assert bool(seen.failed) == bool(failed)
