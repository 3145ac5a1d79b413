"""The lab's stand-in runner as a program: polling, jobs, signals, commands."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nixprov_lab.guest
import pytest
from lab_fakes.runner import TOKEN, FakeDocker, FakeGitLab, JobState, config_text, fakes, wait_for

PROGRAM = Path(nixprov_lab.guest.__file__).parent / "gitlab-runner.py"
# Prints again and again, because GitLab ends a job by its answer to a piece of the log.
ENDLESS = "while :; do echo again; sleep 1; done"
STAMP = re.compile(r"^\S+Z (0[01][OE])([+ ])", re.MULTILINE)


@dataclass
class Lab:
    """The program's surroundings; `write` makes config.toml anew."""

    gitlab: FakeGitLab
    docker: FakeDocker
    directory: Path

    @property
    def config(self) -> Path:
        return self.directory / "config.toml"

    def write(self, *, top: str = "concurrent = 2\ncheck_interval = 1", runner: str = "") -> None:
        runners = config_text(self.gitlab.url, self.docker, self.directory, runner)
        self.config.write_text(f"{top}\n{runners}", encoding="utf-8")

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[str]]:
        process = self.start("run", "--config", str(self.config), "--working-directory", str(self.directory))
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def held(self) -> str:
        """A line of a script that makes a file `started`, and ends once there is a file `go`."""
        return f"touch {self.directory}/started; while [ ! -e {self.directory}/go ]; do sleep 0.05; done"

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(PROGRAM), *arguments]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def command(self, *arguments: str) -> tuple[int, str]:
        """Run a command; its exit status and all of its output."""
        process = self.start(*arguments)
        said = process.communicate(timeout=30)
        return process.returncode, "".join(said)

    def finished(self, job: JobState) -> JobState:
        """Run the job by its own runner, which drains after it; the job after the report of its end."""
        with self.running() as process:
            wait_for(lambda: bool(job.final), "the job's final update")
            process.send_signal(signal.SIGQUIT)
            said = process.communicate(timeout=20)[1]
            assert process.returncode == 0, said
            assert TOKEN not in said
        return job


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with fakes(tmp_path) as (gitlab, docker):
        surroundings = Lab(gitlab, docker, tmp_path)
        surroundings.write()
        yield surroundings


def plain(job: JobState) -> str:
    return STAMP.sub("", job.text)


def test_a_job_runs_and_its_whole_log_arrives(lab: Lab) -> None:
    job = lab.finished(lab.gitlab.queue(["echo hello", "echo $CI_PROJECT_DIR"]))
    assert job.final["state"] == "success"
    assert job.final["output"] == {"checksum": f"crc32:{zlib.crc32(job.trace):08x}", "bytesize": len(job.trace)}
    text = plain(job)
    assert "\033[32;1m$ echo hello\033[0;m\nhello\n" in text
    assert f"\n{lab.directory}/builds/group/project\n" in text
    assert '\033[36;1mExecuting "step_script" stage of the job script\033[0;m' in text
    assert text.endswith("\033[32;1mJob succeeded\033[0;m\n")
    assert lab.docker.containers == {}
    assert lab.docker.volumes == set()


def test_requests_say_who_asks_and_repeat_the_queues_value(lab: Lab) -> None:
    with lab.running():
        wait_for(lambda: len(lab.gitlab.of("POST", "/jobs/request")) >= 2, "two requests")
    first, second = lab.gitlab.of("POST", "/jobs/request")[:2]
    assert first.headers["runner-token"] == first.json["token"] == TOKEN
    assert re.fullmatch(r"[sr]_[0-9a-zA-Z]{12}", first.json["system_id"])
    assert first.json["system_id"] == (lab.directory / ".runner_system_id").read_text(encoding="utf-8")
    assert (lab.directory / ".runner_system_id").stat().st_mode & 0o777 == 0o600
    assert re.fullmatch(r"[0-9a-f]{32}", first.headers["x-request-id"])
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert first.json["info"]["features"]["two_phase_job_commit"] is True
    assert "last_update" not in first.json
    assert second.json["last_update"] == "abc123"


def test_a_job_is_accepted_before_it_runs(lab: Lab) -> None:
    lab.finished(lab.gitlab.queue(["true"]))
    first = lab.gitlab.of("PUT", "/jobs/1")[0]
    assert (first.json["state"], first.json["output"]) == ("running", {})
    assert first.headers["job-token"] == first.json["token"] == "job-token-1"
    assert "runner-token" not in first.headers


def test_three_refusals_in_a_row_and_it_asks_no_more(lab: Lab) -> None:
    lab.gitlab.replies["request"] = [(403, {})] * 10
    with lab.running() as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "is unhealthy and will be disabled for 3600 seconds" in line:
                break
        asked = len(lab.gitlab.of("POST", "/jobs/request"))
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.3)
    assert asked == len(lab.gitlab.of("POST", "/jobs/request")) == 3


def test_a_refused_runner_asks_again_after_its_interval(lab: Lab) -> None:
    lab.write(runner='unhealthy_interval = "1s"\nunhealthy_requests_limit = 2')
    lab.gitlab.replies["request"] = [(403, {})] * 2
    assert lab.finished(lab.gitlab.queue(["true"])).final["state"] == "success"


def test_server_errors_are_repeated_five_times_with_the_same_request(lab: Lab) -> None:
    lab.gitlab.replies["request"] = [(503, {})] * 4 + [(429, {"Retry-After": "1"})]
    job = lab.finished(lab.gitlab.queue(["true"]))
    ids = [call.headers["x-request-id"] for call in lab.gitlab.of("POST", "/jobs/request")]
    assert job.final["state"] == "success"
    assert len(set(ids[:5])) == 1
    assert ids[5] != ids[0]


def test_the_log_goes_on_where_gitlab_has_it(lab: Lab) -> None:
    lab.gitlab.replies["trace"] = [(416, {"Range": "0-0"})]
    job = lab.finished(lab.gitlab.queue(["echo hello"]))
    ranges = [call.headers["content-range"] for call in lab.gitlab.of("PATCH", "/trace")]
    assert ranges[0].startswith("0-")
    assert ranges[1].startswith("0-")
    for call in lab.gitlab.of("PATCH", "/trace"):
        first, last = map(int, call.headers["content-range"].split("-"))
        assert last - first + 1 == len(call.body)
    assert job.final["output"]["bytesize"] == len(job.trace)


def test_a_trace_that_was_not_taken_is_sent_again(lab: Lab) -> None:
    lab.gitlab.replies["final"] = [(412, {"X-GitLab-Trace-Update-Interval": "1"})]
    lab.finished(lab.gitlab.queue(["echo hello"]))
    finals = [call for call in lab.gitlab.of("PUT", "/jobs/1") if call.json["state"] == "success"]
    assert len(finals) == 2
    assert any(call.headers["content-range"].startswith("0-") for call in lab.gitlab.of("PATCH", "/trace")[1:])


def test_a_cancelled_job_is_broken_off(lab: Lab) -> None:
    job = lab.gitlab.queue(["echo started", ENDLESS])
    with lab.running():
        wait_for(lambda: "started\n" in job.text, "output")
        job.status = "canceled"
        wait_for(lambda: bool(job.final), "the final update")
    assert (job.final["state"], job.final["failure_reason"]) == ("failed", "unknown_failure")
    assert lab.docker.containers == {}


def test_a_job_asked_to_end_still_runs_after_script(lab: Lab) -> None:
    steps = [{"name": "script", "script": [ENDLESS]}, {"name": "after_script", "script": ["echo $CI_JOB_STATUS after"]}]
    job = lab.gitlab.queue([], steps=steps)
    with lab.running():
        wait_for(lambda: "\n" in job.text and "step_script" in job.text, "output")
        job.status = "canceling"
        wait_for(lambda: bool(job.final), "the final update")
    assert "canceled after\n" in plain(job)
    assert "script canceled externally (UI, API)" in plain(job)


def test_sigquit_waits_for_the_job_and_takes_no_other(lab: Lab) -> None:
    job = lab.gitlab.queue([lab.held(), "echo ended"])
    with lab.running() as process:
        wait_for((lab.directory / "started").exists, "the script")
        process.send_signal(signal.SIGQUIT)
        _until(process, "Starting graceful shutdown")
        later = lab.gitlab.queue(["echo later"])
        (lab.directory / "go").touch()
        process.communicate(timeout=20)
        assert process.returncode == 0
    assert job.final["state"] == "success"
    assert later.status == "pending"


@pytest.mark.parametrize(("number", "name"), [(signal.SIGTERM, "terminated"), (signal.SIGINT, "interrupt")])
def test_other_signals_end_the_job(lab: Lab, number: signal.Signals, name: str) -> None:
    job = lab.gitlab.queue([f"touch {lab.directory}/started; sleep 60"])
    with lab.running() as process:
        wait_for((lab.directory / "started").exists, "the script")
        process.send_signal(number)
        process.communicate(timeout=20)
        assert process.returncode == 0
    assert (job.final["state"], job.final["failure_reason"]) == ("failed", "runner_interrupted")
    assert f"ERROR: Job failed: aborted: {name}" in plain(job)
    assert lab.docker.containers == {}


def test_sighup_reads_the_file_again_and_a_broken_one_changes_nothing(lab: Lab) -> None:
    with lab.running() as process:
        wait_for(lambda: bool(lab.gitlab.calls), "a request")
        lab.write(top="concurrent = 2\nnonsense = 1")
        process.send_signal(signal.SIGHUP)
        _until(process, "Failed to load config")
        lab.write(runner='environment = ["FROM=reloaded"]')
        process.send_signal(signal.SIGHUP)
        _until(process, "Configuration loaded")
        job = lab.gitlab.queue(["echo $FROM"])
        wait_for(lambda: bool(job.final), "the final update")
    assert "\nreloaded\n" in plain(job)


@pytest.mark.parametrize(("runner", "warns"), [("", True), ("request_concurrency = 2", False)])
def test_one_request_at_once_is_warned_of(lab: Lab, runner: str, warns: bool) -> None:
    lab.write(runner=runner)
    with lab.running() as process:
        wait_for(lambda: bool(lab.gitlab.calls), "a request")
        process.send_signal(signal.SIGQUIT)
        said = process.communicate(timeout=20)[1]
    assert ("Long polling issues detected" in said) is warns


def _until(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr is not None
    assert any(text in line for line in process.stderr), f"never said {text}"


def test_limit_and_concurrent_are_kept(lab: Lab) -> None:
    lab.write(top="concurrent = 4\ncheck_interval = 1", runner="limit = 1")
    first, second = lab.gitlab.queue([lab.held()]), lab.gitlab.queue(["true"])
    with lab.running() as process:
        wait_for((lab.directory / "started").exists, "the script")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.3)
        assert second.status == "pending"
        (lab.directory / "go").touch()
        wait_for(lambda: bool(second.final), "the second job")
    assert first.final["state"] == "success"


def test_two_jobs_at_a_time_have_slots_of_their_own(lab: Lab) -> None:
    slots = f"{lab.directory}/slot"
    meet = f"touch {slots}$CI_CONCURRENT_ID; until [ -e {slots}0 ] && [ -e {slots}1 ]; do sleep 0.05; done"
    jobs = [lab.gitlab.queue(["echo slot $CI_CONCURRENT_ID", meet]) for _ in range(2)]
    with lab.running():
        wait_for(lambda: all(job.final for job in jobs), "both jobs")
    assert {re.findall(r"slot (\d)\n", plain(job))[0] for job in jobs} == {"0", "1"}


def test_verify_says_valid_for_everything_but_403(lab: Lab) -> None:
    assert lab.command("verify", "--config", str(lab.config))[0] == 0
    lab.gitlab.replies["verify"] = [(404, {})]
    assert lab.command("verify", "--config", str(lab.config))[0] == 0
    lab.gitlab.replies["verify"] = [(403, {})]
    status, said = lab.command("verify", "--config", str(lab.config))
    assert (status, TOKEN in said) == (1, False)
    assert "[[runners]]" in lab.config.read_text(encoding="utf-8")
    lab.gitlab.replies["verify"] = [(403, {})]
    assert lab.command("verify", "--delete", "--config", str(lab.config))[0] == 0
    assert "[[runners]]" not in lab.config.read_text(encoding="utf-8")


def test_unregister_takes_the_manager_away_and_keeps_the_other_runner(lab: Lab) -> None:
    other = '\n[[runners]]\nname = "b"\nurl = "http://127.0.0.1:1"\ntoken = "glrt-other"\nexecutor = "docker"\n[runners.docker]\n'
    lab.config.write_text(lab.config.read_text(encoding="utf-8") + other, encoding="utf-8")
    assert lab.command("unregister", "--name", "host1", "--config", str(lab.config))[0] == 0
    call = lab.gitlab.of("DELETE", "/runners/managers")[0]
    assert set(call.json) == {"token", "system_id"}
    status, said = lab.command("list", "--config", str(lab.config))
    assert (status, "host1" in said, "glrt-other" in said) == (0, False, False)
    assert "b " in said


def test_the_program_says_that_it_is_a_stand_in(lab: Lab) -> None:
    status, said = lab.command("--version")
    assert status == 0
    assert "Version:      19.4.0-nixprov-lab\n" in said
    assert "not GitLab's gitlab-runner" in said


@pytest.mark.parametrize("name", ["register", "artifacts-uploader", "steps"])
def test_commands_it_has_not_are_refused_by_name(lab: Lab, name: str) -> None:
    status, said = lab.command(name, "--anything", "x")
    assert status == 1
    assert f"{name} is gitlab-runner's" in said


def test_cache_init_opens_a_volume_for_all(lab: Lab) -> None:
    volume = lab.directory / "volume"
    volume.mkdir(mode=0o700)
    assert lab.command("cache-init", str(volume))[0] == 0
    assert volume.stat().st_mode & 0o777 == 0o777
