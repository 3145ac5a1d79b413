"""The lock of a host: its holder is the run with an open connection. No clock, no heartbeat.

A run takes the host with its first transaction and gives it back with its last. The lock names the run and the process
of sshd that serves its connection. That process ends with the operator's program, after kill -9 too. It also ends when
a laptop on the same network is closed. Only an unclosed connection (a cut cable) keeps a dead run's lock, until sshd
notices. Until then a person may say `--take-over`.

Owns the shell for taking, giving back and asking (proc(5) for the fields of /proc/PID/stat).
"""

from __future__ import annotations

import shlex
from typing import Final

from provisioner.machine.transaction import PATH, STATE_DIR
from provisioner.ssh.elevate import LOGIN

LOCK: Final = f"{STATE_DIR}/lock"

# The nearest sshd above this shell, or above the login if the shell does not descend from it (run0). Number, start
# time and boot identify a process.
CONNECTION: Final = r"""connection() {
  process=${@LOGIN@:-$$}
  while [ "$process" -gt 1 ]; do
    stat=$(cat "/proc/$process/stat" 2>/dev/null) || return 0
    set -- ${stat##*) }
    case $stat in
      *"(sshd"*) shift 19; echo "$process $1 $(cat /proc/sys/kernel/random/boot_id)"; return 0 ;;
    esac
    process=$2
  done
}
""".replace("@LOGIN@", LOGIN)


def take(run: str) -> str:
    """Shell that notes `run` as the holder, by the connection that the shell runs in."""
    note = f'echo {shlex.quote(run)} "$(connection)" > {LOCK}.new'
    return f"{CONNECTION}{{ {note} && mv -f {LOCK}.new {LOCK}; }} || {{ rm -f {LOCK}.new; exit 1; }}"


# Every transaction holds this while it is at work (transaction.py).
_QUIET: Final = f"{PATH}exec 9< {STATE_DIR}; flock -w 30 9 || :"
WAIT: Final = f"[ ! -d {STATE_DIR} ] || {{ {_QUIET}; exec 9<&-; }}\n"


def keep(run: str) -> str:
    """Shell for a new connection of `run`: the lock moves to this connection, if `run` still holds the host."""
    return f"""\
if [ -e {LOCK} ]; then
  {_QUIET}
  read -r holder _ < {LOCK} || :
  [ "$holder" != {shlex.quote(run)} ] || ({take(run)}) || :
  exec 9<&-
fi
"""


RELEASE: Final = f"rm -f {LOCK}"

PROBE: Final = f"""\
if read -r run process start boot 2>/dev/null < {LOCK}; then
  stat=$(cat "/proc/$process/stat" 2>/dev/null) || stat=
  [ -z "$stat" ] || {{ set -- ${{stat##*) }}; shift 19; }}
  if [ -n "$stat" ] && [ "$1" = "$start" ] && [ "$boot" = "$(cat /proc/sys/kernel/random/boot_id)" ]; then
    echo "$run" | say held
  else
    echo "$run" | say lock-left
  fi
fi
"""
