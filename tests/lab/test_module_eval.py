"""The module evaluates, strictly and to a whole system, whatever the host's configuration says about what it touches.

Evaluated by the host's Nix in the lab's NixOS, which refuses an option or a library function that it does not know.
The table is pairwise: every two settings of two different factors meet in one of its rows. The factors are every option of
the module and what the host's own configuration may say beside it, once with today's options and once with those of 20.09.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from nixprov_lab.running import Lab

from provisioner import advisories, resources
from provisioner.ci import DEFAULT
from provisioner.nix.values import to_nix
from provisioner.steps.module import UNITS
from provisioner.steps.wanted import code_files

HOST = "host1"
DIR = "/root/module-eval"
RUNNER = {"id": 7, "tokenVersion": "v1", "description": "say \"hi\" ${x} ''"}

# Each factor's settings: what the host's own configuration may say beside our module.
HOST_FACTORS: Mapping[str, Mapping[str, str]] = {
    "runners": {
        "none": "services.nixprov.runners = lib.mkForce { };",
        "one": "",
        "two": 'services.nixprov.runners.other = { id = 8; tokenVersion = "v2"; description = "b"; };',
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
    "gitlab-runner": {"absent": "", "beside": "services.gitlab-runner.enable = true;"},
}

# A value of each of the module's own options that is not its default; those of a runner are `default`'s.
OWN: Mapping[str, str] = {
    "jobPackages": "[ pkgs.hello ]",
    "acceptedAdvisories": to_nix([one.id for one in advisories.known()]),
    "shareSocket": "true",
    "trust": '"plain"',
    "engine": '"docker"',
    "limits.buildTimeout": "60",
    "limits.buildSilence": "30",
    "limits.buildLogMiB": "1",
    "limits.buildsPerClient": "3",
    "limits.connectionsPerJob": "8",
    "limits.cpuWeight": "10",
    "limits.ioWeight": "20",
    "limits.memoryPercent": "50",
    "limits.tasks": "6000",
    "limits.tasksPerContainer": "100",
    "cache.keepDays": "1",
    "cache.minFreePercent": "1",
    "cache.maxFreePercent": "7",
    "runners.*.concurrent": "9",
    "runners.*.image": '"registry.example/a@sha256:0000"',
    "runners.*.allowedImages": '[ "a/*" "b\\"c" ]',
    "runners.*.memory": '"4g"',
    "runners.*.cpus": '"1.5"',
    "runners.*.noNewPrivileges": "false",
    "runners.*.capAdd": '[ "NET_RAW" ]',
    "runners.*.environment": """{ A = "b c"; B = "\\"'' \\${x} \\n"; }""",
    "runners.*.stopTimeout": "1",
}
# What nixprov always writes.
ALWAYS = {"revision", "gitlabUrl", "runners", *(f"runners.*.{name}" for name in ("id", "tokenVersion", "description"))}
# Docker is the host's own, and podman may then not stand in its place.
DOCKER = """
virtualisation.docker.enable = true;
virtualisation.podman = { dockerCompat = lib.mkForce false; dockerSocket.enable = lib.mkForce false; };
"""
BESIDE: Mapping[str, str] = {"engine": DOCKER}
FACTORS: Mapping[str, Mapping[str, str]] = {
    **HOST_FACTORS,
    **{
        option: {
            "default": "",
            "own": f"services.nixprov.{option.replace('*', 'default')} = {value};{BESIDE.get(option, '')}",
        }
        for option, value in OWN.items()
    },
}


def pairwise(factors: Mapping[str, Mapping[str, str]]) -> list[dict[str, str]]:
    """Rows that cover every pair of settings: each starts from a pair that is left and takes what covers most of the rest."""
    missing = {
        frozenset(((a, x), (b, y)))
        for a, b in itertools.combinations(factors, 2)
        for x, y in itertools.product(factors[a], factors[b])
    }
    rows: list[dict[str, str]] = []
    while missing:
        row = dict(min(missing, key=sorted))
        for name in factors:
            if name not in row:
                row[name] = max(factors[name], key=lambda setting: len(pairs({**row, name: setting}) & missing))
        missing -= pairs(row)
        rows.append(row)
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
    for path in code_files(DEFAULT.host_side):
        file = resources.templates().joinpath(path)
        lab.run(HOST, ["tee", f"{DIR}/{file.name}"], stdin=file.read_text())
    # The machine's own Nix has some, and the old ones of the table more.
    accepted = [one.id for one in advisories.known()]
    settings = {
        "revision": "r",
        "gitlabUrl": "https://gitlab.example",
        "runners": {"default": RUNNER},
        "acceptedAdvisories": accepted,
    }
    lab.run(HOST, ["tee", f"{DIR}/settings.nix"], stdin=to_nix(settings))
    return DIR


OLD = "absent = import <nixpkgs/nixos/lib/absent-in-20.09.nix>;"


def evaluate(lab: Lab, module: str, *own: str, release: str = "") -> dict[str, Any]:
    """What comes of the module beside others, each of which sets something of the host's own: the .drv of the whole system, the failed assertions, the units of ours and the module's options by their path."""
    modules = "".join(f"      ({{ lib, pkgs, ... }}: {{ {text} }})\n" for text in own)
    expression = f"""
let
  system = import <nixpkgs/nixos> {{
    {release}
    configuration = {{
      imports = [
      {module}/default.nix
{modules}      ];
      fileSystems."/" = {{ device = "none"; fsType = "overlay"; }};
      boot.loader.grub.device = "nodev";
      system.stateVersion = "25.11";
    }};
  }};
  paths = prefix: options: builtins.concatLists (builtins.attrValues (builtins.mapAttrs (name: option:
    if builtins.substring 0 1 name == "_" || option.internal or false then [ ]
    else if option._type or "" != "option" then paths "${{prefix}}${{name}}." option
    else [ "${{prefix}}${{name}}" ] ++ paths "${{prefix}}${{name}}.*." (option.type.getSubOptions [ ])) options));
in {{
  options = paths "" system.options.services.nixprov;
  toplevel = system.config.system.build.toplevel.drvPath;
  warnings = system.config.warnings;
  failed = map (a: a.message) (builtins.filter (a: !a.assertion) system.config.assertions);
  units = builtins.filter (n: builtins.substring 0 7 n == "nixprov") (builtins.attrNames system.config.systemd.units);
  proxies = builtins.mapAttrs (_: s: s.environment.https_proxy or null) system.config.systemd.services;
  triggers = map toString (system.config.systemd.services.nixprov-nix-daemon.restartTriggers or [ ]);
}}
"""
    lab.run(HOST, ["tee", f"{DIR}/eval.nix"], stdin=expression)
    command = f". /etc/set-environment; nix-instantiate --eval --strict --json --read-write-mode {DIR}/eval.nix"
    done = lab.run(HOST, ["bash", "-c", command], check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_the_table_has_every_option(lab: Lab, module: str) -> None:
    assert set(evaluate(lab, module)["options"]) == OWN.keys() | ALWAYS


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"row{ROWS.index(row)}")
def test_it_evaluates_to_a_system(lab: Lab, module: str, row: dict[str, str]) -> None:
    answer = evaluate(lab, module, *(FACTORS[name][setting] for name, setting in row.items()))
    assert answer["toplevel"].endswith(".drv")
    assert answer["failed"] == []
    runners = {"none": 0, "one": 1, "two": 2}[row["runners"]]
    assert sum(unit.startswith("nixprov-runner-") for unit in answer["units"]) == runners
    assert undeclared(answer["units"]) == []


def undeclared(units: Sequence[str]) -> list[str]:
    """Units that steps/module.py does not declare, so that no probe asks for them."""
    return [unit for unit in units if not any(fnmatch(unit, known.name) for known in UNITS)]


def package(name: str, version: str) -> str:
    return f'(pkgs.{name} // {{ name = "{name}-{version}"; version = "{version}"; }})'


# What the host's configuration may say on a release without `nix.settings` and the rest.
OLD_FACTORS: Mapping[str, Mapping[str, str]] = {
    **{name: HOST_FACTORS[name] for name in ("runners", "proxy", "certificates")},
    "podman": {"absent": "", "on": "virtualisation.podman.enable = true;"},
    "nix": {
        "default": "",
        "old names": 'nix.maxJobs = 4; nix.trustedUsers = [ "root" "@wheel" ]; nix.useSandbox = true;',
    },
    "systemd": {"246": f"systemd.package = {package('systemd', '246')};", "257": ""},
    "version": {"2.4": f"nix.package = {package('nix', '2.4')};", "2.26": ""},
}
OLD_ROWS = pairwise(OLD_FACTORS)


@pytest.mark.parametrize("row", OLD_ROWS, ids=lambda row: f"row{OLD_ROWS.index(row)}")
def test_it_evaluates_where_options_are_missing(lab: Lab, module: str, row: dict[str, str]) -> None:
    answer = evaluate(lab, module, *(OLD_FACTORS[name][setting] for name, setting in row.items()), release=OLD)
    assert answer["toplevel"].endswith(".drv")
    assert answer["failed"] == []
    assert undeclared(answer["units"]) == []
    assert ("nixprov-nix-daemon.service" in answer["units"]) is (row["version"] == "2.26")


@pytest.mark.parametrize(
    "own", ["nix.settings.cores = 1;", "systemd = lib.mkIf false { settings.Manager = { }; };"], ids=["plain", "mkIf"]
)
def test_the_old_release_has_no_new_option(lab: Lab, module: str, own: str) -> None:
    with pytest.raises(AssertionError, match="does not exist"):
        evaluate(lab, module, own, release=OLD)
    assert evaluate(lab, module, own)["failed"] == []


def old_nix(version: str) -> str:
    return f"nix.package = {package('nix', version)};"


def test_a_nix_without_an_untrusting_daemon_is_asked_as_an_unprivileged_user(lab: Lab, module: str) -> None:
    answer = evaluate(lab, module, old_nix("2.13.6"))
    assert answer["failed"] == []
    assert "nixprov-nix-filter.service" in answer["units"]
    assert not any(unit.startswith("nixprov-nix-daemon") for unit in answer["units"])
    assert any("older than 2.18" in warning for warning in answer["warnings"])


@pytest.mark.parametrize(
    "own",
    [
        old_nix("2.3.16"),
        old_nix("2.13.6") + 'nix.settings.trusted-users = [ "*" ];',
        old_nix("2.13.6") + "nix.settings.require-sigs = false;",
    ],
)
def test_a_nix_that_would_take_jobs_for_root_is_refused(lab: Lab, module: str, own: str) -> None:
    with pytest.raises(AssertionError, match="root of this host"):
        evaluate(lab, module, own)


def test_a_nix_with_a_way_to_root_that_nobody_accepted_is_refused(lab: Lab, module: str) -> None:
    with pytest.raises(AssertionError, match=r"nix 2\.26\.3.* lets jobs become root of this host: CVE-2025-46415, .*"):
        evaluate(lab, module, "services.nixprov.acceptedAdvisories = lib.mkForce [ ];")


def test_unsigned_paths_are_the_hosts_own_affair_where_the_daemon_is_ours(lab: Lab, module: str) -> None:
    assert evaluate(lab, module, "nix.settings.require-sigs = false;")["failed"] == []


def test_a_proxy_of_the_hosts_is_for_what_goes_out(lab: Lab, module: str) -> None:
    proxies = evaluate(lab, module, HOST_FACTORS["proxy"]["some"])["proxies"]
    for unit in ("nixprov-runner-default", "nixprov-podman"):
        assert proxies[unit] == "http://proxy.example:3128"


def test_another_nix_conf_restarts_the_daemon_of_jobs(lab: Lab, module: str) -> None:
    before, after = (
        evaluate(lab, module, own)["triggers"] for own in ("", 'nix.settings.substituters = [ "file:///a" ];')
    )
    assert before
    assert before != after


def test_a_podman_that_cannot_do_what_jobs_need_is_refused(lab: Lab, module: str) -> None:
    old = f"virtualisation.podman.package = {package('podman', '4.5.1')};"
    with pytest.raises(AssertionError, match=r"podman 4\.5\.1 is older than 4\.6"):
        evaluate(lab, module, old)
    assert evaluate(lab, module, old, 'services.nixprov.engine = "docker";' + DOCKER)["failed"] == []


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ('services.nixprov.runners.default.id = lib.mkForce "seven";', "is not of type"),
        ("services.nixprov.runners.default.colour = 1;", "does not exist"),
        ("services.nixprov.limits.tasks = -1;", "is not of type"),
        ('services.nixprov.runners.default.capAdd = [ "SYS_ADMIN" ];', "is not of type"),
    ],
)
def test_a_mistake_stops_at_evaluation(lab: Lab, module: str, own: str, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        evaluate(lab, module, own)


@pytest.mark.parametrize("own", ["", 'services.nixprov.trust = "plain";'], ids=["ours", "plain"])
def test_a_host_without_nix_is_refused_with_one_line(lab: Lab, module: str, own: str) -> None:
    with pytest.raises(AssertionError, match=r"nix\.enable is false: this host has no Nix daemon"):
        evaluate(lab, module, "nix.enable = false;", own)


# tests/nixpkgs-eval and what it needs, in a folder of its own; once as it is, once with a module that is broken.
SCRIPT = f"""
set -e
. /etc/set-environment
mkdir -p {DIR}/tree/templates/core {DIR}/tree/templates/gitlab {DIR}/tree/tests
cd {DIR}
cp *.nix *.py *.toml tree/templates/core/
mv tree/templates/core/runner.nix tree/templates/core/toml.nix tree/templates/gitlab/
cat > tree/tests/nixpkgs-eval
export NIXPROV_NIXPKGS=/nix/var/nix/profiles/per-user/root/channels/nixos
sh tree/tests/nixpkgs-eval
echo "{{" >> tree/templates/core/network.nix
sh tree/tests/nixpkgs-eval || echo "ended with $?"
"""


def test_the_script_for_real_trees_evaluates_one(lab: Lab, module: str) -> None:
    script = Path(__file__).parents[1] / "nixpkgs-eval"
    said = lab.run(HOST, ["bash", "-c", SCRIPT], stdin=script.read_text()).stdout
    good, _, bad = said.partition("FAILED")
    assert len(re.findall(r"^ok +25\.11 .*nixos-system-.*\.drv$", good, re.MULTILINE)) == script.read_text().count(
        "  evaluate "
    )
    assert "network.nix" in bad
    assert said.endswith("ended with 1\n")
    assert "ok " not in bad


def test_code_and_templates_are_the_same_files() -> None:
    folder = Path(str(resources.templates()))
    there = {path.relative_to(folder).as_posix() for path in folder.glob("*/*") if path.is_file()}
    assert {path for path in there if path.startswith(("core/", "gitlab/"))} == set(code_files(DEFAULT.host_side))
