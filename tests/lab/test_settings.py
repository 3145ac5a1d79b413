"""What the inventory says arrives on the machine, under what the host's own configuration says plainly; and whom Nix trusts.

The tests of this file are one story and run in its order: each `up` goes on from the last.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from nixprov_lab.running import Lab

from tests.lab.operator import Operator, Pause, Said, leftovers, poll, snapshot

HOST = "host1"
STOP = {"default": "1min 17s", "small": "1min 18s"}

SETTINGS = """
nixprov_runners=[{'name': 'default'}, {'name': 'small', 'tags': 'small', 'memory': '300m', 'cpus': 1.5, 'stop_timeout': 78}]
nixprov_allowed_images=['localhost/*']
nixprov_stop_timeout=77
nixprov_limits_memory_percent=50
nixprov_limits_cpu_weight=60
nixprov_limits_io_weight=70
nixprov_limits_tasks=5000
nixprov_limits_builds_per_client=3
nixprov_cache_keep_days=2
nixprov_share_socket=true
"""

# The host's own wishes, one of each strength, in a file that says nothing where our module is not.
OWN = """\
{ lib, ... }:
lib.optionalAttrs (builtins.pathExists ./nixprov/default.nix) {
  services.nixprov.limits = {
    cpuWeight = lib.mkDefault 10;
    ioWeight = 71;
    tasks = lib.mkForce 6000;
  };
}
"""
INCLUDE = r"""
set -e
tee /etc/nixos/ci.nix > /dev/null
sed -i 's#^\( *\)./hardware-configuration.nix#&\n\1./ci.nix#' /etc/nixos/configuration.nix
grep -q ci.nix /etc/nixos/configuration.nix
"""

# A host whose Nix is older than it is, for whoever asks: /run/wrappers/bin is where root's shell looks first.
OLD_NIX = r"""
set -e
mkdir -p /run/wrappers/bin
printf '#!/bin/sh\necho "nix (Nix) 2.3.16"\n' > /run/wrappers/bin/nix
chmod +x /run/wrappers/bin/nix
"""


@pytest.fixture(scope="module")
def operator(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    operator = Operator(lab, tmp_path_factory.mktemp("operator"))
    before = lab.run(HOST, ["cat", "/etc/nixos/configuration.nix"]).stdout
    lab.run(HOST, ["bash", "-c", INCLUDE], stdin=OWN)
    try:
        yield operator
    finally:
        assert operator("down", HOST, "--yes", "--json").code == 0
        lab.run(HOST, ["rm", "-f", "/etc/nixos/ci.nix", "/run/wrappers/bin/nix"])
        lab.run(HOST, ["tee", "/etc/nixos/configuration.nix"], stdin=before)
        assert leftovers(lab, HOST) == ""


def say(operator: Operator, verb: str, settings: str, *options: str) -> Said:
    """Run a verb with an inventory of more variables for all hosts."""
    inventory = operator.home / "inventory"
    inventory.write_text(f"{operator.lab.files.inventory.read_text()}{settings}\n")
    return operator(verb, HOST, *options, NIXPROV_INVENTORY=str(inventory))


def shown(lab: Lab, unit: str, *properties: str) -> dict[str, str]:
    asked = lab.run(HOST, ["systemctl", "show", unit, *(f"--property={name}" for name in properties)]).stdout
    return dict(line.split("=", 1) for line in asked.splitlines())


# Of somebody on the host, at the jobs' socket.
ASK = r"""
. /etc/set-environment
setpriv --reuid=65534 --regid=65534 --clear-groups env HOME=/tmp NIX_REMOTE=unix:///run/nixprov/jobs/nix/socket \
  nix --extra-experimental-features nix-command store info 2>&1
"""


def nobody_asks(lab: Lab) -> str:
    return lab.run(HOST, ["bash", "-c", f"cd /{ASK}"], check=False).stdout


def test_a_unit_that_jobs_need_and_that_does_not_start_stops_up(lab: Lab, operator: Operator) -> None:
    """Its runner polls all the same, and each of its jobs would fail."""
    broken = 'systemd.services.nixprov-network.serviceConfig.ExecStartPre = "/run/current-system/sw/bin/false";\n}\n'
    lab.run(HOST, ["tee", "/etc/nixos/ci.nix"], stdin=OWN.removesuffix("}\n") + broken)
    said = say(operator, "up", "", "--yes", "--json")
    lab.run(HOST, ["tee", "/etc/nixos/ci.nix"], stdin=OWN)
    assert said.host(HOST)["outcome"] == "rolled back", said.err
    assert "nixprov-network.service" in said.host(HOST)["error"]


def test_what_the_inventory_says_arrives(lab: Lab, operator: Operator) -> None:
    said = say(operator, "up", SETTINGS, "--yes", "--json")
    assert said.code == 0, said.err
    config = {name: lab.run(HOST, ["cat", f"/var/lib/nixprov-runner/{name}/config.toml"]).stdout for name in STOP}
    for line in ('memory = "300m"', 'memory_swap = "300m"', 'cpus = "1.5"'):
        assert [f"{line}\n" in config[name] for name in STOP] == [False, True]
    for name, limit in STOP.items():
        assert 'allowed_images = ["localhost/*"]\n' in config[name]
        assert shown(lab, f"nixprov-runner-{name}.service", "TimeoutStopUSec") == {"TimeoutStopUSec": limit}
    memory = int(lab.run(HOST, ["sed", "-n", r"s/^MemTotal: *\([0-9]*\) kB/\1/p", "/proc/meminfo"]).stdout)
    slice_ = shown(lab, "nixprov.slice", "MemoryMax", "CPUWeight", "IOWeight", "TasksMax")
    assert int(slice_.pop("MemoryMax")) == pytest.approx(memory * 1024 / 2, rel=0.01)
    # Over a mkDefault, under what is said plainly and under a mkForce.
    assert slice_ == {"CPUWeight": "60", "IOWeight": "71", "TasksMax": "6000"}
    log = "".join(event["text"] for event in said.events if event["event"] == "log")
    assert "the inventory's limits.tasks (5000) does not count: the host's own configuration says 6000" in log
    assert "limits.ioWeight (70) does not count" in log
    assert "limits.cpuWeight" not in log
    start = shown(lab, "nixprov-nix-filter.service", "ExecStart")["ExecStart"]
    program = re.search(r"path=(\S+)", start)
    assert program
    assert "jobs=3\n" in lab.run(HOST, ["cat", program[1]]).stdout
    assert re.search(r"Trusted: +0", nobody_asks(lab))


def test_what_is_overruled_is_no_drift(operator: Operator) -> None:
    said = say(operator, "up", SETTINGS, "--yes", "--json")
    assert (said.code, said.summary["unchanged"], said.summary["remote_commands"]) == (0, 1, 1)


def test_a_host_whose_jobs_would_be_root_is_refused_before_anything_is_built(lab: Lab, operator: Operator) -> None:
    lab.run(HOST, ["bash", "-c", OLD_NIX])
    before, journal = snapshot(lab, HOST), lab.run(HOST, ["cat", "/var/lib/nixprov/journal.json"]).stdout
    for verb, options in (("plan", ()), ("up", ("--yes",))):
        said = say(operator, verb, "nixprov_concurrent=3", *options, "--json")
        assert said.code == 5
        host = said.host(HOST)
        assert host["error"].startswith("nix 2.3.16 is older than 2.4")
        assert "nixprov_trust: plain" in host["hint"]
        assert host["remote_commands"] == 1
        assert said.summary["gitlab_writes"] == 0
    assert snapshot(lab, HOST) == before
    assert lab.run(HOST, ["cat", "/var/lib/nixprov/journal.json"]).stdout == journal


def test_plain_trust_is_had_and_said_wherever_one_looks(lab: Lab, operator: Operator) -> None:
    said = say(operator, "up", "nixprov_trust=plain", "--yes", "--json")
    assert said.code == 0, said.err
    trusts = [
        "jobs have the host's own Nix daemon, and root in a job's container is root of the host (nixprov_trust: plain)"
    ]
    assert said.warnings() == trusts
    job = lab.gitlab.wait_for_job(lab.gitlab.queue_job("nix store info --json; nix store info 2>&1", host=HOST))
    assert job.is_success, job.trace
    assert re.search(r"Trusted: 1", job.trace), job.trace
    units = lab.run(HOST, ["systemctl", "list-units", "--plain", "--no-legend", "nixprov-n*"]).stdout
    assert units == ""
    for verb, options in (("up", ["--yes"]), ("status", [])):
        again = say(operator, verb, "nixprov_trust=plain", "--json", *options)
        assert (again.code, again.warnings(), again.summary["remote_commands"]) == (0, trusts, 1)
    assert trusts[0] in say(operator, "plan", "nixprov_trust=plain").err


def test_a_colleague_without_that_word_sees_it_too_and_takes_it_back(lab: Lab, operator: Operator) -> None:
    lab.run(HOST, ["rm", "-f", "/run/wrappers/bin/nix"])
    told = say(operator, "status", "", "--json")
    assert ["not what the inventory says" in text for text in told.warnings()] == [True]
    said = say(operator, "up", "", "--yes", "--json")
    assert said.code == 0, said.err
    assert say(operator, "status", "", "--json").warnings() == []
    job = lab.gitlab.wait_for_job(lab.gitlab.queue_job("nix store info 2>&1", host=HOST))
    assert re.search(r"Trusted: 0", job.trace), job.trace


def test_a_socket_that_was_shared_is_closed_again_and_jobs_go_on(lab: Lab, operator: Operator) -> None:
    """Each wish is a socket of its own; the old one is there until the jobs that have it are done."""
    for settings, answer in (("nixprov_share_socket=true", r"Trusted: +0"), ("", "Permission denied")):
        pause = Pause(lab, HOST, 512)
        job_id = lab.gitlab.queue_job(f"{pause.shell}\nnix store info 2>&1", host=HOST)
        pause.begun()
        with ThreadPoolExecutor() as threads:
            switched = threads.submit(say, operator, "up", settings, "--yes", "--json")
            poll(
                lab,
                HOST,
                "the switch waits for the job",
                "systemctl is-active nixprov-runner-default | grep -x deactivating",
            )
            pause.end()
            said = switched.result()
        assert said.code == 0, said.err
        job = lab.gitlab.wait_for_job(job_id)
        assert re.search(r"Trusted: 0", job.trace), job.trace
        assert re.search(answer, nobody_asks(lab))
        job = lab.gitlab.wait_for_job(lab.gitlab.queue_job("nix store info 2>&1", host=HOST))
        assert re.search(r"Trusted: 0", job.trace), job.trace
