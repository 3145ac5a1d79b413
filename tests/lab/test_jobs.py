"""What stays of jobs on a machine: their numbers, for `status`, and nothing else, however their runner ended."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from nixprov_lab.running import Lab

from tests.lab.operator import Operator, Pause, leftovers, nix_job, poll

HOST = "host2"
BOOK = "/var/lib/nixprov-counters/jobs.json"


@pytest.fixture(scope="module")
def operator(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """One host with two runners: jobs with the tag `other` are the second one's."""
    home = tmp_path_factory.mktemp("operator")
    inventory = home / "inventory"
    runners = [{"name": "default", "tags": ["nix"], "concurrent": 3}, {"name": "other", "tags": ["other"]}]
    written = repr(runners).replace(" ", "")
    text = lab.files.inventory.read_text()
    inventory.write_text(re.sub(rf"^({HOST} .*)$", rf'\1 nixprov_runners="{written}"', text, flags=re.MULTILINE))
    operator = Operator(lab, home)
    said = operator("up", HOST, "--yes", "--json", NIXPROV_INVENTORY=str(inventory))
    assert said.code == 0, said.err
    yield operator
    # GitLab takes the killed runner's job for running until its time is over.
    said = operator("down", HOST, "--yes", "--json", "--force")
    assert said.code == 0, said.err
    assert leftovers(lab, HOST) == ""


@pytest.fixture
def counters(operator: Operator) -> Callable[[], dict[str, Any]]:
    """What `status` says; by one remote command, as without them."""

    def counters() -> dict[str, Any]:
        said = operator("status", HOST, "--json")
        assert said.host(HOST)["remote_commands"] == 1
        found: dict[str, Any] = said.reports()[HOST]["counters"]
        return found

    return counters


def numbers(counters: dict[str, Any], job_id: int) -> dict[str, Any]:
    return next(job for job in counters["last"] if job["job"] == job_id)


def test_status_says_what_was_built_and_found_for_each_job(
    lab: Lab, operator: Operator, counters: Callable[[], dict[str, Any]]
) -> None:
    stamp, other = secrets.token_hex(6), secrets.token_hex(6)
    before = counters()
    builder = lab.gitlab.queue_job(nix_job(stamp) + nix_job(stamp), host=HOST, tags=["nix"])
    # At the same time, in another container, with the first one's number as its own.
    liar = lab.gitlab.queue_job(
        f"export CI_JOB_ID={builder}\n{nix_job(other)}{nix_job(stamp)}",
        host=HOST,
        tags=["nix"],
        variables={"CI_JOB_ID": str(builder)},
    )
    failing = lab.gitlab.queue_job(nix_job(stamp).replace("> $out", ""), host=HOST, tags=["other"])
    ended = [lab.gitlab.wait_for_job(job_id) for job_id in (builder, liar, failing)]
    assert [job.is_success for job in ended] == [True, True, False], ended
    poll(lab, HOST, "all jobs have ended", f"! grep -q '\"running\":true' {BOOK}")
    after = counters()
    last = {job_id: numbers(after, job_id) for job_id in (builder, liar, failing)}
    # Who of the first two came first with what both want, built it; the other found it.
    assert last[builder]["built"] + last[liar]["built"] == 2
    assert last[builder]["found"] + last[liar]["found"] == 2
    assert last[liar]["built"] >= 1
    assert (last[failing]["built"], last[failing]["found"], last[failing]["runner"]) == (0, 0, "other")
    assert all(0 < job["seconds"] < 120 for job in last.values())
    paths = set(re.findall(r"path (/nix/store/\S+)", ended[0].trace + ended[1].trace))
    sizes = lab.run(HOST, ["nix-store", "--query", "--size", *paths]).stdout.split()
    assert (len(sizes), sum(map(int, sizes))) == (2, after["bytes"] - before["bytes"])
    assert after["jobs"] - before["jobs"] == 3
    assert (after["built"] - before["built"], after["found"] - before["found"]) == (2, 2)


def test_no_counter_is_in_a_builds_way(lab: Lab, operator: Operator, counters: Callable[[], dict[str, Any]]) -> None:
    """The counters' unit is killed under a job, and its disk is full: builds go on, and so does the book afterwards."""
    pause = Pause(lab, HOST, 403)
    job_id = lab.gitlab.queue_job(
        f"{nix_job(secrets.token_hex(6))}{pause.shell}\n{nix_job(secrets.token_hex(6))}", host=HOST, tags=["nix"]
    )
    poll(lab, HOST, "the first build is counted", f'grep -q \'"job":{job_id},.*"built":1\' {BOOK}')
    lab.run(HOST, ["systemctl", "kill", "--signal=SIGKILL", "nixprov-counters.service"])
    pause.begun()
    pause.end()
    assert lab.gitlab.wait_for_job(job_id).is_success
    lab.run(HOST, ["mount", "-t", "tmpfs", "-o", "size=4k,nr_inodes=1", "tmpfs", "/var/lib/nixprov-counters"])
    try:
        lab.run(HOST, ["systemctl", "restart", "nixprov-counters.service"])
        full = lab.gitlab.wait_for_job(lab.gitlab.queue_job(nix_job(secrets.token_hex(6)), host=HOST, tags=["nix"]))
        assert full.is_success, full.trace
    finally:
        lab.run(HOST, ["umount", "--lazy", "/var/lib/nixprov-counters"])
        lab.run(HOST, ["systemctl", "restart", "nixprov-counters.service"])
    again = lab.gitlab.queue_job(nix_job(secrets.token_hex(6)), host=HOST, tags=["nix"])
    assert lab.gitlab.wait_for_job(again).is_success
    poll(lab, HOST, "the book goes on", f'grep -q \'"job":{again},.*"built":1\' {BOOK}')
    assert numbers(counters(), job_id)["built"] >= 1


ENGINE = r"""
engine=$(systemctl cat nixprov-podman.service | sed -n 's/^ExecStart=\(.*\) system service.*/\1/p')
export CONTAINERS_CONF_OVERRIDE=$(systemctl cat nixprov-podman.service | sed -n 's/.*CONTAINERS_CONF_OVERRIDE=\([^" ]*\).*/\1/p')
"""
# What gitlab-runner leaves when it ends while it sets a volume's mode (executors/docker/internal/volumes): a container
# and a volume with its own labels alone; and a job's network. The labels are those of the running job's volume.
KILLED_EARLY = (
    ENGINE
    + r"""
set -e
volume=$($engine volume ls --quiet --filter label=com.gitlab.gitlab-runner.job.id=@JOB@ | head -n 1)
labels=$($engine volume inspect --format '{{range $k, $v := .Labels}}--label {{$k}}={{$v}} {{end}}' "$volume")
$engine volume create $labels early-@JOB@
$engine network create $labels early-@JOB@
image=$($engine images --quiet | head -n 1)
$engine run --detach $labels --name early-@JOB@-set-permission --volume early-@JOB@:/x "$image" /bin/sleep 400
"""
)
LEFT = (
    ENGINE
    + r"""
for kind in ps\ --all volume\ ls network\ ls; do
  names='{{.Name}}'
  [ "$kind" != 'ps --all' ] || names='{{.Names}}'
  $engine $kind --format "$names" --filter label=com.gitlab.gitlab-runner.job.id=@JOB@
done | sort
"""
)


def left(lab: Lab, job_id: int) -> list[str]:
    return lab.run(HOST, ["bash", "-c", LEFT.replace("@JOB@", str(job_id))]).stdout.split()


def test_a_killed_runner_leaves_nothing_and_the_other_runners_job_goes_on(lab: Lab, operator: Operator) -> None:
    killed = lab.gitlab.queue_job("sleep 401", host=HOST, tags=["nix"])
    other = lab.gitlab.queue_job("sleep 402; true", host=HOST, tags=["other"])
    poll(lab, HOST, "both jobs run", "pgrep -f '[s]leep 401' && pgrep -f '[s]leep 402'")
    for job_id in (killed, other):
        lab.run(HOST, ["bash", "-c", KILLED_EARLY.replace("@JOB@", str(job_id))])
    before = left(lab, other)
    assert len(before) == len(left(lab, killed)) == 6
    networks = lab.run(HOST, ["ls", "/run/netns"]).stdout.split()
    lab.run(HOST, ["sh", "-c", "kill -9 $(systemctl show -p MainPID --value nixprov-runner-default.service)"])
    poll(
        lab,
        HOST,
        "the runner is back",
        "systemctl is-active nixprov-runner-default.service && ! pgrep -f '[s]leep 401'",
    )
    assert left(lab, killed) == []
    # Of its build container and of the one that set a volume's mode, which the host's defaults gave one as well or not.
    assert len(lab.run(HOST, ["ls", "/run/netns"]).stdout.split()) < len(networks)
    assert left(lab, other) == before
    assert not lab.gitlab.job(other).has_ended
    lab.gitlab.cancel_job(other)
    # What the test itself put beside that job is swept when its runner stops, as at the end of this module.
