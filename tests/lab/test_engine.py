"""The module's own podman beside the user's, on a real machine."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from ipaddress import ip_network

import pytest
from nixprov_lab.running import Lab

from tests.lab.operator import Operator, installed, leftovers, poll, succeeds

HOST = "host1"


@pytest.fixture(scope="module", autouse=True)
def _installed(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    operator = Operator(lab, tmp_path_factory.mktemp("operator"))
    with installed(operator, HOST):
        yield
    # Of an engine that was killed as its last container went.
    lab.run(HOST, ["ip", "link", "add", "nixprov0", "type", "bridge"])
    assert operator("down", HOST, "--yes", "--json").code == 0
    assert leftovers(lab, HOST) == ""


# The user's own podman, which is what ours is without its options, and a container that answers on its default network.
PODMAN = r"""
set -e
podman() { $(systemctl cat nixprov-podman.service | sed -n 's/^ExecStart=\([^ ]*\) .*/\1/p') "$@"; }
"""
THEIRS = r"""
tree=$(mktemp -d)
mkdir $tree/bin
cp "$(ls -d /nix/store/*-busybox-*/bin/busybox | head -n 1)" $tree/bin/busybox
echo theirs-$stamp > $tree/answer
tar -C $tree -c . | podman import --quiet - localhost/theirs:1 > /dev/null
rm -rf $tree
podman run --detach --name theirs localhost/theirs:1 /bin/busybox httpd -f -p 80 -h / > /dev/null
podman inspect --format '{{.NetworkSettings.IPAddress}}' theirs
"""


def test_jobs_and_the_users_containers_are_apart(lab: Lab) -> None:
    stamp = secrets.token_hex(6)

    def theirs(script: str, check: bool = True) -> str:
        return lab.run(HOST, ["bash", "-c", f"stamp={stamp}\n{PODMAN}{script}"], check=check).stdout.strip()

    address = theirs(THEIRS)
    try:
        poll(
            lab,
            HOST,
            "it answers the host",
            f"curl --silent --max-time 5 http://{address}/answer | grep -q theirs-{stamp}",
        )
        # Of two lines, so that the trace does not show the second one before it is run.
        job = succeeds(
            lab, HOST, f"set +e\ncurl --silent --show-error --max-time 5 http://{address}/answer; echo status $?"
        )
        theirs("podman rm --force --time 0 theirs; rm /run/libpod/alive")
        succeeds(lab, HOST, "echo as the first one after a boot")
        # The file by which the user's podman sees whether it has looked after its containers.
        assert lab.run(HOST, ["test", "-e", "/run/libpod/alive"], check=False).returncode == 1
    finally:
        theirs("podman rm --force --time 0 theirs; podman rmi localhost/theirs:1", check=False)
    assert f"theirs-{stamp}" not in job.trace
    # 7: could not connect, 28: not within the time (curl(1)).
    assert re.search(r"status (7|28)$", job.trace, re.MULTILINE), job.trace


def test_addresses_of_a_users_network_in_which_nothing_runs_stay_theirs(lab: Lab) -> None:
    """Neither podman knows the other's networks, and one without a container shows nowhere: here ours."""
    network = "podman network create --disable-dns theirs > /dev/null\npodman network inspect theirs"
    lab.run(HOST, ["systemctl", "stop", "nixprov-network.service"])
    try:
        theirs = lab.run(HOST, ["bash", "-c", f"{PODMAN}{network}\npodman network rm theirs > /dev/null"]).stdout
    finally:
        lab.run(HOST, ["systemctl", "start", "nixprov-network.service"])
    ours = lab.run(HOST, ["cat", "/var/lib/nixprov-containers/networks/nixprov-jobs.json"]).stdout
    user, jobs = (ip_network(one["subnets"][0]["subnet"]) for one in (json.loads(theirs)[0], json.loads(ours)))
    assert not user.overlaps(jobs)


def test_with_another_image_comes_the_engine_of_the_new_system(lab: Lab) -> None:
    engine = ["systemctl", "show", "--property=MainPID", "nixprov-podman.service"]
    before = lab.run(HOST, engine).stdout
    lab.run(HOST, ["systemctl", "restart", "nixprov-image.service"])
    assert lab.run(HOST, engine).stdout not in (before, "MainPID=0\n")
    poll(lab, HOST, "the runner is back", "systemctl is-active nixprov-runner-default.service")
    succeeds(lab, HOST, "echo works")
