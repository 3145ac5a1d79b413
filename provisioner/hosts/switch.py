"""The switch: started in a transient unit, followed from anywhere, its result read from systemd and from disk.

`switch.sh` beside this file does the work on the host. Here are the scripts that push and start it, follow it, confirm
what came of it, and the reading of their answers. Why a unit without pipes: NixOS/nixpkgs#462179 (a broken pipe stops
switch-to-configuration half-way); exit codes: NixOS manual, "Switching", and switch-to-configuration's own text.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from provisioner.hosts.script import LOCKED_STATUS, STATE_DIR, MakeDir, Part, Shell, WriteFile

UNIT: Final = "nixprov-switch.service"
NO_REVISION: Final = "none"
DIR: Final = f"{STATE_DIR}/switch"
NOT_ACTIVE_STATUS: Final = 83

BUILD_FAILED: Final = 20
HOOK_UNSEEN: Final = 21
PROFILE_FAILED: Final = 22
UNITS_FAILED: Final = 4


@dataclass(frozen=True, slots=True)
class SwitchResult:
    """How a switch ended: `phase` it was in, `status` of that phase (0: done), the profile's generation afterwards."""

    phase: str
    status: int
    generation: int | None

    @property
    def is_done(self) -> bool:
        return self.phase == "activate" and self.status == 0

    @property
    def only_units_failed(self) -> bool:
        """The system is active, but some unit is not: ours or anybody's (switch-to-configuration's exit 4)."""
        return self.phase == "activate" and self.status == UNITS_FAILED

    @property
    def changed_the_system(self) -> bool:
        return self.phase not in ("build", "check")

    def explain(self) -> str:
        match self.phase, self.status:
            case "build", _:
                return "the configuration does not evaluate or build; nothing was activated"
            case "check", _:
                return "the built system does not contain what was pushed; nothing was activated"
            case "profile" | "rollback", _:
                return "the system profile could not be set"
            case _, 2:
                return "the activation script failed"
            case _, 4:
                return "units failed after the activation"
            case _, 100:
                return "the new system cannot be activated without a reboot"
            case _:
                return f"switch-to-configuration ended with status {self.status}"


@cache
def _program() -> bytes:
    return files("provisioner.hosts").joinpath("switch.sh").read_bytes()


def start(verb: str, argument: str) -> tuple[Part, ...]:
    """Parts that push the program and start it as UNIT, refused (LOCKED_STATUS) while another one runs."""
    return (
        MakeDir(STATE_DIR, 0o700),
        MakeDir(DIR, 0o700),
        WriteFile(f"{DIR}/run.sh", _program(), 0o700),
        Shell(_START.format(unit=UNIT, status=LOCKED_STATUS, dir=DIR, argv=shlex.join([verb, argument]))),
    )


# A unit that ended stays known (RemainAfterExit) until the next start, so its status can be asked at any time later.
_START = """\
case $(systemctl show -p SubState --value {unit}) in
  running | start*) fail {status} 'another switch is running: {unit}' ;;
esac
systemctl stop {unit} 2>/dev/null || :
systemctl reset-failed {unit} 2>/dev/null || :
rm -f {dir}/result
systemd-run --quiet --unit={unit} --service-type=exec --property=RemainAfterExit=yes \\
  --description='nixprov: build and switch' /bin/sh {dir}/run.sh {argv} < /dev/null"""


def follow(cursor: str) -> bytes:
    """A script that streams the unit's log from `cursor` on and ends with it.

    Its answer is lines: `log TEXT`, `cursor CURSOR`, and last `end SUBSTATE PHASE STATUS GENERATION`.
    """
    after = shlex.quote(f"--after-cursor={cursor}") if cursor else "''"
    return _FOLLOW.replace("@UNIT@", UNIT).replace("@DIR@", DIR).replace("@AFTER@", after).encode()


_FOLLOW = """\
export LC_ALL=C PATH="/run/wrappers/bin:/run/current-system/sw/bin:$PATH"
after=@AFTER@
invocation=$(systemctl show -p InvocationID --value @UNIT@)
news() {
  journalctl --quiet --no-pager --show-cursor --output=cat "_SYSTEMD_INVOCATION_ID=$invocation" ${after:+"$after"} |
    sed -e 's/^-- cursor: /cursor /;t' -e 's/^/log /'
}
show() {
  lines=$(news)
  [ -z "$lines" ] || printf '%s\\n' "$lines"
  last=$(printf '%s\\n' "$lines" | sed -n 's/^cursor //p' | tail -n 1)
  [ -z "$last" ] || after="--after-cursor=$last"
}
while :; do
  state=$(systemctl show -p SubState --value @UNIT@)
  case $state in
    running | start*) show ;;
    *) journalctl --sync 2>/dev/null || :; show; break ;;
  esac
  sleep 0.2
done
echo "end $state $(cat @DIR@/result 2>/dev/null || echo lost 1)"
"""


@dataclass(frozen=True, slots=True)
class Followed:
    """What one line of the follower said: a log line, a cursor, or the end."""

    log: str | None = None
    cursor: str | None = None
    result: SwitchResult | None = None

    @classmethod
    def parse(cls, line: str) -> Followed:
        kind, _, rest = line.partition(" ")
        match kind:
            case "log":
                return cls(log=rest)
            case "cursor":
                return cls(cursor=rest)
            case "end":
                return cls(result=_result(rest.split()))
            case _:
                return cls(log=line)


def _result(words: Sequence[str]) -> SwitchResult:
    """`SUBSTATE PHASE STATUS [GENERATION]`; a status of "running" after the end means that it was killed."""
    _, phase, status, generation, *_ = [*words, *[""] * 4]
    return SwitchResult(
        phase or "lost", int(status) if status.isdigit() else 1, int(generation) if generation.isdigit() else None
    )


def confirm(units: Sequence[str], limit_s: int) -> str:
    """A guard for the last transaction: `units` are active within `limit_s`, or NOT_ACTIVE_STATUS and their logs."""
    names = " ".join(shlex.quote(unit) for unit in units)
    return _CONFIRM.format(units=names, limit=limit_s * 5, status=NOT_ACTIVE_STATUS)


_CONFIRM = """\
tries={limit}
for unit in {units}; do
  until systemctl is-active --quiet "$unit"; do
    tries=$((tries - 1))
    if [ "$tries" -le 0 ]; then
      journalctl --quiet --no-pager --output=cat --lines=8 --unit="$unit" >&2
      fail {status} "$unit is $(systemctl is-active "$unit")"
    fi
    sleep 0.2
  done
done"""
