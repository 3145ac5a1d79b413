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

from provisioner.hosts.script import LOCKED_STATUS, PATH, STATE_DIR, MakeDir, Part, RemoveFile, Shell, WriteFile

UNIT: Final = "nixprov-switch.service"
NO_REVISION: Final = "none"
DIR: Final = f"{STATE_DIR}/switch"
NOT_ACTIVE_STATUS: Final = 83

REFUSED: Final = 23
UNITS_FAILED: Final = 4
UNCONFIRMED_STATUS: Final = 84


@dataclass(frozen=True, slots=True)
class SwitchResult:
    """How a switch ended, or how far it came.

    `phase` it was in, `status` of that phase (0: done), the profile's generation afterwards; `waits`: the new system is
    active and the host goes back to the old one unless somebody confirms; `failed`: units that were failed at the end.
    """

    phase: str
    status: int
    generation: int | None
    waits: bool = False
    why: str = ""
    failed: tuple[str, ...] = ()

    @property
    def is_done(self) -> bool:
        return self.phase in ("activate", "commit") and self.status == 0

    @property
    def only_units_failed(self) -> bool:
        """The system is active, but some unit is not: ours or anybody's (switch-to-configuration's exit 4)."""
        return self.phase == "activate" and self.status == UNITS_FAILED

    def explain(self) -> str:
        if self.phase == "activate" and self.status == UNITS_FAILED:
            return f"units failed after the activation: {', '.join(self.failed) or 'see systemctl --failed'}"
        if self.phase == "activate":
            return _ACTIVATION.get(self.status, f"switch-to-configuration ended with status {self.status}")
        return EXPIRED if self.why == "expired" else _ENDED.get(self.phase, f"the switch ended in phase {self.phase}")


EXPIRED: Final = "nobody confirmed the new system in time, so the host went back to the old one"
_ENDED: Final = {
    "build": "the configuration does not evaluate or build; nothing was activated",
    "check": "the built system does not contain what was pushed; nothing was activated",
    "back": "the switch was ended, and the host went back to the old system",
    "profile": "the system profile could not be set",
    "rollback": "the system profile could not be set back",
    "commit": "the system profile or the boot loader could not be set",
    "lost": "the switch ended without a result: it was killed, or the machine went down",
}
_ACTIVATION: Final = {
    2: "the activation script failed",
    3: "systemd could not be reloaded by the new system",
    REFUSED: "the new system was refused before its activation: a pre-switch check or the boot loader failed",
    100: "the new system cannot be activated without a reboot",
    101: "switch-to-configuration crashed half-way (status 101)",
}


@cache
def _program() -> bytes:
    return files("provisioner.hosts").joinpath("switch.sh").read_bytes()


def push(undo: bytes | None = None) -> tuple[Part, ...]:
    """Parts that push the program, and with `undo` (the script that gives the files back) arm the next boot with it.

    They stand before the parts that change files: a machine that loses power in between knows the way back.
    """
    program = (MakeDir(STATE_DIR, 0o700), MakeDir(DIR, 0o700), WriteFile(f"{DIR}/run.sh", _program(), 0o700))
    if undo is None:
        return (*program, RemoveFile(f"{DIR}/undo.sh"))
    return (*program, WriteFile(f"{DIR}/undo.sh", undo, 0o700), Shell(_ARM))


# systemd reads units there on every release (systemd.unit(5)), and on NixOS nothing else writes there (ADR 0016). A
# machine on which we cannot either (an /etc that is read-only) goes without: then the next run sees to the files.
_CONTROL: Final = "/etc/systemd/system.control"
AT_BOOT: Final = f"{_CONTROL}/nixprov-back.service"
_ARM: Final = f"""\
cat /proc/sys/kernel/random/boot_id > {DIR}/boot
umask 022
if mkdir -p {_CONTROL}/multi-user.target.wants 2>/dev/null; then
  cat > {_CONTROL}/nixprov-back.service << 'END'
[Unit]
Description=nixprov: give back what a switch that was cut off has left in /etc/nixos
ConditionPathExists={DIR}/undo.sh
Before=sshd.service nixos-upgrade.service

[Service]
Type=oneshot
ExecStart=/bin/sh {DIR}/run.sh boot
END
  ln -sf ../nixprov-back.service {_CONTROL}/multi-user.target.wants/
  sync {DIR}/boot {_CONTROL}/nixprov-back.service {_CONTROL}/multi-user.target.wants {_CONTROL}
fi
umask 077"""
# For a machine that has lost what would have done it: run.sh does the same when a switch has come to its end.
DISARM: Final = f"""\
if [ -e {_CONTROL}/nixprov-back.service ]; then
  rm -f {_CONTROL}/nixprov-back.service {_CONTROL}/multi-user.target.wants/nixprov-back.service
  rmdir {_CONTROL}/multi-user.target.wants {_CONTROL} 2>/dev/null || :
  systemctl daemon-reload || :
fi"""


def start(verb: str, argument: str, *, confirm_s: int = 0, crash: str = "") -> Part:
    """The part that starts the program as UNIT, refused (LOCKED_STATUS) while another one runs.

    `confirm_s`: seconds that the new system is given to be confirmed before the host goes back by itself; 0: it is made
    the boot default at once. `crash` is for tests: where to die.
    """
    return Shell(
        _START.format(
            unit=UNIT,
            status=LOCKED_STATUS,
            dir=DIR,
            argv=shlex.join([verb, argument, str(confirm_s)]),
            crash=f"--setenv=NIXPROV_CRASH={shlex.quote(crash)} " if crash else "",
        )
    )


# A unit that ended stays known (RemainAfterExit) until the next start, so its status can be asked at any time later.
_START = """\
case $(systemctl show -p SubState --value {unit}) in
  running | start* | stop* | final*) fail {status} 'another switch is running: {unit}' ;;
esac
systemctl stop {unit} 2>/dev/null || :
systemctl reset-failed {unit} 2>/dev/null || :
rm -f {dir}/result {dir}/failed {dir}/open {dir}/confirmed {dir}/aborted {dir}/expired
systemd-run --quiet --unit={unit} --service-type=exec --property=RemainAfterExit=yes --property=TimeoutStopSec=1800 \\
  --property='ExecStopPost=/bin/sh {dir}/run.sh settle' {crash}\\
  --description='nixprov: build and switch' /bin/sh {dir}/run.sh {argv} < /dev/null"""


def follow(cursor: str) -> bytes:
    """A script that streams the unit's log from `cursor` on and ends with it, or when it waits for a verdict.

    Its answer is lines: `log TEXT`, `cursor CURSOR`, `failed UNIT ...`, and last `end SUBSTATE PHASE STATUS GENERATION
    WHY`.
    """
    after = shlex.quote(f"--after-cursor={cursor}") if cursor else "''"
    return _script(_FOLLOW).replace("@AFTER@", after).encode()


def _script(text: str) -> str:
    text = text.replace("@PATH@", PATH).replace("@SYSTEMD@", _SYSTEMD)
    return text.replace("@UNIT@", UNIT).replace("@DIR@", DIR).replace("@STATUS@", str(UNCONFIRMED_STATUS))


# While systemd executes itself anew, as in a switch to another one, it does not answer: that is no end of the unit.
_SYSTEMD: Final = """\
substate() {
  tries=50
  while [ "$tries" -gt 0 ]; do
    tries=$((tries - 1))
    if found=$(systemctl show -p SubState --value @UNIT@ 2>/dev/null) && [ -n "$found" ]; then break; fi
    sleep 0.2
  done
  echo "$found"
}
await_end() {
  while :; do
    case $(substate) in
      running | start* | stop* | final*) sleep 0.1 ;;
      *) break ;;
    esac
  done
}
"""

_FOLLOW = """\
@PATH@@SYSTEMD@after=@AFTER@ invocation=
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
waits() {
  phase='' status=''
  [ ! -e @DIR@/open ] || read -r phase status _ < @DIR@/result
  [ "$phase" = activate ] && [ "$status" != running ]
}
while :; do
  state=$(substate)
  [ -n "$invocation" ] || invocation=$(systemctl show -p InvocationID --value @UNIT@)
  case $state in
    running | start* | stop* | final*) ! waits || state=waits ;;
  esac
  case $state in
    running | start* | stop* | final*) show ;;
    *) journalctl --sync 2>/dev/null || :; show; break ;;
  esac
  sleep 0.2
done
[ ! -s @DIR@/failed ] || echo "failed $(tr '\\n' ' ' < @DIR@/failed)"
echo "end ${state:-unknown} $(cat @DIR@/result 2>/dev/null || echo lost 1)"
"""


@dataclass(frozen=True, slots=True)
class Followed:
    """What one line of the follower said: a log line, a cursor, the failed units, or the end."""

    log: str | None = None
    cursor: str | None = None
    failed: tuple[str, ...] | None = None
    result: SwitchResult | None = None

    @classmethod
    def parse(cls, line: str) -> Followed:
        kind, _, rest = line.partition(" ")
        match kind:
            case "log":
                return cls(log=rest)
            case "cursor":
                return cls(cursor=rest)
            case "failed":
                return cls(failed=tuple(rest.split()))
            case "end":
                return cls(result=_result(rest.split()))
            case _:
                return cls(log=line)


def _result(words: Sequence[str]) -> SwitchResult:
    """`SUBSTATE PHASE STATUS [GENERATION] [WHY]`; a status of "running" after the end means that it was killed."""
    substate, phase, status, generation, why, *_ = [*words, *[""] * 5]
    return SwitchResult(
        phase or "lost",
        int(status) if status.isdigit() else 1,
        int(generation) if generation.isdigit() else None,
        waits=substate == "waits",
        why=why if generation.isdigit() else generation,
    )


def stage(result: str) -> str:
    """For people: where a switch is that goes on, from the one line of its result on disk."""
    phase, status, *_ = [*result.split(), "", ""]
    if phase == "activate":
        return "it activates the new system" if status == "running" else "the new system runs and waits to be confirmed"
    return _STAGES.get(phase, "it begins")


_STAGES: Final = {
    "build": "it builds",
    "commit": "the new system is made the one that boots",
    "back": "it goes back to the old system",
    "rollback": "it goes back to the old system",
}


def confirm(units: Sequence[str], limit_s: int) -> str:
    """A guard for the last transaction: `units` stay active, and the new system becomes the one that boots.

    NOT_ACTIVE_STATUS with the unit's last log lines when one does not come up within `limit_s`; UNCONFIRMED_STATUS when
    the host had gone back before, or does.
    """
    return active(units, limit_s) + _script(_COMMIT)


def active(units: Sequence[str], limit_s: int) -> str:
    """The first half of `confirm`: shell that fails unless `units` are active, and stay it."""
    if not units:
        return ""
    names = " ".join(shlex.quote(unit) for unit in units)
    went_back = {"dir": DIR, "back": UNCONFIRMED_STATUS, "expired": EXPIRED}
    return _ACTIVE.format(units=names, limit=limit_s * 5, status=NOT_ACTIVE_STATUS, **went_back)


# Active for two seconds, ten when it had to be started again: one that starts and dies is active too, for a moment.
_ACTIVE = """\
tries={limit}
steady() {{
  systemctl is-active --quiet "$1" || return 1
  since=$(systemctl show -p ActiveEnterTimestampMonotonic --value "$1")
  now=$(cut -d' ' -f1 /proc/uptime | tr -d .)
  case $(systemctl show -p NRestarts --value "$1") in 0 | '') needed=200 ;; *) needed=1000 ;; esac
  [ $((now - since / 10000)) -ge "$needed" ]
}}
# A host that has waited in vain stops them itself.
went_back() {{ [ -e {dir}/expired ] || grep -qs '^back .*expired$' {dir}/result; }}
for unit in {units}; do
  until steady "$unit"; do
    ! went_back || fail {back} '{expired}'
    tries=$((tries - 1))
    if [ "$tries" -le 0 ]; then
      journalctl --sync 2>/dev/null || :
      journalctl --quiet --no-pager --output=cat --lines=8 --unit="$unit" >&2
      restarts=$(systemctl show -p NRestarts --value "$unit")
      fail {status} "$unit is $(systemctl is-active "$unit" || :), restarted $restarts times"
    fi
    sleep 0.2
  done
done
"""

# A host that is going back already needs the lock of this transaction for its files.
_COMMIT = """\
@SYSTEMD@mv @DIR@/open @DIR@/confirmed 2>/dev/null || :
{ [ ! -e @DIR@/expired ] && [ ! -e @DIR@/aborted ]; } || flock -u 9 2>/dev/null || :
await_end
phase=lost status=1
[ ! -e @DIR@/result ] || read -r phase status _ < @DIR@/result || :
case "$phase $status" in
  'commit 0' | 'activate 0' | 'activate 4') ;;
  back*) fail @STATUS@ 'the host had gone back to the old system before it was told to keep the new one' ;;
  *)
    journalctl --quiet --no-pager --output=cat --lines=6 --unit=@UNIT@ >&2
    fail @STATUS@ "the profile or the boot loader could not be set ($phase: $status)"
    ;;
esac"""


def abort() -> bytes:
    """A script that gives the running switch up and waits until the host is back; an activation is never cut short."""
    return _script(_ABORT).encode()


_ABORT = """\
@SYSTEMD@if ! mv @DIR@/open @DIR@/aborted 2>/dev/null; then
  case $(cat @DIR@/result 2>/dev/null) in
    'build '*) systemctl stop @UNIT@ || : ;;
  esac
fi
await_end
"""
