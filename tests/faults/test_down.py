"""`down` when one side is busy, silent or gone."""

from __future__ import annotations

from collections.abc import Callable

from nixprov_lab.running import Lab

from tests.faults import api
from tests.faults.machine import Begun, journal, runners, until_running, untouched
from tests.lab.operator import Operator, Pause, leftovers

LINES = "for i in 1 2 3 4; do echo line %d$i; sleep 0.2; done"


def test_a_job_that_runs_finishes_with_a_whole_trace(lab: Lab, operators: Callable[[], Operator]) -> None:
    with untouched(lab, "host1", operators()):
        assert operators()("up", "host1", "--yes").code == 0
        pause = Pause(lab, "host1", 611)
        job = lab.gitlab.queue_job(f"{LINES % 1}\n{pause.shell}\n{LINES % 2}\necho the end", host="host1")
        until_running(lab, job)
        run = Begun(operators(), "down", "host1", "--yes")
        assert run.until(lambda event: event["event"] == "drain")["jobs"] == 1
        pause.begun()
        pause.end()
        code, err = run.end()
        assert code == 0, err
        done = lab.gitlab.job(job)
        assert done.is_success, done.trace
        assert all(f"line {part}{number}" in done.trace for part in (1, 2) for number in range(1, 5)), done.trace
        assert "the end" in done.trace


def test_a_job_that_is_too_long_keeps_its_runner_unless_forced(lab: Lab, operators: Callable[[], Operator]) -> None:
    with untouched(lab, "host1", operators()):
        assert operators()("up", "host1", "--yes").code == 0
        job = lab.gitlab.queue_job("sleep 600", host="host1")
        until_running(lab, job)
        said = operators()("down", "host1", "--yes", "--json", "--drain-limit", "1")
        assert said.code == 5
        assert "--force" in said.err
        assert [runner["paused"] for runner in lab.gitlab.runners() if runner["host"] == "host1"] == [False]
        assert journal(lab, "host1")["phase"] == "up: confirmed"
        assert operators()("down", "host1", "--yes", "--force").code == 0


def test_with_gitlab_silent_the_deletion_waits_for_anyone(lab: Lab, operators: Callable[[], Operator]) -> None:
    with untouched(lab, "host1", operators()):
        assert operators()("up", "host1", "--yes").code == 0
        runner = runners(lab, "host1")[0]
        lab.gitlab.set_fault("html_502", method="DELETE", times=None)
        said = operators()("down", "host1", "--yes", "--json")
        assert said.code == 9
        (waits,) = said.host("host1")["remains"]
        assert waits.startswith(f"runner {runner} in GitLab")
        assert [record["id"] for record in journal(lab, "host1")["pending_deletions"]] == [runner]
        assert leftovers(lab, "host1").split() == ["/var/lib/nixprov"]
        lab.gitlab.clear_faults()
        said = operators()("prune", "host1", "--yes")
        assert said.code == 0, said.err
        assert (runners(lab, "host1"), leftovers(lab, "host1")) == ([], "")


def test_a_runner_that_somebody_deleted_is_no_trouble(lab: Lab, operators: Callable[[], Operator]) -> None:
    with untouched(lab, "host1", operators()):
        assert operators()("up", "host1", "--yes").code == 0
        lab.gitlab.delete_runner(runners(lab, "host1")[0])
        assert operators()("down", "host1", "--yes").code == 0


def test_a_machine_that_is_gone(lab: Lab, operators: Callable[[], Operator]) -> None:
    with untouched(lab, "host1", operators()):
        assert operators()("up", "host1", "--yes").code == 0
        lab.cut_network("host1")
        said = operators()("down", "--gone", "host1", "--yes")
        assert said.code == 0, said.err
        assert runners(lab, "host1") == []


def test_prune_deletes_what_its_host_does_not_know_and_nothing_else(
    lab: Lab, operators: Callable[[], Operator]
) -> None:
    with untouched(lab, "host1", operators()):
        assert operators()("up", "host1", "--yes").code == 0
        kept = runners(lab, "host1")[0]
        double = api.double(lab, kept)
        stranger = api.call(lab, "POST", "/user/runners", {"runner_type": "instance_type", "description": "mine"})["id"]
        asked = operators()("prune", "host1")
        assert (asked.code, double in runners(lab, "host1")) == (2, True)
        said = operators()("prune", "host1", "--yes")
        assert said.code == 0, said.err
        assert f"runner {double} " in said.out
        left = [runner["id"] for runner in lab.gitlab.runners()]
        assert (kept in left, double in left, stranger in left) == (True, False, True)
        refused = operators()("down", "--gone", str(stranger), "--yes")
        assert (refused.code, "mark" in refused.err) == (9, True)
        lab.gitlab.delete_runner(stranger)


def test_a_lost_reply_doubles_nothing(lab: Lab, operators: Callable[[], Operator]) -> None:
    with untouched(lab, "host1", operators()):
        lab.gitlab.set_fault("reply_lost", method="POST", path_regex="/user/runners", times=1)
        said = operators()("up", "host1", "--yes", "--json")
        assert said.code == 0, said.err
        assert len(runners(lab, "host1")) == 1
