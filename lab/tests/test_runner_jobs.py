"""One job of the lab's stand-in runner: its log, its containers, its outcome."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from lab_fakes.runner import IMAGE, FakeDocker, config_text, job_document
from nixprov_lab.guest.runner import config, scope, work
from nixprov_lab.guest.runner.build import Build, Slot
from nixprov_lab.guest.runner.errors import Reason
from nixprov_lab.guest.runner.gitlab import Outcome
from nixprov_lab.guest.runner.job import parse
from nixprov_lab.guest.runner.log import Log
from nixprov_lab.guest.runner.work import Work

STAMP = re.compile(r"^\S+Z (0[01][OE])([+ ])", re.MULTILINE)


@dataclass
class Bench:
    """Runs jobs on a fake engine; `runner` and `docker` are lines of config.toml."""

    directory: Path
    engine: FakeDocker
    trace: bytearray = field(default_factory=bytearray)

    def run(self, script: list[str], *, runner: str = "", docker: str = "", **extra: Any) -> Outcome:
        return self.work(script, runner=runner, docker=docker, **extra).run()

    def work(self, script: list[str], *, runner: str = "", docker: str = "", **extra: Any) -> Work:
        file = self.directory / "config.toml"
        file.write_text(
            config_text("http://127.0.0.1:1", self.engine, self.directory, runner, docker), encoding="utf-8"
        )
        loaded, _document = config.load(file)
        job = parse(job_document(1, script) | extra)
        self.trace.clear()
        build = Build(job, loaded.runners[0], "s_0123456789ab", Slot())
        return Work(build, self.trace.extend, Log(io.StringIO()))

    @property
    def text(self) -> str:
        return self.trace.decode()

    @property
    def plain(self) -> str:
        return STAMP.sub("", self.text)

    @property
    def project(self) -> Path:
        return self.directory / "builds/group/project"


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr(work, "_RETRY_S", 0.0)
    engine = FakeDocker(tmp_path / "docker.sock")
    yield Bench(tmp_path, engine)
    engine.close()
    assert engine.containers == {}, "a container was left behind"


def variables(*more: dict[str, object]) -> list[dict[str, object]]:
    return [{"key": "GIT_STRATEGY", "value": "none"}, *more]


def test_the_log_looks_like_gitlab_runners(bench: Bench) -> None:
    assert bench.run(["echo hello", "echo one\necho two"]) == Outcome()
    expected = [
        "\033[0KRunning with gitlab-runner 19.4.0-nixprov-lab (stand-in)\033[0;m\n",
        "\033[0K  on host1 POISONpoi, system ID: s_0123456789ab\033[0;m\n",
        '\033[0K\033[36;1mPreparing the "docker" executor\033[0;m\033[0;m\n',
        f"\033[0KUsing effective pull policy of [never] for container {IMAGE}\033[0;m\n",
        "\033[0K\033[36;1mGetting source from Git repository\033[0;m\033[0;m\n",
        "\033[32;1mSkipping Git repository setup\033[0;m\n",
        '\033[0K\033[36;1mExecuting "step_script" stage of the job script\033[0;m\033[0;m\n',
        "\033[32;1m$ echo hello\033[0;m\nhello\n",
        "\033[32;1m$ echo one # collapsed multi-line command\033[0;m\none\ntwo\n",
        "\033[32;1mJob succeeded\033[0;m\n",
    ]
    places = [bench.plain.find(text) for text in expected]
    assert -1 not in places
    assert places == sorted(places)


def test_sections_are_marked_and_the_title_continues_the_mark(bench: Bench) -> None:
    bench.run(["true"])
    pattern = (
        r'^\S+ 00O[+ ]section_start:\d+:step_script\r\033\[0K\n\S+ 00O\+\033\[0K\033\[36;1mExecuting "step_script"'
    )
    assert re.search(pattern, bench.text, re.MULTILINE)
    bench.run(["true"], features={})
    assert "section_" not in bench.text


def test_every_line_is_stamped_with_its_stream(bench: Bench) -> None:
    bench.run(["echo out", "echo err >&2"])
    assert re.search(r"Z 01O out$", bench.text, re.MULTILINE)
    assert re.search(r"Z 01E err$", bench.text, re.MULTILINE)
    assert all(STAMP.match(line) for line in bench.text.split("\n")[:-1])
    bench.run(["echo out"], runner="feature_flags = { FF_TIMESTAMPS = false }")
    assert "\nout\n" in bench.text


def test_a_failing_command_ends_the_script_with_its_status(bench: Bench) -> None:
    assert bench.run(["echo before", "exit 3", "echo never"]) == Outcome(Reason.SCRIPT, 3)
    assert "\nbefore\n" in bench.plain
    assert "\nnever\n" not in bench.plain
    assert "\033[31;1mERROR: Job failed: exit code 3\033[0;m\n" in bench.plain


@pytest.mark.skipif(shutil.which("bash") is None, reason="a POSIX sh need not have pipefail")
def test_a_failure_in_a_pipe_counts(bench: Bench) -> None:
    assert bench.run(["false | cat"]) == Outcome(Reason.SCRIPT, 1)


def test_the_script_has_no_standard_input_of_its_own(bench: Bench) -> None:
    assert bench.run(["cat", "echo after"]) == Outcome()
    assert "$ cat\033[0;m\n\033[32;1m$ echo after" in bench.plain


def test_after_script_runs_after_a_failure_and_knows_of_it(bench: Bench) -> None:
    steps = [
        {"name": "script", "script": ["exit 4"]},
        {"name": "after_script", "script": ["echo $CI_JOB_STATUS", "exit 9"]},
    ]
    assert bench.run([], steps=steps) == Outcome(Reason.SCRIPT, 4)
    assert "\nfailed\n" in bench.plain
    assert "after_script failed, but job will continue unaffected: exit code 9" in bench.plain


def test_scripts_and_environment_of_the_runner_come_in(bench: Bench) -> None:
    runner = 'environment = ["FROM=runner"]\npre_build_script = "echo $FROM first"\npost_build_script = "echo last"'
    bench.run(["echo between"], runner=runner)
    assert [line for line in bench.plain.split("\n") if line in {"runner first", "between", "last"}] == [
        *("runner first", "between", "last"),
    ]


def test_masked_variables_and_tokens_do_not_reach_the_log(bench: Bench) -> None:
    script = ["printf hun; sleep 0.2; echo ter2", "echo $S", "echo glpat-abcdefghij1234"]
    bench.run(script, variables=variables({"key": "S", "value": "hunter2", "masked": True}))
    assert "hunter2" not in bench.text
    assert bench.plain.count("\n[MASKED]\n") == 2
    assert "\nglpat-[MASKED]\n" in bench.plain


def test_file_variables_are_files_until_the_end(bench: Bench) -> None:
    bench.run(["cat $F", "echo at $F"], variables=variables({"key": "F", "value": "in\nside\n", "file": True}))
    file = f"{bench.project}.tmp/F"
    assert "\nin\nside\n" in bench.plain
    assert f"\nat {file}\n" in bench.plain
    assert not Path(file).exists()


def test_gitlab_env_reaches_after_script(bench: Bench) -> None:
    steps = [
        {"name": "script", "script": ['echo "N=new" >> $GITLAB_ENV']},
        {"name": "after_script", "script": ["echo $N"]},
    ]
    bench.run([], steps=steps)
    assert "\nnew\n" in bench.plain


def test_the_containers_get_what_config_toml_says(bench: Bench) -> None:
    bench.run(
        ["true"],
        docker='volumes = ["/nix/store:/nix/store:ro"]\ncap_drop = ["ALL"]\nmemory = "64m"\nnetwork_mode = "none"\n'
        'cap_add = ["NET_RAW"]\nsecurity_opt = ["no-new-privileges"]\nservices_security_opt = ["no-new-privileges"]',
    )
    build, helper = bench.engine.body_of("-build"), bench.engine.body_of("-predefined")
    assert build["HostConfig"] == helper["HostConfig"]
    assert build["HostConfig"]["Binds"][0] == "/nix/store:/nix/store:ro"
    assert re.fullmatch(rf"runner-\S+-cache-\w{{32}}:{bench.directory}/builds", build["HostConfig"]["Binds"][1])
    assert (build["HostConfig"]["CapDrop"], build["HostConfig"]["Memory"]) == (["ALL"], 64 * 1024 * 1024)
    assert (build["HostConfig"]["NetworkMode"], build["HostConfig"]["Privileged"]) == ("none", False)
    assert (build["HostConfig"]["CapAdd"], build["HostConfig"]["SecurityOpt"]) == (["NET_RAW"], ["no-new-privileges"])
    assert build["Labels"]["com.gitlab.gitlab-runner.managed"] == "true"
    assert build["Labels"]["com.gitlab.gitlab-runner.type"] == "build"
    assert bench.engine.volumes == set()


def test_the_container_that_opens_a_volume_gets_nothing_but_it(bench: Bench) -> None:
    """So a helper image with its programs in a mounted store needs the engine to mount it."""
    bench.run(["true"], docker='volumes = ["/nix/store:/nix/store:ro"]\nnetwork_mode = "none"')
    body = next(body for name, body in bench.engine.created if "-set-permission-" in name)
    assert body["Cmd"] == ["gitlab-runner-helper", "cache-init", "/gitlab-runner-cache-init"]
    assert set(body["HostConfig"]) == {"Binds", "LogConfig"}
    assert len(body["HostConfig"]["Binds"]) == 1


def test_never_does_not_pull_and_a_missing_image_is_a_system_failure(bench: Bench) -> None:
    assert bench.run(["true"], image={"name": "localhost/absent:1"}) == Outcome(Reason.SYSTEM)
    assert bench.plain.count("Preparation failed: failed to pull image") == 3
    assert bench.engine.pulls == []


def test_an_image_that_cannot_be_pulled(bench: Bench) -> None:
    features = {"failure_reasons": ["image_pull_failure"]}
    image = {"name": "localhost/absent", "pull_policy": ["if-not-present"]}
    assert bench.run(["true"], image=image, features=features) == Outcome(Reason.IMAGE_PULL)
    assert bench.engine.pulls == ["localhost/absent:latest"]


def test_the_allowed_images_are_told(bench: Bench) -> None:
    outcome = bench.run(["echo ran"], docker='allowed_images = ["localhost/**"]', image={"name": "alpine:3"})
    assert outcome == Outcome(Reason.SYSTEM)
    assert 'ERROR: The "alpine:3" image is not present on list of allowed images:' in bench.plain
    assert "\nran\n" not in bench.plain


def test_a_job_may_not_choose_a_policy_that_is_not_allowed(bench: Bench) -> None:
    image = {"name": IMAGE, "pull_policy": ["always"]}
    outcome = bench.run(["echo ran"], image=image)
    assert outcome == Outcome(Reason.SCRIPT), "GitLab does not know the true reason, a configuration error"
    assert "is not one of the allowed_pull_policies ([never if-not-present])" in bench.plain
    assert bench.engine.pulls == []


@pytest.mark.parametrize(
    ("asked", "name"),
    [
        ({"services": [{"name": "redis"}]}, "services"),
        ({"artifacts": [{"paths": ["x"]}]}, "artifacts"),
        ({"cache": [{"key": "k", "paths": ["x"]}]}, "caches"),
        ({"secrets": {"S": {}}}, "secrets"),
    ],
)
def test_what_the_stand_in_has_not_fails_the_job_by_name(bench: Bench, asked: dict[str, Any], name: str) -> None:
    assert bench.run(["echo ran"], **asked) == Outcome(Reason.SYSTEM)
    assert f"{name} are not supported by the lab's stand-in" in bench.plain
    assert bench.engine.created == []


@dataclass(frozen=True)
class Clock:
    """A clock that stands still until a job's script begins, so that the steps before it take no time."""

    begun: Path

    def monotonic(self) -> float:
        return 10.0 if self.begun.exists() else 0.0


@pytest.fixture
def endless(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> str:
    """A line of a script that takes ten seconds of the jobs' clock at once, and never ends."""
    clock = Clock(bench.directory / "begun")
    monkeypatch.setattr(scope, "time", clock)
    return f"touch {clock.begun}; sleep 60"


def test_a_job_that_takes_too_long(bench: Bench, endless: str) -> None:
    assert bench.run([endless], runner_info={"timeout": 1}) == Outcome(Reason.TIMEOUT)
    assert "execution took longer than 1s seconds" in bench.plain
    assert "step_script could not run to completion because the timeout was exceeded" in bench.plain


def test_a_script_with_a_time_of_its_own(bench: Bench, endless: str) -> None:
    steps = [
        {"name": "script", "script": [endless]},
        {"name": "after_script", "script": ["echo $CI_JOB_STATUS after"]},
    ]
    given = variables({"key": "RUNNER_SCRIPT_TIMEOUT", "value": "500ms"})
    assert bench.run([], steps=steps, variables=given) == Outcome(Reason.TIMEOUT)
    assert "\ntimedout after\n" in bench.plain


def test_a_clone_path_outside_of_the_builds_directory(bench: Bench) -> None:
    given = variables({"key": "GIT_CLONE_PATH", "value": "/elsewhere"})
    assert bench.run(["true"], variables=given) == Outcome(Reason.SCRIPT)
    assert 'the GIT_CLONE_PATH="/elsewhere" has to be within' in bench.plain


def test_an_engine_that_is_not_there(bench: Bench) -> None:
    bench.engine.path.unlink()
    assert bench.run(["true"]) == Outcome(Reason.SYSTEM)
    assert bench.plain.count("cannot talk to the Docker daemon") >= 3
