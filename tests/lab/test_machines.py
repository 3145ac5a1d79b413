"""The lab's machines: that they are real, apart from each other, and gone without a trace."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from nixprov_lab import control, registry
from nixprov_lab.errors import LabError
from nixprov_lab.running import BOOT_S, Lab, answers, wait_until

Traces = Callable[[str], list[str]]
NIXPROV_LAB = [sys.executable, "-c", "from nixprov_lab.cli import lab; lab(prog_name='nixprov lab')"]
CLAIM_S = 600  # time for the tree, should it have to be built again
BUSYBOX = "/usr/bin/busybox"
# Debian's own podman, for the host's NixOS has none yet; a static binary is an image, so no registry is asked.
CONTAINER = """
set -e
export HOME=/tmp/lab-test
mkdir -p $HOME/.config/containers $HOME/image/bin
echo '{"default": [{"type": "insecureAcceptAnything"}]}' >$HOME/.config/containers/policy.json
cp /usr/bin/busybox $HOME/image/bin/sh
tar -C $HOME/image -c . | /usr/bin/podman import -q - lab-test
/usr/bin/podman run --rm --network=none lab-test /bin/sh -c 'echo "in $0"' container
/usr/bin/podman rmi -f lab-test
rm -r $HOME
"""


def run_cli(*words: str, lab: Lab | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NIXPROV_LAB": lab.id} if lab else dict(os.environ)
    return subprocess.run([*NIXPROV_LAB, *words], env=environment, capture_output=True, text=True, check=False)


def soon(condition: Callable[[], bool], failure: str, within_s: float = 20) -> None:
    wait_until(condition, time.monotonic() + within_s, failure)


def output(lab: Lab, host: str, *argv: str) -> str:
    return lab.run(host, argv).stdout.strip()


@pytest.mark.parametrize("host", ["host1", "host2"])
def test_a_host_is_a_machine_of_its_own(lab: Lab, host: str) -> None:
    assert output(lab, host, "hostname") == host
    assert output(lab, host, "cat", "/proc/1/comm") == "systemd"
    assert output(lab, host, "systemctl", "is-system-running") == "running", lab.failed_units(host)
    assert lab.run(host, ["test", "-e", "/usr/bin/python3"], check=False).returncode == 1
    output(lab, host, "/opt/lab/bin/python3", "-c", "import json, ssl, http.client, subprocess, tomllib")


def test_hosts_are_told_apart_by_machine_id_and_host_key(lab: Lab) -> None:
    ids = {output(lab, host.name, "cat", "/etc/machine-id") for host in lab.state.hosts}
    keys = {line.split()[2] for line in lab.files.known_hosts.read_text().splitlines()}
    assert len(ids) == len(keys) == len(lab.state.hosts)


def test_a_hosts_units_are_not_anothers(lab: Lab) -> None:
    lab.run("host1", ["systemd-run", "--unit=only-here", "--property=KillMode=control-group", "sleep", "1000"])
    lab.run("host2", ["systemd-run", "--unit=only-here", "sleep", "1000"])
    lab.run("host1", ["systemctl", "kill", "--signal=KILL", "only-here"])
    lab.run("host1", ["systemctl", "reset-failed"])
    assert output(lab, "host2", "systemctl", "is-active", "only-here") == "active"
    lab.run("host2", ["systemctl", "stop", "only-here"])


def test_hosts_reach_gitlab_and_each_other_and_nothing_else(lab: Lab) -> None:
    assert output(lab, "host1", BUSYBOX, "nc", lab.state.gateway, "8080") == ""
    lab.run("host1", [BUSYBOX, "ping", "-c1", "-W2", lab.state.hosts[1].address])
    assert "default" not in output(lab, "host1", "ip", "route")


def test_containers_run_on_a_host(lab: Lab) -> None:
    assert output(lab, "host1", "stat", "-f", "-c", "%T", "/var") != "overlayfs"
    assert "in container" in output(lab, "host1", "sh", "-c", CONTAINER)


@pytest.mark.parametrize("how", ["from outside", "from inside"])
def test_a_host_comes_back_from_a_reboot_with_its_disk(lab: Lab, how: str) -> None:
    def boot() -> str:
        return lab.run("host1", ["cat", "/proc/sys/kernel/random/boot_id"], check=False).stdout.strip()

    lab.run("host1", ["sh", "-c", "echo kept | tee /root/kept >/var/lib/kept"])
    machine_id, first = output(lab, "host1", "cat", "/etc/machine-id"), boot()
    if how == "from outside":
        lab.reboot("host1")
    else:
        lab.run("host1", ["systemctl", "reboot"], check=False)
    soon(lambda: boot() not in ("", first), "host1 does not come back", within_s=BOOT_S)
    lab.wait_until_up("host1")
    assert output(lab, "host1", "cat", "/etc/machine-id") == machine_id
    assert output(lab, "host1", "cat", "/root/kept", "/var/lib/kept") == "kept\nkept"
    lab.run("host1", ["rm", "/root/kept", "/var/lib/kept"])


def test_a_host_can_be_unplugged_and_started_again(lab: Lab) -> None:
    address = lab.state.hosts[1].address
    lab.stop_host("host2", hard=True)
    assert [host["power"] for host in lab.status()["hosts"]] == ["on", "off"]
    assert not answers(address, 22)
    lab.start_host("host2")
    assert answers(address, 22)


def test_a_hosts_network_can_be_cut(lab: Lab) -> None:
    address = lab.state.hosts[1].address
    lab.cut_network("host2")
    try:
        assert not answers(address, 22)
        assert answers(lab.state.hosts[0].address, 22)
    finally:
        lab.restore_network("host2")
    soon(lambda: answers(address, 22), "host2 stays without network")


def test_an_unknown_host_is_named(lab: Lab) -> None:
    with pytest.raises(LabError, match="no host host7; its hosts: host1, host2"):
        lab.ssh_argv("host7")


def test_cli_status_prints_json(lab: Lab) -> None:
    lines = run_cli("status", "--json", lab=lab).stdout.splitlines()
    mine = next(found for line in lines if (found := json.loads(line))["id"] == lab.id)
    assert mine["gitlab"] == "up"
    assert [host["ssh"] for host in mine["hosts"]] == [True, True]


def test_cli_ssh_passes_output_and_status_on(lab: Lab) -> None:
    done = run_cli("ssh", "host2", "hostname;", "exit", "7", lab=lab)
    assert (done.stdout, done.returncode) == ("host2\n", 7)


def test_cli_job_without_wait_queues(lab: Lab, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("echo hello\n")
    job = json.loads(run_cli("job", "--script", str(script), "--json", lab=lab).stdout)
    lab.gitlab.cancel_job(job["id"])  # or the runner of a later test takes it
    assert (job["status"], job["seconds"]) == ("pending", None)


def test_cli_job_waits_and_fails_with_the_job(lab: Lab) -> None:
    argv = [*NIXPROV_LAB, "job", "--script", "-", "--wait", "--json"]
    before = {job["id"] for job in lab.gitlab.jobs()}
    with subprocess.Popen(
        argv, env={**os.environ, "NIXPROV_LAB": lab.id}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as waiting:
        assert waiting.stdin is not None
        assert waiting.stdout is not None
        waiting.stdin.write("echo never run\n")
        waiting.stdin.close()
        soon(lambda: len(lab.gitlab.jobs()) > len(before), "the job is not queued")
        assert waiting.poll() is None
        (queued,) = [job["id"] for job in lab.gitlab.jobs() if job["id"] not in before]
        lab.gitlab.cancel_job(queued)
        told = json.loads(waiting.stdout.read())
    assert (told["id"], told["status"], waiting.returncode) == (queued, "canceled", 1)


def test_two_labs_do_not_meet(lab: Lab, small_lab: Lab) -> None:
    assert lab.state.subnet != small_lab.state.subnet
    assert output(small_lab, "host1", "hostname") == output(lab, "host1", "hostname") == "host1"
    assert output(small_lab, "host1", "cat", "/etc/machine-id") != output(lab, "host1", "cat", "/etc/machine-id")
    there = lab.state.hosts[0].address
    assert small_lab.run("host1", [BUSYBOX, "ping", "-c1", "-W1", there], check=False).returncode != 0


def test_stop_leaves_nothing(small_lab: Lab, traces: Traces) -> None:
    kinds = {trace.split()[0] for trace in traces(small_lab.id)}
    assert kinds == {"interface", "file", "cgroup", "cmdline", "mountinfo"}, "the search for traces finds nothing"
    assert run_cli("stop").returncode == 0
    assert traces(small_lab.id) == []
    assert "no lab is running" in run_cli("stop").stderr


def test_a_killed_supervisor_takes_the_lab_with_it(small_lab: Lab, traces: Traces) -> None:
    os.kill(small_lab.supervisor_pids[0], signal.SIGKILL)
    soon(
        lambda: not small_lab.is_alive and not running(traces(small_lab.id)),
        "processes or mounts outlive the supervisor",
    )
    assert control.stop_all() == [small_lab.id]
    assert traces(small_lab.id) == []


def test_the_next_start_sweeps_a_dead_lab(small_lab: Lab, traces: Traces) -> None:
    for pid in small_lab.supervisor_pids:
        with suppress(ProcessLookupError):  # each one's end is the end of the others
            os.kill(pid, signal.SIGKILL)
    soon(lambda: not small_lab.is_alive, "the lab outlives its supervisor")
    control.start(1).stop()
    assert traces(small_lab.id) == []


@pytest.mark.parametrize("moment", ["claimed", "starting"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_start_leaves_nothing(
    lab: Lab, own_registry: Path, traces: Traces, number: signal.Signals, moment: str
) -> None:
    with subprocess.Popen([*NIXPROV_LAB, "start", "--hosts", "1"], stderr=subprocess.PIPE, text=True) as starter:
        wait_until(
            lambda: bool(registry.entries()),
            time.monotonic() + CLAIM_S,
            "no lab is claimed",
            lambda: "" if starter.poll() is None else f"the start ended with {starter.returncode}",
        )
        lab_id = registry.entries()[0].id
        if moment == "starting":
            assert starter.stderr is not None
            # Before it, that another start has the tree's lock at this moment.
            assert any("host1: starting" in line for line in starter.stderr)
        starter.send_signal(number)
    if number == signal.SIGKILL:
        control.stop_all()
    soon(lambda: traces(lab_id) == [], f"left: {traces(lab_id)}", within_s=30)


def running(found: list[str]) -> list[str]:
    return [trace for trace in found if trace.startswith(("cmdline", "mountinfo"))]
