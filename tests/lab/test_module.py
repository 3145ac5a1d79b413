"""What jobs get from the module, on a real machine: tools at once, one build for all, a cache that stays, limits that hold."""

from __future__ import annotations

import dataclasses
import re
import secrets
import shlex
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nixprov_lab.gitlab_client import Job
from nixprov_lab.running import Lab

from tests.lab.operator import USUAL, Operator, Pause, succeeds

HOST = "host1"
WAIT_S = 60
# What gitlab-runner puts before each line: the time and the stream.
PREFIX = re.compile(r"^\d{4}-\S+Z [0-9a-f]{2}[OE][+ ]", re.MULTILINE)

# A user's image: a shell and applets, a program of its own, no Nix.
USER_IMAGE = r"""
set -e
engine=$(systemctl cat nixprov-podman.service | sed -n 's/^ExecStart=\(.*\) system service.*/\1/p')
busybox=$(ls -d /nix/store/*-busybox-*/bin/busybox | head -n 1)
tree=$(mktemp -d)
mkdir -p $tree/bin $tree/usr/bin $tree/etc $tree/tmp $tree/root
cp "$busybox" $tree/bin/busybox
for applet in sh cat ls mkdir rm chmod touch hostname find grep sed; do ln -s busybox $tree/bin/$applet; done
printf '#!/bin/sh\necho the images own curl\n' > $tree/usr/bin/curl
chmod +x $tree/usr/bin/curl
tar -C $tree -c . | $engine import --quiet - localhost/user-image:1 > /dev/null
rm -rf $tree
"""


@pytest.fixture(scope="module")
def operator(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    home = tmp_path_factory.mktemp("operator")
    inventory = home / "inventory"
    inventory.write_text(lab.files.inventory.read_text() + "nixprov_concurrent=4\n")
    operator = Operator(lab, home)
    said = operator("up", HOST, "--yes", "--json", NIXPROV_INVENTORY=str(inventory))
    assert said.code == 0, said.err
    try:
        yield operator
    finally:
        assert operator("down", HOST, "--yes", "--json").code == 0


@pytest.fixture
def run(lab: Lab, operator: Operator) -> Callable[..., Job]:
    def run(script: str, **fields: object) -> Job:
        job = succeeds(lab, HOST, script, **fields)
        return dataclasses.replace(job, trace=PREFIX.sub("", job.trace))

    return run


@pytest.fixture
def stamp() -> str:
    return secrets.token_hex(6)


def build(stamp: str, work: str = ":") -> str:
    """A script that builds something new; `work` is the builder's, which has coreutils in $PATH."""
    return f"""
cat > job.nix <<'NIX'
derivation {{
  name = "job-{stamp}";
  system = builtins.currentSystem;
  builder = "/bin/sh";
  PATH = "${{builtins.storePath (builtins.getEnv "COREUTILS")}}/bin";
  args = [ "-c" "echo built-here {stamp}; {work}; echo {stamp} > $out" ];
}}
NIX
export COREUTILS=$(ls -d /nix/store/*-coreutils-[0-9]*/bin/cat | head -n 1 | cut -d/ -f1-4)
echo "path $(nix-build --no-out-link job.nix)"
"""


def path_in(trace: str) -> str:
    found = re.search(r"path (/nix/store/\S+)", trace)
    assert found, trace
    return found[1]


def poll(lab: Lab, what: str, command: str) -> None:
    """Wait until a shell command on the host ends with 0."""
    deadline = time.monotonic() + WAIT_S
    while lab.run(HOST, ["sh", "-c", command], check=False).returncode:
        assert time.monotonic() < deadline, f"not within {WAIT_S} s: {what}"
        time.sleep(0.2)


def test_a_job_has_its_tools_at_its_first_line_and_pulls_nothing(run: Callable[..., Job]) -> None:
    trace = run(
        "nix --version; git --version; ssh -V; curl --version > /dev/null; tar --version > /dev/null\n"
        'echo "home $HOME user $(whoami)"; id -un\n'
        'for file in "$NIX_SSL_CERT_FILE" "$GIT_SSL_CAINFO" "$SSL_CERT_FILE" /etc/ssl/certs/ca-certificates.crt; do\n'
        '  grep -c "BEGIN CERTIFICATE" "$file" > /dev/null && echo "bundle"; done\n'
        "git init --quiet repo && chown -R 1000:1000 repo && git -C repo status --short && echo not dubious\n"
        "touch /tmp/a /root/b /etc/passwd && echo writable\n"
    ).trace
    assert "nix (Nix)" in trace
    assert "home /root user root" in trace
    assert len(re.findall(r"^bundle$", trace, re.MULTILINE)) == 4
    assert "not dubious" in trace
    assert re.search(r"^writable$", trace, re.MULTILINE)
    assert "Pulling" not in trace


def test_a_flake_builds(run: Callable[..., Job], stamp: str) -> None:
    trace = run(f"""
cat > flake.nix <<'NIX'
{{
  outputs = _: {{
    packages.x86_64-linux.default = derivation {{
      name = "flake-{stamp}";
      system = "x86_64-linux";
      builder = "/bin/sh";
      args = [ "-c" "echo {stamp} > $out" ];
    }};
    packages.aarch64-linux.default = derivation {{
      name = "flake-{stamp}";
      system = "aarch64-linux";
      builder = "/bin/sh";
      args = [ "-c" "echo {stamp} > $out" ];
    }};
  }};
}}
NIX
nix build path:$PWD
echo "flake says $(cat result)"
""").trace
    assert f"flake says {stamp}" in trace


def test_cold_all_is_built_and_warm_only_what_is_new(run: Callable[..., Job], stamp: str) -> None:
    """Three that need each other; then the same again; then one more on top."""
    chain = f"""
cat > chain.nix <<'NIX'
let
  step = n: derivation {{
    name = "chain-{stamp}-${{toString n}}";
    system = builtins.currentSystem;
    builder = "/bin/sh";
    args = [ "-c" "echo built-here ${{toString n}}; echo ${{if n == 1 then "" else step (n - 1)}} > $out" ];
  }};
in step
NIX
for steps in 3 3 4; do
  nix-build --no-out-link -E "import ./chain.nix $steps" 2>&1 | tee log
  echo "steps $steps built $(grep -c '^built-here' log)"
done
"""
    counts = re.findall(r"^steps (\d) built (\d)", run(chain).trace, re.MULTILINE)
    assert counts == [("3", "3"), ("3", "0"), ("4", "1")]


# As gitlab-runner would start it, but without any network.
OFFLINE = r"""
set -e
engine=$(systemctl cat nixprov-podman.service | sed -n 's/^ExecStart=\(.*\) system service.*/\1/p')
image=$($engine images --format '{{.Repository}}:{{.Tag}}' --filter label=nixprov.image=job | head -n 1)
$engine run --rm --interactive --network none --env NIX_REMOTE=daemon \
  --volume /nix/store:/nix/store:ro --volume /run/nixprov/jobs/nix:/nix/var/nix/daemon-socket:ro "$image" /bin/bash -e
"""


def test_a_container_without_a_network_builds(lab: Lab, operator: Operator, stamp: str) -> None:
    script = "cd /root\nawk 'NR > 2 { print \"interface\", $1 }' /proc/net/dev\n" + build(stamp)
    said = lab.run(HOST, ["bash", "-c", OFFLINE], stdin=script)
    assert re.findall(r"^interface (\S+)", said.stdout, re.MULTILINE) == ["lo:"]
    assert lab.run(HOST, ["cat", path_in(said.stdout)]).stdout == f"{stamp}\n"


def test_a_users_image_gets_nix_behind_its_own_programs(lab: Lab, run: Callable[..., Job], stamp: str) -> None:
    lab.run(HOST, ["bash", "-c", USER_IMAGE])
    trace = run(
        f"curl; command -v nix-build\n{build(stamp)}",
        image="localhost/user-image:1",
    ).trace
    assert "the images own curl" in trace
    assert path_in(trace).endswith(f"job-{stamp}")


def test_a_fixed_output_build_reaches_the_network(lab: Lab, run: Callable[..., Job], stamp: str) -> None:
    content = lab.run(HOST, ["sh", "-c", f"curl -sS {lab.state.gitlab_url}/no-such-page | sha256sum | cut -d' ' -f1"])
    sha256 = content.stdout.strip()
    trace = run(f"""
cat > fetch.nix <<'NIX'
derivation {{
  name = "fetch-{stamp}";
  system = builtins.currentSystem;
  builder = "${{builtins.storePath (builtins.getEnv "CURL")}}/bin/curl";
  args = [ "-sS" "{lab.state.gitlab_url}/no-such-page" "-o" (placeholder "out") ];
  outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = "{sha256}";
}}
NIX
export CURL=$(readlink -f /bin/curl | cut -d/ -f1-4)
echo "path $(nix-build --no-out-link fetch.nix)"
""").trace
    assert path_in(trace).endswith(f"fetch-{stamp}")


def test_two_jobs_that_want_the_same_make_it_once(lab: Lab, operator: Operator, stamp: str) -> None:
    script = build(stamp, "sleep 5")
    ids = [lab.gitlab.queue_job(script, host=HOST) for _ in range(2)]
    jobs = [lab.gitlab.wait_for_job(job_id) for job_id in ids]
    assert all(job.is_success for job in jobs)
    assert sum(f"built-here {stamp}" in job.trace for job in jobs) == 1
    assert len({path_in(job.trace) for job in jobs}) == 1


def test_the_builds_of_a_job_that_is_cancelled_end(lab: Lab, operator: Operator, stamp: str) -> None:
    job_id = lab.gitlab.queue_job(build(stamp, "sleep 301"), host=HOST)
    poll(lab, "the builder runs", "pgrep -f '[s]leep 301'")
    lab.gitlab.cancel_job(job_id)
    poll(lab, "the builder is gone", "! pgrep -f '[s]leep 301'")


def test_the_hosts_collector_takes_nothing_from_jobs(lab: Lab, operator: Operator, stamp: str) -> None:
    building, built = Pause(lab, HOST, 306), Pause(lab, HOST, 307)
    script = build(stamp, building.shell) + f"{built.shell}\ncat $(nix-build --no-out-link job.nix); echo still-there"
    job_id = lab.gitlab.queue_job(script, host=HOST)
    for pause in (building, built):
        pause.begun()
        lab.run(HOST, ["nix-collect-garbage"])
        pause.end()
    job = lab.gitlab.wait_for_job(job_id)
    assert job.is_success, job.trace
    assert job.trace.count(f"built-here {stamp}") == 1
    lab.run(HOST, ["nix-collect-garbage"])
    assert lab.run(HOST, ["cat", path_in(job.trace)]).stdout == f"{stamp}\n"


def test_what_was_not_built_lately_is_let_go(lab: Lab, run: Callable[..., Job], stamp: str) -> None:
    path = path_in(run(build(stamp)).trace)
    root = f"/nix/var/nix/gcroots/nixprov/{Path(path).name}"
    lab.run(HOST, ["systemctl", "start", "nixprov-collect.service"])
    assert lab.run(HOST, ["readlink", root]).stdout.strip() == path
    lab.run(HOST, ["touch", "-h", "-d", "15 days ago", root])
    lab.run(HOST, ["systemctl", "start", "nixprov-collect.service"])
    assert lab.run(HOST, ["test", "-e", root], check=False).returncode == 1
    lab.run(HOST, ["nix-store", "--delete", path])


# The timer's program with a threshold that no disk meets.
COLLECT = r"""
set -e
program=$(systemctl cat nixprov-collect.service | sed -n 's/^ExecStart=//p')
sed 's/-lt [0-9]*/-lt 101/' "$program" > /run/nixprov/collect
exec bash /run/nixprov/collect
"""


def test_a_short_disk_gives_up_what_is_held_but_only_between_jobs(
    lab: Lab, run: Callable[..., Job], stamp: str
) -> None:
    path = path_in(run(build(stamp)).trace)
    job_id = lab.gitlab.queue_job("sleep 303", host=HOST)
    poll(lab, "the job runs", "pgrep -f '[s]leep 303'")
    assert "jobs are running" in lab.run(HOST, ["bash", "-c", COLLECT]).stdout
    assert lab.run(HOST, ["cat", path]).stdout == f"{stamp}\n"
    lab.gitlab.cancel_job(job_id)
    poll(lab, "the job is gone", "! pgrep -f '[s]leep 303'")
    poll(lab, "the collector had its turn", f"bash -c {shlex.quote(COLLECT)} && ! [ -e {path} ]")


def test_both_daemons_may_restart_under_a_build(lab: Lab, operator: Operator, stamp: str) -> None:
    pause = Pause(lab, HOST, 308)
    job_id = lab.gitlab.queue_job(build(stamp, pause.shell), host=HOST)
    pause.begun()
    lab.run(HOST, ["systemctl", "restart", "nixprov-nix-filter.service", "nixprov-nix-daemon.service"])
    pause.end()
    job = lab.gitlab.wait_for_job(job_id)
    assert job.is_success, job.trace
    succeeds(lab, HOST, build(secrets.token_hex(6)))


# A kernel as in many containers, for the daemon alone, where the host's owner has said that builds may then go without a
# sandbox.
NO_NAMESPACES = """
set -e
folder=/run/systemd/system/nixprov-nix-daemon.service.d
mkdir -p $folder
{ cat /etc/nix/nix.conf; echo 'sandbox-fallback = true'; } > /run/careless.conf
printf '[Service]\nRestrictNamespaces=~pid\nBindReadOnlyPaths=/run/careless.conf:/etc/nix/nix.conf\n' > $folder/test.conf
systemctl daemon-reload
systemctl restart nixprov-nix-daemon.service
"""
NAMESPACES = """
set -e
rm -r /run/systemd/system/nixprov-nix-daemon.service.d /run/careless.conf
systemctl daemon-reload
systemctl restart nixprov-nix-daemon.service
"""


def test_without_namespaces_nothing_is_built_rather_than_without_a_sandbox(
    lab: Lab, operator: Operator, stamp: str
) -> None:
    lab.run(HOST, ["sh", "-c", NO_NAMESPACES])
    try:
        job = lab.gitlab.wait_for_job(lab.gitlab.queue_job(build(stamp, "ls -d /etc/nixos"), host=HOST))
    finally:
        lab.run(HOST, ["sh", "-c", NAMESPACES])
    assert "required for sandboxing" in job.trace
    assert "path /nix/store/" not in job.trace


@pytest.fixture(scope="module")
def several(lab: Lab, operator: Operator) -> None:
    """Three runners on one host, the second with an image of the user's, the third with limits."""
    lab.run(HOST, ["bash", "-c", USER_IMAGE])
    inventory = operator.home / "several"
    small = {
        "name": "small",
        "tags": ["small"],
        "run_untagged": False,
        "concurrent": 1,
        "image": "localhost/user-image:1",
        "no_new_privileges": False,
        "cap_add": ["NET_RAW"],
    }
    limited = {"name": "limited", "tags": ["limited"], "run_untagged": False, "memory": "256m", "cpus": "1.5"}
    runners = repr([{"name": "default", "tags": ["nix"]}, small, limited]).replace(" ", "")
    text = lab.files.inventory.read_text()
    inventory.write_text(re.sub(rf"^({HOST} .*)$", rf'\1 nixprov_runners="{runners}"', text, flags=re.MULTILINE))
    said = operator("up", HOST, "--yes", "--json", NIXPROV_INVENTORY=str(inventory))
    assert said.code == 0, said.err


def config_of(lab: Lab, runner: str) -> str:
    return lab.run(HOST, ["cat", f"/var/lib/nixprov-runner/{runner}/config.toml"]).stdout


@pytest.mark.parametrize("runner", ["default", "small"])
def test_gitlab_runner_has_nothing_to_say_against_its_configuration(lab: Lab, several: None, runner: str) -> None:
    log = lab.run(HOST, ["journalctl", "--output=cat", f"--unit=nixprov-runner-{runner}.service"]).stdout
    assert "Configuration loaded" in log
    assert "CONFIGURATION" not in log


def test_a_runner_of_2020_can_read_its_configuration(lab: Lab, several: None) -> None:
    docker = tomllib.loads(config_of(lab, "limited"))["runners"][0]["docker"]
    # What is a list in these is what gitlab-runner 13.2 has as a list too, or does not know and passes over.
    lists = {key for key, value in docker.items() if isinstance(value, list)}
    known = {"volumes", "allowed_images", "allowed_services", "allowed_pull_policies"}
    assert lists <= known | {"cap_drop", "cap_add", "security_opt", "services_security_opt"}


def test_several_runners_differ_in_tags_image_and_limits(lab: Lab, several: None) -> None:
    config = config_of(lab, "small")
    assert "concurrent = 1\n" in config
    assert 'image = "localhost/user-image:1"' in config
    tokens = [re.findall('token = "(.*)"', config_of(lab, name))[0] for name in ("small", "default", "limited")]
    assert len(set(tokens)) == len(tokens)
    job = lab.gitlab.wait_for_job(lab.gitlab.queue_job("curl", tags=["small"]))
    assert "the images own curl" in job.trace


def test_limits_hold_for_a_jobs_services_too(lab: Lab, several: None) -> None:
    config = config_of(lab, "limited")
    for key in ("memory", "memory_swap", "service_memory", "service_memory_swap"):
        assert f'\n{key} = "256m"\n' in config
    for key in ("cpus", "service_cpus"):
        assert f'\n{key} = "1.5"\n' in config


# What every process of a container has, and what is said of the container.
STATUS = "sed -n 's/^\\(CapBnd\\|CapEff\\|NoNewPrivs\\):[[:space:]]*/\\1 /p' /proc/self/status"
NET_RAW = 1 << 13


def test_a_container_has_the_usual_capabilities_and_gains_none(run: Callable[..., Job]) -> None:
    said = dict(line.split() for line in run(STATUS).trace.splitlines() if line.startswith(("Cap", "NoNew")))
    assert {name: int(value, 16) for name, value in said.items()} == {"CapEff": USUAL, "CapBnd": USUAL, "NoNewPrivs": 1}


def test_an_image_that_needs_more_gets_it(lab: Lab, several: None) -> None:
    """The second of the runners alone has asked for it."""
    job = lab.gitlab.wait_for_job(lab.gitlab.queue_job(STATUS, tags=["small"]))
    said = dict(line.split() for line in PREFIX.sub("", job.trace).splitlines() if line.startswith(("Cap", "NoNew")))
    assert {name: int(value, 16) for name, value in said.items()} == {
        "CapEff": USUAL | NET_RAW,
        "CapBnd": USUAL | NET_RAW,
        "NoNewPrivs": 0,
    }
    config = config_of(lab, "default")
    assert 'cap_drop = ["AUDIT_WRITE", "MKNOD", "NET_RAW"]\n' in config
    assert '\nservices_security_opt = ["no-new-privileges"]\n' in config
    assert "cap_add" not in config


# By whoever it is on the host; the socket's folder is mounted into containers, the one above is closed.
ASK = r"""
set -e
. /etc/set-environment
cd /
setpriv --reuid=@UID@ --regid=@UID@ --clear-groups env HOME=/tmp NIX_REMOTE=unix:///run/nixprov/jobs/nix/socket \
  nix --extra-experimental-features nix-command store info 2>&1
"""


def test_the_hosts_users_do_not_reach_the_jobs_socket(lab: Lab, operator: Operator) -> None:
    for uid in ("65534", "1000"):
        said = lab.run(HOST, ["bash", "-c", ASK.replace("@UID@", uid)], check=False)
        assert said.returncode
        assert "Permission denied" in said.stdout
    assert re.search(r"Trusted: +0", lab.run(HOST, ["bash", "-c", ASK.replace("@UID@", "0")]).stdout)
    ways = lab.run(HOST, ["stat", "--format=%a %U %n", "/run/nixprov/jobs", "/run/nixprov/jobs/nix"]).stdout
    assert ways == "700 root /run/nixprov/jobs\n755 root /run/nixprov/jobs/nix\n"


# The image of links, for another user than root.
OF_1000 = r"""
engine=$(systemctl cat nixprov-podman.service | sed -n 's/^ExecStart=\(.*\) system service.*/\1/p')
$engine commit --quiet --change 'USER 1000' --change 'LABEL nixprov.image=of-1000' nixprov-network localhost/of-1000:1
"""


def test_a_job_reaches_it_whatever_its_number(lab: Lab, run: Callable[..., Job], stamp: str) -> None:
    lab.run(HOST, ["bash", "-c", OF_1000])
    trace = run(f"export HOME=/tmp\ncd /tmp\nid -u\n{build(stamp)}", image="localhost/of-1000:1").trace
    assert re.search(r"^1000$", trace, re.MULTILINE)
    assert path_in(trace).endswith(f"job-{stamp}")


WRITABLE = r"""
engine=$(systemctl cat nixprov-podman.service | sed -n 's/^ExecStart=\(.*\) system service.*/\1/p')
$engine ps --quiet --filter label=nixprov-runner=@RUNNER@ | xargs -r $engine inspect \
  --format '{{range .Mounts}}{{.RW}} {{.Source}}{{"\n"}}{{end}}{{.GraphDriver.Data.UpperDir}}'
"""


def test_jobs_of_two_runners_share_nothing_writable(lab: Lab, several: None) -> None:
    ids = {
        name: lab.gitlab.queue_job(f"sleep {seconds}", host=HOST, tags=[tag])
        for name, tag, seconds in (("default", "nix", 304), ("small", "small", 305))
    }
    poll(lab, "both jobs run", "pgrep -f '[s]leep 304' && pgrep -f '[s]leep 305'")
    mounts = {
        name: lab.run(HOST, ["bash", "-c", WRITABLE.replace("@RUNNER@", name)]).stdout.splitlines() for name in ids
    }
    for job_id in ids.values():
        lab.gitlab.cancel_job(job_id)
    poll(lab, "both jobs are gone", "! pgrep -f '[s]leep 30[45]'")
    shared = set(mounts["default"]) & set(mounts["small"])
    assert shared - {""} == {"false /nix/store", "false /run/nixprov/jobs/nix"}
    for lines in mounts.values():
        assert any(line.startswith("true ") for line in lines), lines
