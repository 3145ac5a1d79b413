"""The module evaluates, strictly and to a whole system, whatever the host's configuration says about what it touches.

Evaluated by the host's Nix in the lab's NixOS, which refuses an option or a library function that it does not know.
The table is pairwise: every two settings of two different factors meet in one of its rows.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from provisioner import resources
from provisioner.lab.running import Lab
from provisioner.nix.literal import to_nix
from provisioner.steps.wanted import CODE

HOST = "host1"
DIR = "/root/module-eval"
RUNNER = {"id": 7, "tokenVersion": "v1", "description": "say \"hi\" ${x} ''"}

# Each factor's settings: what the host's own configuration may say beside our module.
FACTORS: Mapping[str, Mapping[str, str]] = {
    "runners": {
        "none": "services.nixprov.runners = lib.mkForce { };",
        "one": "",
        "two": 'services.nixprov.runners.other = { id = 8; tokenVersion = "v2"; description = "b"; image = "x"; '
        'concurrent = 9; memory = "4g"; cpus = "1.5"; allowedImages = [ "a/*" ]; environment.A = "b c"; };',
    },
    "podman": {
        "absent": "",
        "on": "virtualisation.podman.enable = true;",
        "docker": "virtualisation.podman = { enable = true; dockerCompat = true; dockerSocket.enable = true; };",
    },
    "nix": {
        "default": "",
        "settings": 'nix.settings = { max-jobs = 4; keep-outputs = true; allowed-users = [ "@wheel" ]; };',
        "sandbox off": 'nix.settings.sandbox = false; nix.settings.post-build-hook = "/bin/true";',
    },
    "proxy": {
        "none": "",
        "some": 'networking.proxy.default = "http://proxy.example:3128"; networking.proxy.noProxy = "localhost";',
    },
    "certificates": {"default": "", "company": 'security.pki.certificates = [ "-----BEGIN CERTIFICATE-----" ];'},
    "limits": {
        "default": "",
        "own": "services.nixprov.limits = { buildTimeout = 60; buildsPerClient = 3; memoryPercent = 50; }; "
        "services.nixprov.cache.keepDays = 1;",
    },
    "packages": {"none": "", "some": "services.nixprov.jobPackages = [ pkgs.hello ];"},
    "gitlab-runner": {"absent": "", "beside": "services.gitlab-runner.enable = true;"},
}


def pairwise(factors: Mapping[str, Mapping[str, str]]) -> list[dict[str, str]]:
    """Rows that cover every pair of settings, by taking the row that covers most of what is left, again and again."""
    names = list(factors)
    missing = {
        frozenset(((a, x), (b, y)))
        for a, b in itertools.combinations(names, 2)
        for x, y in itertools.product(factors[a], factors[b])
    }
    rows: list[dict[str, str]] = []
    candidates = [dict(zip(names, row, strict=True)) for row in itertools.product(*factors.values())]
    while missing:
        best = max(candidates, key=lambda row: len(pairs(row) & missing))
        missing -= pairs(best)
        rows.append(best)
    return rows


def pairs(row: Mapping[str, str]) -> set[frozenset[tuple[str, str]]]:
    return {frozenset(two) for two in itertools.combinations(row.items(), 2)}


ROWS = pairwise(FACTORS)


def test_the_table_is_pairwise() -> None:
    covered = set().union(*(pairs(row) for row in ROWS))
    for a, b in itertools.combinations(FACTORS, 2):
        for x, y in itertools.product(FACTORS[a], FACTORS[b]):
            assert frozenset(((a, x), (b, y))) in covered


@pytest.fixture(scope="module")
def module(lab: Lab) -> str:
    """The module's folder on the host, with settings of its own."""
    lab.run(HOST, ["mkdir", "-p", DIR])
    for name in CODE:
        text = resources.templates().joinpath(name).read_text()
        lab.run(HOST, ["tee", f"{DIR}/{name}"], stdin=text)
    settings = {"revision": "r", "gitlabUrl": "https://gitlab.example", "runners": {"default": RUNNER}}
    lab.run(HOST, ["tee", f"{DIR}/settings.nix"], stdin=to_nix(settings))
    return DIR


def evaluate(lab: Lab, module: str, own: str) -> dict[str, Any]:
    """The .drv of the whole system, the failed assertions and the units of ours."""
    expression = f"""
let
  system = import <nixpkgs/nixos> {{
    configuration = {{ config, lib, pkgs, ... }}: {{
      imports = [ /etc/nixos/hardware-configuration.nix {module}/default.nix ];
      boot.loader.grub.device = "nodev";
      system.stateVersion = "25.11";
      {own}
    }};
  }};
in {{
  toplevel = system.config.system.build.toplevel.drvPath;
  warnings = system.config.warnings;
  failed = map (a: a.message) (builtins.filter (a: !a.assertion) system.config.assertions);
  units = builtins.filter (n: builtins.substring 0 7 n == "nixprov") (builtins.attrNames system.config.systemd.units);
}}
"""
    lab.run(HOST, ["tee", f"{DIR}/eval.nix"], stdin=expression)
    command = f". /etc/set-environment; nix-instantiate --eval --strict --json --read-write-mode {DIR}/eval.nix"
    done = lab.run(HOST, ["bash", "-c", command], check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("row", ROWS, ids=lambda row: "-".join(row.values()))
def test_it_evaluates_to_a_system(lab: Lab, module: str, row: dict[str, str]) -> None:
    answer = evaluate(lab, module, "\n".join(FACTORS[name][setting] for name, setting in row.items()))
    assert answer["toplevel"].endswith(".drv")
    assert answer["failed"] == []
    runners = {"none": 0, "one": 1, "two": 2}[row["runners"]]
    assert sum(unit.startswith("nixprov-runner-") for unit in answer["units"]) == runners


def old_nix(version: str) -> str:
    return f'nix.package = pkgs.nix // {{ name = "nix-{version}"; version = "{version}"; }};'


def test_a_nix_without_an_untrusting_daemon_is_asked_as_an_unprivileged_user(lab: Lab, module: str) -> None:
    answer = evaluate(lab, module, old_nix("2.13.6"))
    assert answer["failed"] == []
    assert "nixprov-nix-filter.service" in answer["units"]
    assert not any(unit.startswith("nixprov-nix-daemon") for unit in answer["units"])
    assert any("older than 2.18" in warning for warning in answer["warnings"])


@pytest.mark.parametrize(
    "own",
    [old_nix("2.3.16"), old_nix("2.13.6") + 'nix.settings.trusted-users = [ "*" ];'],
)
def test_a_nix_that_would_take_jobs_for_root_is_refused(lab: Lab, module: str, own: str) -> None:
    with pytest.raises(AssertionError, match="root of this host"):
        evaluate(lab, module, own)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ('services.nixprov.runners.default.id = lib.mkForce "seven";', "is not of type"),
        ("services.nixprov.runners.default.colour = 1;", "does not exist"),
        ("services.nixprov.limits.tasks = -1;", "is not of type"),
    ],
)
def test_a_mistake_stops_at_evaluation(lab: Lab, module: str, own: str, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        evaluate(lab, module, own)


def test_code_and_templates_are_the_same_files() -> None:
    folder = Path(str(resources.templates()))
    assert {path.name for path in folder.iterdir() if path.suffix in (".nix", ".py")} == set(CODE)
