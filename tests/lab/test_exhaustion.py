"""A job that takes all there is: processes, memory, the store's disk. It ends; the host and the next job do not notice.

Of the limits of nixprov.slice, see tests/lab/slice.py for what is not seen on a computer with cgroups v1; weights of
processor and disk (CPUWeight, IOWeight) are only carried by the unit and never put to the test. The attacks are
bounded, so that a limit that does not hold fails the test and not the computer.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from nixprov_lab.running import Lab

from tests.lab.operator import Operator, Pause, leftovers, poll, succeeds
from tests.lab.slice import Enforced, enforced, enforced_container, limits

HOST = "host1"
TASKS = 300
MEMORY = 400 << 20
# More of each than the slice has, and little enough for any computer.
PROCESSES = 2000
EATEN = 1 << 30
DISK = 48 << 20
CONTAINER_TASKS = 200


@pytest.fixture(scope="module")
def operator(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    operator = Operator(lab, tmp_path_factory.mktemp("operator"))
    inventory = operator.home / "inventory"
    inventory.write_text(f"{lab.files.inventory.read_text()}nixprov_limits_tasks_per_container={CONTAINER_TASKS}\n")
    said = operator("up", HOST, "--yes", "--json", NIXPROV_INVENTORY=str(inventory))
    assert said.code == 0, said.err
    try:
        yield operator
    finally:
        said = operator("down", HOST, "--yes", "--json", "--force")
    assert said.code == 0, said.err
    assert leftovers(lab, HOST) == ""


@pytest.fixture
def held(lab: Lab, operator: Operator) -> Iterator[Enforced]:
    """The slice with limits that a test can reach."""
    tighter = [f"TasksMax={TASKS}", f"MemoryMax={MEMORY}"]
    lab.run(HOST, ["systemctl", "set-property", "--runtime", "nixprov.slice", *tighter])
    try:
        with enforced(lab, HOST) as held:
            yield held
    finally:
        lab.run(HOST, ["sh", "-c", "rm -r /run/systemd/system.control/nixprov.slice.d; systemctl daemon-reload"])


@pytest.fixture
def stamp() -> str:
    return secrets.token_hex(6)


def build(stamp: str, work: str = ":", name: str = "job") -> str:
    """A job's script; `work` is the builder's, a shell with coreutils in $PATH that writes $out."""
    return f"""
export COREUTILS=$(ls -d /nix/store/*-coreutils-[0-9]*/bin/cat | head -n 1 | cut -d/ -f1-4)
cat > job.nix <<'NIX'
derivation {{
  name = "{name}-{stamp}";
  system = builtins.currentSystem;
  builder = "/bin/sh";
  PATH = "${{builtins.storePath (builtins.getEnv "COREUTILS")}}/bin";
  args = [ "-c" ''{work}; echo {stamp} > $out'' ];
}}
NIX
path=$(nix-build --no-out-link job.nix)
echo "path $path"
"""


def works(lab: Lab, stamp: str) -> None:
    """The host answers, its own daemon builds; and so does another job."""
    on_host(lab)
    succeeds(lab, HOST, build(stamp, name="next"))


def on_host(lab: Lab) -> None:
    build = f"""
. /etc/set-environment
export NIX_REMOTE=daemon
nix-build --no-out-link -E 'derivation {{ name = "host"; system = builtins.currentSystem; builder = "/bin/sh";
  args = [ "-c" "echo {secrets.token_hex(6)} > $out" ]; }}'
"""
    assert "/nix/store/" in lab.run(HOST, ["bash", "-c", build], timeout_s=60).stdout


UNITS = ("nixprov-nix-daemon.service", "nixprov-nix-filter.service", "nixprov-runner-default.service")


def starts(lab: Lab) -> str:
    """How often each unit was started, and whether it runs."""
    return lab.run(HOST, ["systemctl", "show", "--property=ActiveState,NRestarts,MainPID", *UNITS]).stdout


def test_the_slice_carries_what_was_wanted_and_all_of_ours_is_in_it(lab: Lab, operator: Operator) -> None:
    told = limits(lab, HOST)
    memory = re.search(r"^MemTotal: +(\d+)", lab.run(HOST, ["cat", "/proc/meminfo"]).stdout, re.MULTILINE)
    assert memory
    assert told.tasks == 16384
    assert told.memory == pytest.approx(0.9 * (int(memory[1]) << 10), rel=0.01)
    shown = lab.run(HOST, ["systemctl", "show", "--property=CPUWeight,IOWeight", "nixprov.slice"]).stdout
    assert set(shown.split()) == {"CPUWeight=50", "IOWeight=50"}
    units = lab.run(HOST, ["systemctl", "show", "--property=Slice", *UNITS]).stdout.split()
    assert units == ["Slice=nixprov.slice"] * len(UNITS)


def test_a_build_that_forks_without_end_is_held(lab: Lab, held: Enforced, stamp: str) -> None:
    before = starts(lab)
    # The shell gives up when it may not fork; what it has made stays, and so the limit is reached as long as it lives.
    bomb = f"(n=0; while [ $n -lt {PROCESSES} ]; do sleep 501 & n=$((n + 1)); done); exec sleep 502"
    job_id = lab.gitlab.queue_job(build(stamp, bomb), host=HOST)
    try:
        poll(lab, HOST, "the builder has forked all it can", "pgrep -f '^sleep 502'")
        assert held.was_stopped_at_its_tasks()
        assert TASKS // 2 < held.tasks() <= TASKS
        on_host(lab)
    finally:
        lab.gitlab.cancel_job(job_id)
    poll(lab, HOST, "all of them have ended", "! pgrep -f '[s]leep 50[12]'")
    works(lab, stamp)
    assert starts(lab) == before


# Twice what is allowed, in a container; what it made ends with it.
FORKS = f"""
python=$(ls -d /nix/store/*-python3-*/bin/python3 | head -n 1)
"$python" - <<'PY'
import os, signal
made = []
try:
    for _ in range({2 * CONTAINER_TASKS}):
        child = os.fork()
        if not child:
            signal.pause()
        made.append(child)
except BlockingIOError:
    print("stopped at", len(made))
for child in made:
    os.kill(child, signal.SIGKILL)
PY
"""


def test_a_job_that_forks_without_end_is_held_in_its_container(lab: Lab, operator: Operator, stamp: str) -> None:
    pause = Pause(lab, HOST, 511)
    job_id = lab.gitlab.queue_job(f"{pause.shell}\n{FORKS}", host=HOST)
    pause.begun()
    with enforced_container(lab, HOST) as held:
        assert held.limit == CONTAINER_TASKS
        pause.end()
        job = lab.gitlab.wait_for_job(job_id)
        assert held.was_stopped()
    found = re.search(r"stopped at (\d+)", job.trace)
    assert found, job.trace
    assert CONTAINER_TASKS // 2 < int(found[1]) < CONTAINER_TASKS
    works(lab, stamp)


def test_a_build_that_eats_memory_ends_alone(lab: Lab, held: Enforced, stamp: str) -> None:
    before, kills = starts(lab), held.oom_kills()
    # tail keeps a line until it ends.
    job = lab.gitlab.wait_for_job(
        lab.gitlab.queue_job(build(stamp, f"head -c {EATEN} /dev/zero | tail > /dev/null || exit 9"), host=HOST)
    )
    assert job.status == "failed", job.trace
    assert "failed with exit code 9" in job.trace
    assert held.oom_kills() > kills
    works(lab, stamp)
    assert starts(lab) == before


SMALL = f"""
set -e
mkdir -p /run/small-store
mount -t tmpfs -o size={DISK} tmpfs /run/small-store
mkdir /run/small-store/upper /run/small-store/work
mount -t overlay overlay -o lowerdir=/nix/store,upperdir=/run/small-store/upper,workdir=/run/small-store/work /nix/store
"""
# What was built meanwhile is gone with the disk, and the database has to learn it.
AS_BEFORE = """
umount --lazy /nix/store
umount --lazy /run/small-store
rmdir /run/small-store
. /etc/set-environment
nix-store --verify
find /nix/var/nix/gcroots/nixprov -xtype l -delete
"""
DAEMONS = ["nixprov-nix-daemon.service", "nix-daemon.service"]


@contextmanager
def small_store(lab: Lab) -> Iterator[None]:
    """The store on a disk of DISK bytes, with all that is in it below: what is written has to fit."""
    lab.run(HOST, ["bash", "-c", SMALL])
    try:
        # They look at the disk's size when they start.
        lab.run(HOST, ["systemctl", "restart", *DAEMONS])
        yield
    finally:
        lab.run(HOST, ["bash", "-c", AS_BEFORE], check=False)
        lab.run(HOST, ["systemctl", "restart", *DAEMONS])


def free(lab: Lab) -> int:
    return int(lab.run(HOST, ["stat", "--file-system", "--format", "%a", "/nix/store"]).stdout) * 4096


def test_a_full_store_ends_the_build_that_filled_it_and_nothing_is_lost(
    lab: Lab, operator: Operator, stamp: str
) -> None:
    kept = succeeds(lab, HOST, build(stamp))
    path = re.findall(r"path (/nix/store/\S+)", kept.trace)[-1]
    with small_store(lab):
        before = free(lab)
        # A build that goes on all the while, and ends after the disk was full.
        pause = Pause(lab, HOST, 509)
        slow = lab.gitlab.queue_job(build(stamp, pause.shell, name="slow"), host=HOST)
        pause.begun()
        full = lab.gitlab.wait_for_job(
            lab.gitlab.queue_job(build(stamp, "cat /dev/zero > $out || exit 8", name="full"), host=HOST)
        )
        assert full.status == "failed", full.trace
        assert "No space left on device" in full.trace
        pause.end()
        ended = lab.gitlab.wait_for_job(slow)
        assert ended.is_success, ended.trace
        # What it had made lies there until somebody needs the room: the slow build did, or the next job does.
        succeeds(lab, HOST, build(stamp, "sleep 2", name="after"))
        assert before - free(lab) < DISK // 10
        on_host(lab)
        again = lab.gitlab.wait_for_job(lab.gitlab.queue_job(build(stamp), host=HOST))
        assert path in again.trace
        assert "will be built" not in again.trace
        assert lab.run(HOST, ["nix-store", "--query", "--hash", path]).returncode == 0
        assert lab.run(HOST, ["nix-store", "--verify-path", path]).returncode == 0


# What a user's `result` holds, wherever it is.
HELD = r"""
set -e
for folder in /root /home /var/tmp; do
  mkdir $folder/held-$stamp
  echo "$folder $stamp" > $folder/held-$stamp/source
  path=$(nix-store --add $folder/held-$stamp/source)
  nix-store --realise $path --add-root $folder/held-$stamp/result > /dev/null
  echo $path
done
"""


def test_a_store_that_runs_short_is_collected_while_a_job_builds(lab: Lab, operator: Operator, stamp: str) -> None:
    """minFreePercent, which is a number of bytes to Nix: below it a build collects what nothing holds."""
    # Nix stops at a number of bytes. Garbage of other tests counts, and lies below the small disk, where nothing gets free.
    lab.run(HOST, ["nix-collect-garbage"])
    with small_store(lab):
        size = free(lab) - DISK // 100 * 3
        garbage = lab.run(
            HOST,
            [
                "sh",
                "-c",
                f"head -c {size} /dev/zero > /root/garbage-{stamp}; nix-store --add /root/garbage-{stamp}; rm /root/garbage-{stamp}",
            ],
        ).stdout.strip()
        assert free(lab) < DISK // 100 * 5
        held = lab.run(HOST, ["bash", "-c", f"stamp={stamp}\n{HELD}"]).stdout.split()
        pause = Pause(lab, HOST, 510)
        job_id = lab.gitlab.queue_job(build(stamp, pause.shell), host=HOST)
        pause.begun()
        poll(lab, HOST, "it is collected", f"! [ -e {garbage} ]")
        pause.end()
        job = lab.gitlab.wait_for_job(job_id)
        assert job.is_success, job.trace
        assert free(lab) > DISK // 100 * 9
        try:
            assert lab.run(HOST, ["ls", "-d", *held], check=False).stdout.split() == sorted(held)
        finally:
            lab.run(HOST, ["sh", "-c", f"rm -r /root/held-{stamp} /home/held-{stamp} /var/tmp/held-{stamp}"])
