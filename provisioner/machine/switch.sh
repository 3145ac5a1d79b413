#!/bin/sh
# Builds and activates a system, or goes back to an earlier one. Pushed to /var/lib/nixprov/switch/run.sh. systemd runs
# it as a unit of its own, so that a lost connection cannot stop it half-way (NixOS/nixpkgs#39118, #462179).
#
#   run.sh switch REVISION LIMIT COMMAND ...
#                                  REVISION: the text of /etc/nixprov-revision in the new system; "none": no such file
#                                  LIMIT: seconds to wait for a verdict once it is active; 0: no verdict
#                                  COMMAND ...: the build, run in an empty folder; leaves the system as ./result
#   run.sh rollback GENERATION 0
#   run.sh settle                  run by systemd after any end of the above (ExecStopPost)
#   run.sh switch or rollback      run again by systemd when both of these were killed (Restart)
#   run.sh boot                    run by systemd at the next boot, if none of the above came to its end (ADR 0016)
#
# With a limit, the new system is only tried. The profile and the boot loader keep the old one until an operator, logged
# in again, confirms. A reboot, a lost network, a killed script: each ends with the old system and the old files.
#
# ./result holds the progress as one line: PHASE STATUS GENERATION WHY WHO. STATUS is `running`, or `waiting` for the
# lock that WHO holds. `tries:N` means that the way back failed with status N and is tried again. A number is the end.
# The verdict is the name of one file, changed by rename, so there can be only one. ./open becomes ./confirmed,
# ./aborted or ./expired. ./leave ends a way back that never finishes: another run goes on from there.
set -u
verb=$1
wanted=${2-}
limit=${3-0}
[ $# -lt 3 ] || shift 3
state=/var/lib/nixprov/switch
profile=/nix/var/nix/profiles/system
control=/etc/systemd/system.control
lock=/run/nixos/switch-to-configuration.lock
# Seconds to wait for somebody else's switch, and the status if it has not ended by then.
patience=${NIXPROV_PATIENCE-600}
busy=24
at='' why='' left=0
# systemd starts a killed unit again, with its settlement cut short or not. Tests kill it once.
again=
if [ -e "$state/result" ] && { [ "$verb" = switch ] || [ "$verb" = rollback ]; }; then
  again=yes
  unset NIXPROV_CRASH
fi

export HOME=/root USER=root
# /etc/set-environment names variables that only a session has: programs.ssh.startAgent alone adds $XDG_RUNTIME_DIR.
set +u
[ ! -r /etc/set-environment ] || . /etc/set-environment
set -u
export PATH="/run/wrappers/bin:/run/current-system/sw/bin:${PATH:-/usr/bin:/bin}"

generation() { readlink "$profile" | sed -n 's/.*system-\([0-9]*\)-link$/\1/p'; }

# Tests end the script at a point by its name (tests/faults).
point() { [ "${NIXPROV_CRASH-}" != "unit:$1" ] || kill -9 $$; }

result() { # PHASE STATUS [WHY]; on a full disk the result before stays, because an empty one says less
  printf '%s %s %s %s\n' "$1" "$2" "$(generation)" "${3-}" > "$state/result.new" && sync "$state/result.new" &&
    mv "$state/result.new" "$state/result"
}

finish() { # PHASE STATUS [WHY]
  result "$@"
  exit "$2"
}

ended() { # PHASE STATUS [WHY]: the machine is as wanted or as before, so the unit has not failed
  result "$@"
  rm -f "$state/open" "$state/confirmed" "$state/aborted" "$state/expired"
  exit 0
}

phase() { # keeps the phase on disk, for a reader after a crash
  at=$1
  result "$1" running
  echo "nixprov: $1"
  point "$1"
}

# The log is a help and nothing to rely on: its reader may break (NixOS/nixpkgs#462179).
was_said() { # PATTERN
  journalctl --sync 2>/dev/null
  journalctl --quiet --output=cat "_SYSTEMD_INVOCATION_ID=${INVOCATION_ID:-none}" 2>/dev/null | grep -q "$1"
}

# The status alone is not enough. A check before the activation, or the boot loader, ends with any left-over errno, 2
# and 4 included. A failed snippet of the activation script is 2, and any failed unit turns that into 4.
looked_at() { # STATUS SYSTEM
  case $1 in 100 | 101) echo "$1"; return ;; esac
  if [ "$(readlink -f /run/current-system)" != "$2" ]; then
    # An activation sets the link last.
    if was_said "^activating the configuration"; then echo 2; else echo 23; fi
  elif [ "$1" = 4 ] && was_said "^Activation script snippet .* failed"; then
    echo 2
  else
    echo "$1"
  fi
}

runs() { [ "$(readlink -f /run/current-system)" = "$1" ]; }

revision() { cat "$1/etc/nixprov-revision" 2>/dev/null || echo none; }

holder() { # in words, if it can be found
  process=$(find /proc/[0-9]*/fd -lname "$lock" 2>/dev/null | cut -d/ -f3 | sort -n | head -n 1)
  [ -n "$process" ] || return 0
  unit=$(sed -n 's/^\(0:\|[0-9]*:name=systemd\):.*\/\(..*\)/\2/p' "/proc/$process/cgroup" 2>/dev/null | head -n 1)
  echo "process $process${unit:+ of $unit}"
}

wanted_still() { # nobody has given the switch up, and the machine is not going down
  case $at in
    activate) [ "$limit" = 0 ] || [ -e "$state/open" ] ;;
    back | rollback) [ ! -e "$state/leave" ] && [ "$(systemctl is-system-running 2>/dev/null)" != stopping ] ;;
  esac
}

# Since NixOS 25.05 switch-to-configuration is refused at once while another one is at work. Up to 24.11 it waits
# without end. In both cases the wait is here instead, with a message and an end.
await_lock() { # for `left` seconds
  [ -e "$lock" ] || return 0
  ! flock --nonblock "$lock" true || return 0
  who=$(holder)
  echo "nixprov: somebody else's switch${who:+ ($who)} holds the lock: waiting for its end"
  result "$at" waiting "${why:--} $who"
  until flock --timeout 2 "$lock" true; do
    left=$((left - 2))
    [ "$left" -gt 0 ] && wanted_still || return 1
  done
  result "$at" running
}

# Another switch came between our look at the lock and our call. Counted, because up to 24.11 a failed boot loader ends
# with any left-over errno, 11 included.
refused() { # STATUS
  [ "$1" = 11 ] || return 1
  left=$((left - 30))
  [ "$left" -gt 0 ] || return 1
  sleep 1
}

switched() { # SYSTEM ACTION: its status, or `busy` if somebody else's switch did not end; `old`: the result of find_old
  left=$patience system=$1
  while :; do
    await_lock || return "$busy"
    [ "$1" != old ] || { find_old && system=$old; }
    "$system/bin/switch-to-configuration" "$2"
    status=$?
    refused "$status" || return "$status"
  done
}

# switch-to-configuration crashes half-way when its output breaks; run again, it goes on where it was. The old system
# must come back even without a log. Against any other obstacle this tries for as long as the machine lives, and checks
# that the system runs.
surely() { # SYSTEM, or `old`; with ./menu it also sets the boot menu, and `menu` is the status of that
  menu=0
  while :; do
    switched "$1" test
    came=$?
    if [ "$came" = 101 ]; then
      switched "$1" test > /dev/null 2>&1
      came=$?
    fi
    if ! was_refused "$came" && runs "$system"; then
      # The boot loader last: its failure must not keep the old system from running.
      [ ! -e "$state/menu" ] || switched "$1" boot || menu=$?
      was_refused "$menu" || return "$came"
      came=$menu menu=0
    fi
    tries_on
  done
}

was_refused() { [ "$1" = "$busy" ] || [ "$1" = 11 ]; }

tries_on() {
  result "$at" "tries:$came" "${why:--} $(holder)"
  echo "nixprov: the old system does not come back yet (status $came): trying again"
  pause=15
  while [ "$pause" -gt 0 ]; do
    # The next boot does it, or the run that left ./leave.
    wanted_still || exit 0
    sleep 2
    pause=$((pause - 1))
  done
  result "$at" running
}

failed_units() { systemctl list-units --failed --plain --no-legend --no-pager | cut -d' ' -f1; }

give_back() { # the files as they were, by a transaction that came with the one that changed them
  [ -f "$state/undo.sh" ] || return 0
  sh "$state/undo.sh" || echo 'the files could not all be given back: `nixprov up` or `down` goes on'
}

disarm() { # remove the unit for the next boot; the manager may know it already, from the switch's own reload
  [ -e "$control/nixprov-back.service" ] || return 0
  rm -f "$control/nixprov-back.service" "$control/multi-user.target.wants/nixprov-back.service"
  rmdir "$control/multi-user.target.wants" "$control" 2>/dev/null
  systemctl daemon-reload
}

forget() { # remove the way back, the build's own link, and the root that nix-build made of it
  disarm
  for root in /nix/var/nix/gcroots/auto/*; do
    [ "$(readlink "$root")" != "$state/build/result" ] || rm -f "$root"
  done
  rm -rf "$state/build" "$state/undo.sh" "$state/old" "$state/menu"
}

set_profile() { # the profile gets the very path that was checked; nothing is evaluated again
  [ "$(readlink -f "$profile")" != "$1" ] || return 0
  # Noted before it exists, so that every generation of ours is known as ours, even after a crash in between.
  ls -d "$profile"-*-link | sed -n 's/.*system-\([0-9]*\)-link$/\1/p' | sort -n | tail -n 1 |
    { read -r last; echo $((last + 1)); } >> "$state/generations"
  sync "$state/generations" "$state"
  nix-env --profile "$profile" --set "$1" || return 1
  generation >> "$state/generations"
}

# Somebody else's switch in between has made a system of its own. With the confirmed revision in it, it is kept as they
# made it. Without, or while that switch does not end, there is nothing whole to keep.
commit() { # SYSTEM: it runs already; make it the one that boots
  phase commit
  # The confirming operator waits for this, so the limit is shorter than at the start.
  left=$((patience / 2))
  while :; do
    await_lock || cannot_keep busy
    [ "$(revision /run/current-system)" = "$(revision "$1")" ] || cannot_keep overtaken
    runs "$1" || ! runs "$(readlink -f "$profile")" || break
    set_profile "$1" || finish commit 22
    point set
    "$1/bin/switch-to-configuration" boot
    status=$?
    [ "$status" != 0 ] || break
    refused "$status" || finish commit "$status"
  done
  forget
  ended commit 0
}

cannot_keep() { # WHY
  mv "$state/confirmed" "$state/aborted"
  back "$1"
}

note_old() { # the target of a way back: the profile before anybody could change it
  printf '%s %s\n' "$(generation)" "$(readlink -f "$profile")" > "$state/old"
}

# A system that somebody else made meanwhile is theirs and stays, unless it contains our change that is to go. Then the
# profile has to go back too. Called once the lock is free, as their switch may have ended only then.
find_old() { # sets `old`, which the profile names afterwards
  old=$(readlink -f "$profile")
  read -r number noted 2>/dev/null < "$state/old" || return 0
  if [ "$old" = "$noted" ]; then return 0; fi
  if [ "$old" != "$(readlink -f "$state/build/result")" ] && [ "$(revision "$old")" = "$(revision "$noted")" ]; then
    return 0
  fi
  : > "$state/menu"
  nix-env --profile "$profile" --switch-generation "$number" || nix-env --profile "$profile" --set "$noted" || :
  old=$noted
}

back() { # WHY: the old system, then the old files
  why=$1
  phase back
  surely old
  status=$?
  point activated-old
  give_back
  forget
  [ "$menu" = 0 ] || finish commit "$menu"
  ended back "$status" "$1"
}

closure() { # OLD NEW: the difference of the new system as a line of the log; in ./build
  nix-store --query --requisites "$1" | sort > closure.1
  nix-store --query --requisites "$2" | sort > closure.2
  more=$(comm -13 closure.1 closure.2 | sizes) less=$(comm -23 closure.1 closure.2 | sizes)
  echo "nixprov: the new system has ${more%% *} paths more, ${less%% *} less, $(((${more#* } - ${less#* }) / 1024)) KiB in all"
}

sizes() { # the number of paths on standard input, and their bytes
  xargs -r nix-store --query --size | {
    paths=0 bytes=0
    while read -r size; do paths=$((paths + 1)) bytes=$((bytes + size)); done
    echo "$paths $bytes"
  }
}

unbuilt() { # PHASE STATUS: nothing was activated, so only the files go back
  give_back
  forget
  ended "$@"
}

await_verdict() {
  left=$((limit * 5))
  while [ -e "$state/open" ]; do
    left=$((left - 1))
    if [ "$left" -le 0 ]; then
      echo "nobody confirmed the new system within $limit s: going back"
      mv "$state/open" "$state/expired" 2>/dev/null
    fi
    sleep 0.2
  done
}

if [ "$verb" = settle ] || { [ "$verb" = switch ] && [ -n "$again" ]; }; then
  [ ! -e "$state/leave" ] || exit 0
  # From here on nobody can confirm the system that is left.
  mv "$state/open" "$state/aborted" 2>/dev/null
  if [ -e "$state/confirmed" ]; then
    commit "$(readlink -f "$state/build/result")"
  elif [ -e "$state/expired" ]; then
    back expired
  elif [ -e "$state/aborted" ]; then
    back ended
  elif grep -qs '^build running' "$state/result"; then
    unbuilt build 20 ended
  fi
  # Killed with nobody to ask: the switch ended half-way, and the unit fails.
  [ -z "$again" ] || ! grep -Eqs '^[a-z]+ (running|waiting)' "$state/result" || exit 1
  exit 0
fi

# A switch starts multi-user.target again, and this with it. Only another boot means that the switch was cut off.
if [ "$verb" = boot ]; then
  [ "$(cat "$state/boot")" != "$(cat /proc/sys/kernel/random/boot_id)" ] || exit 0
  # Confirmed: the files stay, and the next run of anybody does the rest.
  [ ! -e "$state/confirmed" ] || { disarm; exit 0; }
  # Somebody else's switch has kept a system that was only tried. The next run of anybody tells them apart.
  if read -r _ old 2>/dev/null < "$state/old" && [ "$(revision /run/current-system)" != "$(revision "$old")" ]; then
    disarm
    exit 0
  fi
  echo 'a switch was cut off before anybody confirmed it: giving back the files'
  give_back
  rm -f "$state/open" "$state/aborted" "$state/expired"
  result back 0 power
  forget
  exit 0
fi

if [ "$verb" = rollback ]; then
  phase rollback
  nix-env --profile "$profile" --switch-generation "$wanted" || finish rollback 22
  : > "$state/menu"
  surely "$(readlink -f "$profile-$wanted-link")"
  status=$?
  [ "$menu" = 0 ] || finish commit "$menu"
  ended activate "$status"
fi

note_old
phase build
rm -rf "$state/build"
mkdir -p "$state/build"
cd "$state/build" || unbuilt build 20
"$@" || unbuilt build 20
system=$(readlink -f "$state/build/result")
closure "$(readlink -f /run/current-system)" "$system"
cd /
point built
found=$(cat "$system/etc/nixprov-revision" 2>/dev/null || echo none)
if [ "$found" != "$wanted" ]; then
  echo "the system that was built has nixprov revision $found instead of $wanted: does the configuration import it?"
  unbuilt check 21
fi

if [ "$limit" = 0 ]; then
  # Before the new generation: it could not be taken out of the boot menu while the lock is held.
  at=activate left=$patience
  await_lock || ended activate "$busy"
  phase profile
  number=$(generation)
  set_profile "$system" || finish profile 22
  forget
  phase activate
  switched "$system" switch
  status=$?
  if [ "$status" = "$busy" ]; then
    nix-env --profile "$profile" --switch-generation "$number" || finish profile 22
    ended activate "$busy"
  fi
  status=$(looked_at "$status" "$system")
  failed_units > "$state/failed"
  finish activate "$status"
fi

: > "$state/open"
sync "$state/old" "$state"
phase activate
switched "$system" test
status=$?
[ "$status" != "$busy" ] || unbuilt activate "$busy"
status=$(looked_at "$status" "$system")
point activated
failed_units > "$state/failed"
result activate "$status"
await_verdict
[ ! -e "$state/confirmed" ] || commit "$system"
[ ! -e "$state/expired" ] || back expired
back aborted
