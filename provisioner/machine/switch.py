"""The switch: started in a transient unit, followed from anywhere, its result read from systemd and from disk.

`switch.sh` beside this file does the work on the host. Here are the scripts that push, start, follow and confirm it,
and the reading of their answers. The unit has no pipes, because a broken pipe stops switch-to-configuration half-way
(NixOS/nixpkgs#462179). Exit codes: NixOS manual, "Switching", and switch-to-configuration's own text.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Final

from provisioner.machine.transaction import LOCKED_STATUS, PATH, STATE_DIR, MakeDir, Part, RemoveFile, Shell, WriteFile

UNIT: Final = "nixprov-switch.service"
NO_REVISION: Final = "none"
DIR: Final = f"{STATE_DIR}/switch"
NOT_ACTIVE_STATUS: Final = 83

REFUSED: Final = 23
BUSY: Final = 24
UNITS_FAILED: Final = 4
UNCONFIRMED_STATUS: Final = 84


@dataclass(frozen=True, slots=True)
class SwitchResult:
    """The end of a switch, or its progress.

    `phase` is the last one, `status` that of the phase (0: done), `generation` the profile's afterwards. `waits`: the
    new system is active, and the host goes back to the old one without a confirmation. `tries_on`: the way back
    failed with `status`, and the host tries again. `why` is the word of `switch.sh` for a way back. `holder` holds the
    lock of switch-to-configuration, in words. `failed` are the units that were failed at the end.
    """

    phase: str
    status: int
    generation: int | None
    waits: bool = False
    tries_on: bool = False
    why: str = ""
    holder: str = ""
    failed: tuple[str, ...] = ()

    @property
    def is_done(self) -> bool:
        return self.phase in ("activate", "commit") and self.status == 0

    @property
    def only_units_failed(self) -> bool:
        """Whether the system is active, but some unit, ours or not, has failed (switch-to-configuration's exit 4)."""
        return self.phase == "activate" and self.status == UNITS_FAILED

    @property
    def is_busy(self) -> bool:
        """Whether somebody else's switch holds, or held, the lock of switch-to-configuration."""
        return self.status in (BUSY, _EAGAIN) if self.tries_on else (self.phase, self.status) == ("activate", BUSY)

    def explain(self) -> str:
        if self.tries_on:
            return self._explain_trying()
        if self.phase == "activate" and self.status == UNITS_FAILED:
            return f"units failed after the activation: {', '.join(self.failed) or 'see systemctl --failed'}"
        if self.phase == "activate":
            return _ACTIVATION.get(self.status, f"switch-to-configuration ended with status {self.status}")
        if self.phase == "back":
            return WENT_BACK.get(self.why, "the switch was ended, and the host went back to the old system")
        return _ENDED.get(self.phase, f"the switch ended in phase {self.phase}")

    def _explain_trying(self) -> str:
        cause = f"switch-to-configuration ended with status {self.status}"
        if self.is_busy:
            cause = f"{_named(self.holder)} holds the lock of switch-to-configuration"
        return f"the host is still going back to the old system and tries again by itself: {cause}"


def _named(holder: str) -> str:
    return f"somebody else's switch ({holder})" if holder else "somebody else's switch"


# The status of switch-to-configuration when its lock is held (NixOS 25.05 and newer): the errno.
_EAGAIN: Final = 11
EXPIRED: Final = "nobody confirmed the new system in time, so the host went back to the old one"
# By the word WHY in the result of switch.sh.
WENT_BACK: Final = {
    "expired": EXPIRED,
    "busy": "somebody else's switch did not end, so the new system is not kept: the host goes back to the old one",
    "overtaken": "somebody else's switch replaced the new system before it was kept: the files are given back",
}
_ENDED: Final = {
    "build": "the configuration does not evaluate or build; nothing was activated",
    "check": "the built system does not contain what was pushed; nothing was activated",
    "profile": "the system profile could not be set",
    "rollback": "the system profile could not be set back",
    "commit": "the system profile or the boot loader could not be set",
    "lost": "the switch ended without a result: it was killed, or the machine went down",
}
_ACTIVATION: Final = {
    2: "the activation script failed",
    3: "systemd could not be reloaded by the new system",
    REFUSED: "the new system was refused before its activation: a pre-switch check or the boot loader failed",
    BUSY: "somebody else's switch holds the lock of switch-to-configuration and did not end; nothing was activated",
    100: "the new system cannot be activated without a reboot",
    101: "switch-to-configuration crashed half-way (status 101)",
}


@cache
def _program() -> bytes:
    return files("provisioner.machine").joinpath("switch.sh").read_bytes()


def push(undo: bytes | None = None) -> tuple[Part, ...]:
    """Parts that push the program. With `undo`, the script that gives the files back, they also arm the next boot.

    They stand before the parts that change files, so a machine that loses power in between knows the way back.
    """
    program = (MakeDir(STATE_DIR, 0o700), MakeDir(DIR, 0o700), WriteFile(f"{DIR}/run.sh", _program(), 0o700))
    if undo is None:
        return (*program, RemoveFile(f"{DIR}/undo.sh"))
    return (*program, WriteFile(f"{DIR}/undo.sh", undo, 0o700), Shell(_ARM))


# systemd reads units there on every release (systemd.unit(5)), and on NixOS nothing else writes there (ADR 0016). If
# /etc is read-only, neither can we. Then there is no unit, and the next run gives the files back.
_CONTROL: Final = "/etc/systemd/system.control"
AT_BOOT: Final = f"{_CONTROL}/nixprov-back.service"
_ARM: Final = f"""\
cat /proc/sys/kernel/random/boot_id > {DIR}/boot
umask 022
if mkdir -p {_CONTROL}/multi-user.target.wants 2>/dev/null; then
  cat > {_CONTROL}/nixprov-back.service << 'END'
[Unit]
Description=nixprov: give back what a switch that was cut off has left of files
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
# For a machine without run.sh, which otherwise does the same at the end of a switch.
DISARM: Final = f"""\
if [ -e {_CONTROL}/nixprov-back.service ]; then
  rm -f {_CONTROL}/nixprov-back.service {_CONTROL}/multi-user.target.wants/nixprov-back.service
  rmdir {_CONTROL}/multi-user.target.wants {_CONTROL} 2>/dev/null || :
  systemctl daemon-reload || :
fi"""


# For a transaction, which has a quarter of an hour. It waits for somebody else's switch, as run.sh does.
_LOCK: Final = "/run/nixos/switch-to-configuration.lock"
BOOT_MENU: Final = f"""\
  left=300
  while :; do
    status=0
    "$profile/bin/switch-to-configuration" boot >/dev/null </dev/null || status=$?
    [ "$status" = {_EAGAIN} ] && [ "$left" -gt 0 ] || break
    flock --timeout 10 {_LOCK} sleep 0 || :
    left=$((left - 10))
  done
  [ "$status" != {_EAGAIN} ] ||
    fail "$status" "somebody else's switch holds {_LOCK}: wait for it to end, then run again"
  [ "$status" = 0 ]"""


def start(verb: str, argument: str, *build: str, confirm_s: int = 0, crash: str = "") -> Part:
    """The part that starts the program as UNIT, refused (LOCKED_STATUS) while another one runs.

    `build` is the command that leaves the new system as ./result. After `confirm_s` seconds without a confirmation
    the host goes back by itself. With 0 the new system becomes the boot default at once. `crash` is for tests: the
    point at which to die.
    """
    return Shell(
        _START.format(
            unit=UNIT,
            alive=_ALIVE,
            status=LOCKED_STATUS,
            dir=DIR,
            argv=shlex.join([verb, argument, str(confirm_s), *build]),
            crash=f"--setenv=NIXPROV_CRASH={shlex.quote(crash)} " if crash else "",
        )
    )


# Substates of a unit that has not ended. systemd starts a killed one again.
_ALIVE: Final = "running | start* | stop* | final* | auto-restart*"

# An ended unit stays known (RemainAfterExit) until the next start, so its status can be asked at any time later.
# systemd starts a killed unit again, even in its settlement: the machine never gives up the way back.
_START = """\
case $(systemctl show -p SubState --value {unit}) in
  {alive}) fail {status} 'another switch is running: {unit}' ;;
esac
systemctl stop {unit} 2>/dev/null || :
systemctl reset-failed {unit} 2>/dev/null || :
rm -f {dir}/result {dir}/failed {dir}/open {dir}/confirmed {dir}/aborted {dir}/expired {dir}/leave {dir}/old {dir}/menu
systemd-run --quiet --unit={unit} --service-type=exec --property=RemainAfterExit=yes --property=TimeoutStopSec=1800 \\
  --property=Restart=on-abnormal --property=RestartSec=3 \\
  --property='ExecStopPost=/bin/sh {dir}/run.sh settle' {crash}\\
  --description='nixprov: build and switch' /bin/sh {dir}/run.sh {argv} < /dev/null"""


def follow(cursor: str) -> bytes:
    """A script that streams the unit's log from `cursor` on. It ends with the unit, or when that waits for a verdict.

    Its answer is lines: `log TEXT`, `cursor CURSOR`, `failed UNIT ...`, and last `end SUBSTATE PHASE STATUS GENERATION
    WHY HOLDER`. It also ends when the host cannot go back yet and tries on.
    """
    after = shlex.quote(f"--after-cursor={cursor}") if cursor else "''"
    return _script(_FOLLOW).replace("@AFTER@", after).encode()


def _script(text: str) -> str:
    text = text.replace("@PATH@", PATH).replace("@SYSTEMD@", _SYSTEMD).replace("@ALIVE@", _ALIVE)
    return text.replace("@UNIT@", UNIT).replace("@DIR@", DIR).replace("@STATUS@", str(UNCONFIRMED_STATUS))


# While systemd executes itself anew, as in a switch to a new version, it does not answer. The unit has not ended.
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
tries_on() { grep -qs '^[a-z]* tries:' @DIR@/result; }
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
  [ "$phase" = activate ] && [ "$status" != running ] && [ "$status" != waiting ]
}
while :; do
  state=$(substate)
  [ -n "$invocation" ] || invocation=$(systemctl show -p InvocationID --value @UNIT@)
  case $state in
    @ALIVE@) if waits; then state=waits; elif tries_on; then state=tries; fi ;;
  esac
  case $state in
    @ALIVE@) show ;;
    *) journalctl --sync 2>/dev/null || :; show; break ;;
  esac
  sleep 0.2
done
[ ! -s @DIR@/failed ] || echo "failed $(tr '\\n' ' ' < @DIR@/failed)"
echo "end ${state:-unknown} $(cat @DIR@/result 2>/dev/null || echo lost 1)"
"""


@dataclass(frozen=True, slots=True)
class Followed:
    """One line of the follower: a log line, a cursor, the failed units, or the end."""

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
    """Read `SUBSTATE PHASE STATUS [GENERATION] [WHY] [HOLDER ...]`. "running" after the end means a killed unit."""
    substate, phase, status, *rest = [*words, *[""] * max(0, 3 - len(words))]
    generation, rest = (rest[0], rest[1:]) if rest and rest[0].isdigit() else ("", rest)
    number = status.removeprefix(_TRIES)
    return SwitchResult(
        phase or "lost",
        int(number) if number.isdigit() else 1,
        int(generation) if generation else None,
        waits=substate == "waits",
        tries_on=status.startswith(_TRIES),
        why=rest[0] if rest else "",
        holder=" ".join(rest[1:]),
    )


_TRIES: Final = "tries:"


def trying(result: str) -> SwitchResult | None:
    """The result of a host that could not go back yet, from its line on disk; None for others."""
    found = _result(["running", *result.split()])
    return found if found.tries_on else None


def stage(result: str) -> str:
    """The progress of a running switch, for people, from the one line of its result on disk."""
    phase, status, *_ = [*result.split(), "", ""]
    if found := trying(result):
        return found.explain()
    if status == "waiting":
        waits = f"{_named(_result(['running', *result.split()]).holder)} has to end first"
        return f"{_STAGES.get(phase, 'it activates the new system')}: {waits}"
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

    It fails with NOT_ACTIVE_STATUS and the unit's last log lines when one is not active within `limit_s` seconds. It
    fails with UNCONFIRMED_STATUS when the host has gone back, or does so now.
    """
    return active(units, limit_s) + _script(_COMMIT)


def active(units: Sequence[str], limit_s: int) -> str:
    """The first half of `confirm`: shell that fails unless `units` are active and stay so."""
    if not units:
        return ""
    names = " ".join(shlex.quote(unit) for unit in units)
    went_back = {"dir": DIR, "back": UNCONFIRMED_STATUS, "expired": EXPIRED}
    return _ACTIVE.format(units=names, limit=limit_s * 5, status=NOT_ACTIVE_STATUS, **went_back)


# Active for two seconds, or ten after a restart: a dying unit is active for a moment, too.
_ACTIVE = """\
tries={limit}
steady() {{
  systemctl is-active --quiet "$1" || return 1
  since=$(systemctl show -p ActiveEnterTimestampMonotonic --value "$1")
  now=$(cut -d' ' -f1 /proc/uptime | tr -d .)
  case $(systemctl show -p NRestarts --value "$1") in 0 | '') needed=200 ;; *) needed=1000 ;; esac
  [ $((now - since / 10000)) -ge "$needed" ]
}}
# A host that waited in vain stops the units itself.
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

# A host that goes back needs the lock of this transaction for its files. It may go back already, or only now because
# it cannot keep the new system.
_COMMIT = """\
@SYSTEMD@mv @DIR@/open @DIR@/confirmed 2>/dev/null || :
phase=
while :; do
  { [ "$phase" != back ] && [ ! -e @DIR@/expired ] && [ ! -e @DIR@/aborted ]; } || flock -u 9 2>/dev/null || :
  state=$(substate) phase=lost status=1 rest=
  [ ! -e @DIR@/result ] || read -r phase status rest < @DIR@/result || :
  case $state in
    @ALIVE@) ! tries_on || break ;;
    *) break ;;
  esac
  sleep 0.1
done
case "$phase $status $rest " in
  'commit 0 '* | 'activate 0 '* | 'activate 4 '*) ;;
@WENT_BACK@  back*) fail @STATUS@ 'the host had gone back to the old system before it was told to keep the new one' ;;
  *)
    journalctl --quiet --no-pager --output=cat --lines=6 --unit=@UNIT@ >&2
    fail @STATUS@ "the profile or the boot loader could not be set ($phase: $status)"
    ;;
esac""".replace(
    "@WENT_BACK@",
    "".join(f"  back*' {why} '*) fail @STATUS@ {shlex.quote(WENT_BACK[why])} ;;\n" for why in ("busy", "overtaken")),
)


def abort() -> bytes:
    """A script that gives the running switch up. It waits until the host is back, or tries on.

    An activation is never cut short. The answer is lines `log TEXT`.
    """
    return _script(_ABORT).encode()


_ABORT = """\
@SYSTEMD@if ! mv @DIR@/open @DIR@/aborted 2>/dev/null; then
  case $(cat @DIR@/result 2>/dev/null) in
    'build '*) systemctl stop @UNIT@ || : ;;
  esac
fi
told=
while :; do
  case $(substate) in
    @ALIVE@) ! tries_on || break ;;
    *) break ;;
  esac
  waits=$(sed -n 's/^[a-z]* waiting [0-9]* *[a-z-]* *//p' @DIR@/result 2>/dev/null)
  if grep -qs '^[a-z]* waiting' @DIR@/result && [ "$told" != "at $waits" ]; then
    told="at $waits"
    echo "log nixprov: somebody else's switch${waits:+ ($waits)} holds the lock: waiting for its end"
  fi
  sleep 0.1
done
"""


def leave() -> bytes:
    """A script that ends a way back that never finishes, so that another run goes on from there."""
    return _script(_LEAVE).encode()


# run.sh looks for the file every two seconds.
_LEAVE = """\
@SYSTEMD@: > @DIR@/leave
while :; do
  case $(substate) in
    @ALIVE@) sleep 0.1 ;;
    *) break ;;
  esac
done
"""
