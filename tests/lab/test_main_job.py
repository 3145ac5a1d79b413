"""The main job on real machines: up, a CI job through the host's store, up again, status, down, nothing left.

The tests of this file are one story and run in its order.
"""

from __future__ import annotations

import secrets

import pytest
from nixprov_lab.running import Lab

from tests.lab.operator import Operator, Said, leftovers, nix_job, snapshot

HOSTS = ("host1", "host2")
RUNNER_UNIT = "nixprov-runner-default.service"


@pytest.fixture(scope="module")
def operator(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    return Operator(lab, tmp_path_factory.mktemp("operator"))


@pytest.fixture(scope="module")
def before(lab: Lab) -> dict[str, str]:
    return {host: snapshot(lab, host) for host in HOSTS}


@pytest.fixture(scope="module")
def up(operator: Operator, before: dict[str, str]) -> Said:
    said = operator("up", "--yes", "--json", "--debug", "-v")
    assert said.code == 0, said.err
    return said


@pytest.fixture(scope="module")
def tokens(lab: Lab, up: Said) -> dict[str, str]:
    path = "/var/lib/nixprov/secrets/default.token"
    return {host: lab.run(host, ["cat", path]).stdout for host in HOSTS}


def test_plan_says_all_and_changes_nothing(operator: Operator, lab: Lab, before: dict[str, str]) -> None:
    calls = len(lab.gitlab.calls())
    said = operator("plan", "--diff", "--json")
    assert said.code == 0, said.err
    assert said.summary["gitlab_writes"] == 0
    assert said.summary["remote_commands"] == 3 * len(HOSTS)
    plan = next(event for event in said.events if event["event"] == "plan")
    assert plan["runners"][0]["verb"] == "create"
    assert any("+" in diff and "nixprov" in diff for diff in plan["diff"])
    assert plan["system"]["build"] or plan["system"]["closure"]
    assert {host: snapshot(lab, host) for host in HOSTS} == before
    assert {call["method"] for call in lab.gitlab.calls(calls) if "/api/v4" in call["path"]} == {"GET"}


def test_up_changed_both_hosts_within_six_commands(up: Said) -> None:
    assert up.summary["changed"] == len(HOSTS)
    assert up.summary["gitlab_writes"] == len(HOSTS)
    for host in HOSTS:
        # The second is the login that confirms the switch.
        assert up.host(host)["connections"] == 2
        assert up.host(host)["remote_commands"] <= 6


@pytest.mark.parametrize("host", HOSTS)
def test_the_unit_is_active_and_the_daemon_is_ours(lab: Lab, up: Said, host: str) -> None:
    assert lab.run(host, ["systemctl", "is-active", RUNNER_UNIT]).stdout == "active\n"
    ask = (
        "NIX_REMOTE=unix:///run/nixprov/jobs/nix/socket nix --extra-experimental-features nix-command store info --json"
    )
    assert '"trusted":0' in lab.run(host, ["sh", "-c", ask]).stdout.replace(" ", "").replace("false", "0")


def test_each_runner_is_polled_and_status_says_so(operator: Operator, lab: Lab, up: Said) -> None:
    runners = lab.gitlab.runners()
    assert sorted(runner["host"] for runner in runners) == list(HOSTS)
    assert all(any(manager["polled"] for manager in runner["managers"]) for runner in runners)
    said = operator("status", "--json")
    assert said.code == 0, said.err
    for host in HOSTS:
        report = said.reports()[host]
        assert (report["installed"], report["drift"]) == (True, [])
        assert report["runners"][0]["unit_state"] == "active"
        assert report["runners"][0]["contacted_at"]


def test_up_again_is_one_connection_one_command_and_no_write(operator: Operator, lab: Lab, up: Said) -> None:
    calls = len(lab.gitlab.calls())
    logins = {host: logins_of(lab, host) for host in HOSTS}
    said = operator("up", "--yes", "--json")
    assert said.code == 0, said.err
    assert (said.summary["unchanged"], said.summary["changed"]) == (len(HOSTS), 0)
    assert (said.summary["remote_commands"], said.summary["connections"]) == (len(HOSTS), len(HOSTS))
    assert said.summary["gitlab_writes"] == 0
    operators = [call for call in lab.gitlab.calls(calls) if call["token"].startswith("personal")]
    assert {call["method"] for call in operators} == {"GET"}
    lists = [call for call in operators if call["path"] == "/api/v4/runners/all"]
    assert len(lists) == 1
    # One for the run, one for each look at the log.
    assert {host: logins_of(lab, host) - logins[host] for host in HOSTS} == dict.fromkeys(HOSTS, 2)


def logins_of(lab: Lab, host: str) -> int:
    look = "journalctl --sync; journalctl --quiet --unit='ssh*' --grep='Accepted publickey'"
    return lab.run(host, ["sh", "-c", look]).stdout.count("Accepted")


def test_a_job_builds_through_the_hosts_store_and_the_next_one_finds_it(lab: Lab, up: Said) -> None:
    stamp = secrets.token_hex(6)
    first = lab.gitlab.wait_for_job(lab.gitlab.queue_job(nix_job(stamp), host="host1"))
    assert first.is_success, first.trace
    assert f"built-here {stamp}" in first.trace
    assert "warning:" not in first.trace
    path = next(
        word
        for line in first.trace.splitlines()
        if "path /nix/store" in line
        for word in line.split()
        if "/nix/" in word
    )
    assert lab.run("host1", ["nix-store", "--check-validity", path]).returncode == 0
    assert lab.run("host1", ["cat", path]).stdout == f"{stamp}\n"
    again = lab.gitlab.wait_for_job(lab.gitlab.queue_job(nix_job(stamp), host="host1"))
    assert again.is_success, again.trace
    assert path in again.trace
    assert f"built-here {stamp}" not in again.trace
    assert "will be built" not in again.trace


def test_two_hosts_build_the_same_each_in_its_own_store(lab: Lab, up: Said) -> None:
    stamp = secrets.token_hex(6)
    ids = [lab.gitlab.queue_job(nix_job(stamp), host=host) for host in HOSTS]
    jobs = [lab.gitlab.wait_for_job(job_id) for job_id in ids]
    assert len({job.runner_id for job in jobs}) == len(HOSTS)
    for job in jobs:
        assert job.is_success, job.trace
        assert f"built-here {stamp}" in job.trace
    path = next(
        word for word in jobs[0].trace.split() if word.startswith("/nix/store/") and word.endswith(f"job-{stamp}")
    )
    for host in HOSTS:
        assert lab.run(host, ["cat", path]).stdout == f"{stamp}\n"


def test_root_in_a_job_is_no_trusted_client(lab: Lab, up: Said) -> None:
    lab.run("host1", ["sh", "-c", "echo host-secret-marker > /etc/marker"])

    def script() -> str:
        """A builder has its shell alone to read with."""
        read = "while read -r line; do echo $line; done < /etc/marker; echo built-here"
        job = nix_job(secrets.token_hex(6)).replace("nix-build", "nix-build --option sandbox false")
        return job.replace("echo built-here", read)

    trusted = f". /etc/set-environment; export NIX_REMOTE=daemon; cd $(mktemp -d); {script()}"
    assert "host-secret-marker" in lab.run("host1", ["bash", "-c", trusted]).stderr
    job = lab.gitlab.wait_for_job(lab.gitlab.queue_job(script(), host="host1"))
    lab.run("host1", ["rm", "/etc/marker"])
    assert "built-here" in job.trace
    assert "host-secret-marker" not in job.trace


@pytest.mark.parametrize("host", HOSTS)
def test_the_token_is_nowhere_but_in_its_file(lab: Lab, up: Said, tokens: dict[str, str], host: str) -> None:
    token = tokens[host]
    assert len(token) > 20
    assert found(lab, host, token) == ""
    for text in (up.out, up.err):
        assert token not in text
        assert lab.files.gitlab_token.read_text().strip() not in text


def test_the_search_finds_a_planted_token(lab: Lab, up: Said, tokens: dict[str, str]) -> None:
    token = tokens["host1"]
    add = f"printf %s {token} > /root/planted && nix-store --add /root/planted && rm /root/planted"
    plant = f"{add} && logger -t planted {token}"
    path = lab.run("host1", ["sh", "-c", plant]).stdout.strip()
    try:
        seen = found(lab, "host1", token)
        assert path in seen
        assert "journal" in seen
        sleep = "bash -c 'exec -a \"$0\" sleep 600'"
        sleeper = f"sleep 600 & SECRET={token} sleep 600 & {sleep} {token} & sleep 0.2;"
        seen = found(lab, "host1", token, beside=sleeper)
        assert "environ" in seen
        assert "cmdline" in seen
    finally:
        lab.run("host1", ["nix-store", "--delete", path])


SEARCH = r"""
read -r token
@BESIDE@
grep -rlaF "$token" /nix/store /etc /run/current-system/ /var/log /tmp 2>/dev/null
journalctl --sync
journalctl --quiet --no-pager -o cat | grep -qF "$token" && echo journal
for process in /proc/[0-9]*; do
  [ "$process" = "/proc/$$" ] && continue
  tr '\0' '\n' < "$process/cmdline" 2>/dev/null | grep -qF "$token" && echo "$process cmdline"
  tr '\0' '\n' < "$process/environ" 2>/dev/null | grep -qF "$token" && echo "$process environ"
done
grep -rlF "$token" /var/lib/nixprov --include='*.json' --include='result' --include='*.sh' 2>/dev/null
kill $(jobs -p) 2>/dev/null
exit 0
"""


def found(lab: Lab, host: str, token: str, beside: str = "") -> str:
    """Where the token stands on the host. It is read from standard input, so that the search does not find itself."""
    return lab.run(host, ["bash", "-c", SEARCH.replace("@BESIDE@", beside)], stdin=f"{token}\n").stdout


@pytest.mark.parametrize("host", HOSTS)
def test_secrets_and_journal_are_roots_alone(lab: Lab, up: Said, host: str) -> None:
    modes = lab.run(
        host, ["sh", "-c", "cd /var/lib/nixprov && stat -c '%n %a %U' . secrets secrets/* journal.json"]
    ).stdout
    assert modes.splitlines() == [
        ". 700 root",
        "secrets 700 root",
        "secrets/default.token 600 root",
        "journal.json 600 root",
    ]
    config = lab.run(host, ["stat", "-c", "%a %U", "/var/lib/nixprov-runner/default/config.toml"]).stdout
    assert config == "600 nixprov-runner\n"


def test_the_runner_comes_back_after_a_reboot(lab: Lab, up: Said) -> None:
    lab.reboot("host2")
    job = lab.gitlab.wait_for_job(lab.gitlab.queue_job("echo after the reboot", host="host2"))
    assert job.is_success, job.trace


def test_a_users_own_edit_and_rebuild_keep_the_runner(lab: Lab, operator: Operator, up: Said) -> None:
    lab.run(
        "host1",
        ["sh", "-c", "cp -a /etc/nixos/configuration.nix /root/kept && echo '# mine' >> /etc/nixos/configuration.nix"],
    )
    lab.run("host1", ["bash", "-c", ". /etc/set-environment; nixos-rebuild switch"], timeout_s=300)
    assert lab.run("host1", ["systemctl", "is-active", RUNNER_UNIT]).stdout == "active\n"
    said = operator("up", "host1", "--yes", "--json")
    assert said.summary["unchanged"] == 1, said.out
    lab.run("host1", ["cp", "-a", "/root/kept", "/etc/nixos/configuration.nix"])


def test_a_plan_of_down_says_what_goes_from_the_system(operator: Operator, up: Said) -> None:
    said = operator("down", "host1", "--check", "--diff", "--json")
    assert said.summary["remote_commands"] == 2
    plan = next(event for event in said.events if event["event"] == "plan")
    # The system without us was there before, so there is nothing to build.
    closure = plan["system"]["closure"]
    assert closure["size"] < 0
    assert "podman" in [package["name"] for package in closure["packages"] if not package["after"]]
    assert RUNNER_UNIT in next(change["units"] for change in closure["units"] if change["verb"] == "stop")


@pytest.fixture(scope="module")
def down(operator: Operator, lab: Lab, up: Said) -> Said:
    ids = [runner["id"] for runner in lab.gitlab.runners()]
    said = operator("down", "--yes", "--json", "--debug")
    assert said.code == 0, said.err
    assert len(ids) == len(HOSTS)
    return said


def test_down_left_gitlab_without_the_runners(lab: Lab, down: Said) -> None:
    assert down.summary["changed"] == len(HOSTS)
    assert lab.gitlab.runners() == []


@pytest.mark.parametrize("host", HOSTS)
def test_down_gave_etc_nixos_back_byte_for_byte(lab: Lab, before: dict[str, str], down: Said, host: str) -> None:
    assert snapshot(lab, host) == before[host]


@pytest.mark.parametrize("host", HOSTS)
def test_down_left_nothing_on_the_host(lab: Lab, down: Said, host: str) -> None:
    assert leftovers(lab, host) == ""


def test_down_again_has_nothing_to_do(operator: Operator, down: Said) -> None:
    said = operator("down", "--yes", "--json")
    assert (said.code, said.summary["unchanged"], said.summary["remote_commands"]) == (0, len(HOSTS), len(HOSTS))


def test_status_after_down_says_not_installed(operator: Operator, down: Said) -> None:
    said = operator("status", "--json")
    assert [report["installed"] for report in said.reports().values()] == [False, False]
