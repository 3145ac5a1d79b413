"""Jobs in the host's own Docker: as in our podman, and when it is over the user's things are all that is there.

The tests of this file are one story and run in its order.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterator

import pytest
from nixprov_lab.running import Lab

from tests.lab.operator import USUAL, Operator, Said, leftovers, nix_job, snapshot, succeeds

HOST = "host2"
WAIT_S = 60

ENABLE = r"""
set -e
sed -i 's#^  system.stateVersion = .*#  virtualisation.docker.enable = true;\n&#' /etc/nixos/configuration.nix
nixos-rebuild switch
"""
# Docker gone, its bridges and its filter stay until a reboot, and would stand in the way of other tests' podman.
DISABLE = r"""
docker rm --force mine
docker network rm mine
nixos-rebuild switch
rm -rf /var/lib/docker
/usr/sbin/ip link delete docker0
for table in filter nat; do /usr/sbin/iptables --table $table --flush; /usr/sbin/iptables --table $table --delete-chain; done
/usr/sbin/iptables --policy FORWARD ACCEPT
"""
# A container, an image, a network and a volume of the user's, told from ours by nothing but their labels' values.
MINE = r"""
set -e
tree=$(mktemp -d)
cp "$(ls -d /nix/store/*-busybox-*/bin/busybox | head -n 1)" $tree/busybox
tar -C $tree -c . | docker import - mine:1
rm -rf $tree
managed='com.gitlab.gitlab-runner.managed=true com.gitlab.gitlab-runner.runner.id=g'
docker network create mine
docker volume create $(printf -- '--label %s ' $managed) mine
docker run --detach --name mine --network mine --volume mine:/mine $(printf -- '--label %s ' $managed) \
  mine:1 /busybox sleep 100000
"""
LOOK = r"""
docker ps --all --format 'container {{.Names}}' | sort
docker images --format 'image {{.Repository}}:{{.Tag}}' | sort
docker volume ls --format 'volume {{.Name}}' | sort
docker network ls --format 'network {{.Name}}' | sort
"""


@pytest.fixture(scope="module")
def operator(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    before = lab.run(HOST, ["cat", "/etc/nixos/configuration.nix"]).stdout
    try:
        yield Operator(lab, tmp_path_factory.mktemp("operator"))
    finally:
        lab.run(HOST, ["tee", "/etc/nixos/configuration.nix"], stdin=before)
        lab.run(HOST, ["bash", "-lc", DISABLE])


def say(operator: Operator, verb: str, *options: str) -> Said:
    inventory = operator.home / "inventory"
    inventory.write_text(f"{operator.lab.files.inventory.read_text()}nixprov_engine=docker\n")
    return operator(verb, HOST, "--json", *options, NIXPROV_INVENTORY=str(inventory))


# What says `SSH-2.0` where the host can be reached.
SSHD = "curl -sS -m 5 --http0.9 http://127.0.0.1:22"


def look(lab: Lab) -> list[str]:
    return lab.run(HOST, ["bash", "-lc", LOOK]).stdout.splitlines()


def fetch(lab: Lab) -> str:
    """A script that downloads by a fixed-output build, which tries the host's own sshd before."""
    page = f"{lab.state.gitlab_url}/no-such-page"
    sha256 = lab.run(HOST, ["sh", "-c", f"curl -sS {page} | sha256sum | cut -d' ' -f1"]).stdout.strip()
    return f"""
cat > fetch.nix <<'NIX'
derivation {{
  name = "fetch-{secrets.token_hex(6)}";
  system = builtins.currentSystem;
  builder = "/bin/sh";
  PATH = "${{builtins.storePath (builtins.getEnv "CURL")}}/bin";
  args = [ "-c" "{SSHD}; curl -sS -m 20 {page} -o $out" ];
  outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = "{sha256}";
}}
NIX
export CURL=$(readlink -f /bin/curl | cut -d/ -f1-4)
echo "path $(nix-build --no-out-link fetch.nix || echo failed)"
"""


def test_a_host_without_docker_is_refused_before_anything_is_written(lab: Lab, operator: Operator) -> None:
    before = snapshot(lab, HOST)
    said = say(operator, "up", "--yes")
    assert said.code == 5
    assert said.host(HOST)["error"] == "nixprov_engine is docker, and it has none"
    assert "virtualisation.docker.enable" in said.host(HOST)["hint"]
    assert said.summary["gitlab_writes"] == 0
    assert snapshot(lab, HOST) == before


def test_jobs_run_in_the_hosts_docker(lab: Lab, operator: Operator) -> None:
    lab.run(HOST, ["bash", "-lc", ENABLE])
    lab.run(HOST, ["bash", "-lc", MINE])
    unsaid = operator("plan", HOST, "--json").events
    assert any("nixprov_engine is docker" in event["text"] for event in unsaid if event["event"] == "warning")
    said = say(operator, "up", "--yes")
    assert said.code == 0, said.err
    assert said.warnings() == []
    stamp = secrets.token_hex(6)
    assert f"built-here {stamp}" in succeeds(lab, HOST, nix_job(stamp)).trace
    again = succeeds(lab, HOST, nix_job(stamp) + "nix store info 2>&1; cat /etc/hostname\n").trace
    assert f"built-here {stamp}" not in again
    assert re.search(r"Trusted: 0", again), again
    assert "container nixprov-network" in look(lab)
    # The engine's labels tell whose container it is, the kernel which container.
    poll(lab, "the build is in the book", """grep -q '"built": *1' /var/lib/nixprov-counters/jobs.json""")
    assert lab.run(HOST, ["systemctl", "list-units", "--plain", "--no-legend", "nixprov-podman*"]).stdout == ""


def test_a_container_has_podmans_capabilities_not_dockers(lab: Lab) -> None:
    trace = succeeds(lab, HOST, "grep -E '^(CapBnd|NoNewPrivs):' /proc/self/status").trace
    said = {name: int(value, 16) for name, value in re.findall(r"(CapBnd|NoNewPrivs):\s+(\w+)", trace)}
    assert said == {"CapBnd": USUAL, "NoNewPrivs": 1}


# The image of links, for another user than root.
OF_1000 = (
    "docker commit --change 'USER 1000' --change 'LABEL nixprov.image=of-1000' nixprov-network localhost/of-1000:1"
)


def test_a_job_of_another_number_reaches_nix(lab: Lab) -> None:
    lab.run(HOST, ["bash", "-lc", OF_1000])
    image = "localhost/of-1000:1"
    queued = lab.gitlab.queue_job("id -u; export HOME=$(mktemp -d); nix store info 2>&1", host=HOST, image=image)
    trace = lab.gitlab.wait_for_job(queued).trace
    lab.run(HOST, ["bash", "-lc", f"docker image rm {image}"])
    assert re.search(r"^(\S+ \w+ )?1000$", trace, re.MULTILINE), trace
    assert re.search(r"Trusted: +0", trace), trace


def test_a_fixed_output_build_has_a_network_without_the_host_in_it(lab: Lab) -> None:
    assert "SSH-2.0" in lab.run(HOST, ["bash", "-lc", SSHD], check=False).stdout
    trace = succeeds(lab, HOST, fetch(lab)).trace
    assert "path /nix/store/" in trace
    assert "Failed to connect to 127.0.0.1 port 22" in trace
    assert "SSH-2.0" not in trace


def test_what_a_killed_runner_leaves_is_taken_away(lab: Lab) -> None:
    job_id = lab.gitlab.queue_job("sleep 305", host=HOST)
    poll(lab, "the job runs", "pgrep -f '[s]leep 305'")
    assert any(line.startswith("volume runner-") for line in look(lab))
    lab.run(HOST, ["systemctl", "kill", "--signal=KILL", "nixprov-runner-default.service"])
    poll(lab, "no container of the job", "! docker ps --all --format '{{.Names}}' | grep '^runner-'")
    poll(lab, "no volume of the job", "! docker volume ls --quiet | grep '^runner-'")
    lab.gitlab.cancel_job(job_id)
    assert {"container mine", "image mine:1", "volume mine", "network mine"} <= set(look(lab))


def test_a_restarted_docker_gives_builds_another_network(lab: Lab) -> None:
    lab.run(HOST, ["systemctl", "restart", "docker.service"])
    poll(lab, "the network is there", "systemctl is-active nixprov-docker-network.service")
    assert "path /nix/store/" in succeeds(lab, HOST, fetch(lab)).trace


def test_down_leaves_what_is_the_users(lab: Lab, operator: Operator) -> None:
    # GitLab waits for the killed runner to say that the job is cancelled; we do not.
    said = say(operator, "down", "--yes", "--force")
    assert said.code == 0, said.err
    mine = ["container mine", "image mine:1", "volume mine"]
    networks = [f"network {name}" for name in ("bridge", "host", "mine", "none")]
    assert look(lab) == [*mine, *networks]
    assert leftovers(lab, HOST) == ""


def poll(lab: Lab, what: str, command: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while lab.run(HOST, ["bash", "-lc", command], check=False).returncode:
        assert time.monotonic() < deadline, f"not within {WAIT_S} s: {what}"
        time.sleep(0.3)
