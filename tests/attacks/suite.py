"""Runs the attacks as CI jobs on a host of the lab, through the plain daemon's socket or through ours."""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nixprov_lab.running import Lab

from tests.attacks.case import Case, Door, Outcome, Result
from tests.attacks.shell import PREPARE

JOB_S = 180
UNIT = "nixprov-runner-default.service"

# The set-up of the module of 2018, with today's image: the host daemon's socket and the database in every container, which
# has what Docker gives to each.
# A runner with our own one's identity takes its place.
PLAIN = r"""
set -e
mkdir -p /root/plain && chmod 0700 /root/plain
sed -e 's#/run/nixprov/jobs/nix:/nix/var/nix/daemon-socket:ro#/nix/var/nix/daemon-socket:/nix/var/nix/daemon-socket:ro#' \
    -e 's#"/nix/store:/nix/store:ro"#"/nix/store:/nix/store:ro", "/nix/var/nix/db:/nix/var/nix/db:ro"#' \
    -e '/security_opt = /d; s#^cap_drop = .*#cap_add = ["AUDIT_WRITE", "MKNOD", "NET_RAW"]#' \
    /var/lib/nixprov-runner/default/config.toml > /root/plain/config.toml
grep -q /nix/var/nix/daemon-socket:/nix/var/nix/daemon-socket /root/plain/config.toml
grep -q '^cap_add = ' /root/plain/config.toml
cp /var/lib/nixprov-runner/default/.runner_system_id /root/plain/
runner=$(systemctl cat @UNIT@ | sed -n 's/^ExecStart=\([^ ]*\) .*/\1/p')
systemctl stop @UNIT@
systemd-run --quiet --collect --unit=attack-plain-runner --setenv=HOME=/root/plain \
  "$runner" run --config /root/plain/config.toml --working-directory /root/plain
"""


def open_plain_door(lab: Lab, host: str) -> None:
    lab.run(host, ["bash", "-c", PLAIN.replace("@UNIT@", UNIT)])


@dataclass(frozen=True)
class Suite:
    """One door of one host. `run` gives the results as they come, in no order."""

    lab: Lab
    host: str
    door: Door
    stamp: str

    @classmethod
    def start(cls, lab: Lab, host: str, door: Door) -> Suite:
        return cls(lab, host, door, secrets.token_hex(6))

    def run(self, cases: Iterable[Case]) -> Iterator[Result]:
        """Those that disturb others come last, each alone."""
        common = self._shell(PREPARE)
        all_cases = list(cases)
        yield from self._at_once([case for case in all_cases if not case.disturbs], common)
        for case in all_cases:
            if case.disturbs:
                yield from self._at_once([case], common)

    def _at_once(self, cases: Iterable[Case], common: str) -> Iterator[Result]:
        jobs = []
        for case in cases:
            variables = common + self._shell(case.prepare)
            jobs.append((case, variables, self.lab.gitlab.queue_job(self._script(case, variables), host=self.host)))
        for case, variables, job_id in jobs:
            job = self.lab.gitlab.wait_for_job(job_id, timeout_s=JOB_S)
            yield Result(case, self.door, self._outcome(case, variables, job.trace), job.seconds or 0, job.trace)

    def _script(self, case: Case, variables: str) -> str:
        # A line of its own tells a job whose attack was refused from one that never ran.
        return f"set +e\nstamp={self.stamp}\n{variables}\nmkdir work && cd work\n{case.job}\necho the-end-of-the-script\ntrue\n"

    def _outcome(self, case: Case, variables: str, trace: str) -> Outcome:
        assert "the-end-of-the-script" in trace, f"{case.name}: the job did not run to its end:\n{trace}"
        assert re.search(case.tried, trace, re.MULTILINE), f"{case.name}: the attack was not made:\n{trace}"
        if case.marker:
            found = re.search(rf"^(?:\S+Z \w+ |[^$\n]*> )?{case.marker}(-{self.stamp})?\s*$", trace, re.MULTILINE)
            return Outcome.OPEN if found else Outcome.CLOSED
        look = f"stamp={self.stamp}\n{variables}\n{case.seen}"
        done = self.lab.run(self.host, ["bash", "-c", look], check=False)
        return Outcome.OPEN if done.returncode == 0 else Outcome.CLOSED

    def _shell(self, text: str) -> str:
        """Run it on the host; what it printed as NAME=VALUE, quoted for a shell."""
        if not text:
            return ""
        done = self.lab.run(self.host, ["bash", "-c", f"stamp={self.stamp}\n{text}"])
        pairs = [line.split("=", 1) for line in done.stdout.splitlines() if "=" in line]
        return "".join(f"{name}={shlex.quote(value)}\n" for name, value in pairs)
