#!/bin/sh
# Builds and activates a system, or goes back to an earlier one. Pushed to /var/lib/nixprov/switch/run.sh and started by
# systemd as a unit of its own, so that a lost connection cannot stop it half-way (NixOS/nixpkgs#39118, #462179).
#
#   run.sh switch REVISION LIMIT   REVISION: what /etc/nixprov-revision of the new system must say; "none": must not exist
#                                  LIMIT: seconds to wait for a verdict once it is active; 0: none is asked for
#   run.sh rollback GENERATION 0
#   run.sh settle                  what systemd runs when the above has ended in whatever way (ExecStopPost)
#   run.sh boot                    what systemd runs at the next boot, if none of the above came to its end (ADR 0016)
#
# With a limit, the new system is only tried: the profile and the boot loader keep the old one until somebody who could
# log in again says so. A reboot, a lost network, a killed script: each ends with the old system and the old files.
#
# ./result says how far it came, as one line: PHASE STATUS GENERATION WHY. The verdict is the name of one file, changed
# by rename, so that only one can be given: ./open becomes ./confirmed, ./aborted or ./expired.
set -u
verb=$1
wanted=${2-}
limit=${3-0}
state=/var/lib/nixprov/switch
profile=/nix/var/nix/profiles/system
control=/etc/systemd/system.control

export HOME=/root USER=root
# Names variables that only a session has: programs.ssh.startAgent alone makes it say $XDG_RUNTIME_DIR.
set +u
[ ! -r /etc/set-environment ] || . /etc/set-environment
set -u
export PATH="/run/wrappers/bin:/run/current-system/sw/bin:${PATH:-/usr/bin:/bin}"

generation() { readlink "$profile" | sed -n 's/.*system-\([0-9]*\)-link$/\1/p'; }

# Tests end the script at a point by its name (tests/faults).
point() { [ "${NIXPROV_CRASH-}" != "unit:$1" ] || kill -9 $$; }

result() { # PHASE STATUS [WHY]; on a full disk the one before says more than an empty one
  printf '%s %s %s %s\n' "$1" "$2" "$(generation)" "${3-}" > "$state/result.new" && sync "$state/result.new" &&
    mv "$state/result.new" "$state/result"
}

finish() { # PHASE STATUS [WHY]
  result "$@"
  exit "$2"
}

phase() { # keeps the phase on disk too: a reader after a crash sees where it was
  result "$1" running
  echo "nixprov: $1"
  point "$1"
}

# The log is a help and nothing to rely on: what it is written to may break (NixOS/nixpkgs#462179).
was_said() { # PATTERN
  journalctl --sync 2>/dev/null
  journalctl --quiet --output=cat "_SYSTEMD_INVOCATION_ID=${INVOCATION_ID:-none}" 2>/dev/null | grep -q "$1"
}

# What the status alone does not tell: a check before the activation, or the boot loader, ends with whatever errno was
# left over, 2 and 4 included; and a failed snippet of the activation script is 2, which any failed unit turns into 4.
looked_at() { # STATUS SYSTEM
  case $1 in 100 | 101) echo "$1"; return ;; esac
  if [ "$(readlink -f /run/current-system)" != "$2" ]; then
    # The link is the last thing that an activation sets.
    if was_said "^activating the configuration"; then echo 2; else echo 23; fi
  elif [ "$1" = 4 ] && was_said "^Activation script snippet .* failed"; then
    echo 2
  else
    echo "$1"
  fi
}

# switch-to-configuration crashes half-way when its output breaks; run again, it goes on where it was. A system that is
# gone back to must come whatever becomes of the log.
surely() { # SYSTEM ACTION
  "$1/bin/switch-to-configuration" "$2"
  status=$?
  [ "$status" = 101 ] || return "$status"
  "$1/bin/switch-to-configuration" "$2" > /dev/null 2>&1
}

failed_units() { systemctl list-units --failed --plain --no-legend --no-pager | cut -d' ' -f1; }

give_back() { # the files as they were: a transaction that came with the one that changed them
  [ -f "$state/undo.sh" ] || return 0
  sh "$state/undo.sh" || echo 'the files in /etc/nixos could not all be given back: `nixprov up` or `down` goes on'
}

disarm() { # what waits for the next boot; the manager may know it already, from the switch's own reload
  [ -e "$control/nixprov-back.service" ] || return 0
  rm -f "$control/nixprov-back.service" "$control/multi-user.target.wants/nixprov-back.service"
  rmdir "$control/multi-user.target.wants" "$control" 2>/dev/null
  systemctl daemon-reload
}

forget() { # the way back, the build's own link, and the root that nix-build made of it
  disarm
  for root in /nix/var/nix/gcroots/auto/*; do
    [ "$(readlink "$root")" != "$state/build/result" ] || rm -f "$root"
  done
  rm -rf "$state/build" "$state/undo.sh"
}

set_profile() { # what was checked is what is activated: the profile gets this very path, nothing is evaluated again
  [ "$(readlink -f "$profile")" != "$1" ] || return 0
  # Written down before it is there, so that a crash between the two leaves no generation that nobody knows as ours.
  ls -d "$profile"-*-link | sed -n 's/.*system-\([0-9]*\)-link$/\1/p' | sort -n | tail -n 1 |
    { read -r last; echo $((last + 1)); } >> "$state/generations"
  sync "$state/generations" "$state"
  nix-env --profile "$profile" --set "$1" || return 1
  generation >> "$state/generations"
}

commit() { # SYSTEM: it runs already; make it the one that boots
  phase commit
  set_profile "$1" || finish commit 22
  point set
  "$1/bin/switch-to-configuration" boot || finish commit $?
  forget
  rm -f "$state/confirmed"
  finish commit 0
}

back() { # WHY: the system that the profile still names, then the files as they were
  phase back
  surely "$profile" test
  status=$?
  point activated-old
  give_back
  forget
  rm -f "$state/open" "$state/aborted" "$state/expired"
  finish back "$status" "$1"
}

closure() { # OLD NEW: what the new system brings, as a line of the log; in ./build
  nix-store --query --requisites "$1" | sort > closure.1
  nix-store --query --requisites "$2" | sort > closure.2
  more=$(comm -13 closure.1 closure.2 | sizes) less=$(comm -23 closure.1 closure.2 | sizes)
  echo "nixprov: the new system has ${more%% *} paths more, ${less%% *} less, $(((${more#* } - ${less#* }) / 1024)) KiB in all"
}

sizes() { # how many paths there are on standard input, and their bytes
  xargs -r nix-store --query --size | {
    paths=0 bytes=0
    while read -r size; do paths=$((paths + 1)) bytes=$((bytes + size)); done
    echo "$paths $bytes"
  }
}

unbuilt() { # PHASE STATUS: nothing was activated, so the files are all there is to take back
  give_back
  forget
  finish "$@"
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

if [ "$verb" = settle ]; then
  # From here on nobody confirms what is gone back from.
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
  exit 0
fi

# A switch starts multi-user.target again, and with it this: only another boot means that the switch was cut off.
if [ "$verb" = boot ]; then
  [ "$(cat "$state/boot")" != "$(cat /proc/sys/kernel/random/boot_id)" ] || exit 0
  # Confirmed is confirmed: the files stay, and the next run of anybody makes the rest true.
  [ ! -e "$state/confirmed" ] || { disarm; exit 0; }
  echo 'a switch was cut off before anybody confirmed it: giving back /etc/nixos'
  give_back
  rm -f "$state/open" "$state/aborted" "$state/expired"
  result back 0 power
  forget
  exit 0
fi

if [ "$verb" = rollback ]; then
  phase rollback
  nix-env --profile "$profile" --switch-generation "$wanted" || finish rollback 22
  phase activate
  surely "$profile-$wanted-link" test
  status=$?
  # The boot loader last: what it cannot do must not keep the old system from running.
  "$profile-$wanted-link/bin/switch-to-configuration" boot || finish commit $?
  finish activate "$status"
fi

phase build
rm -rf "$state/build"
mkdir -p "$state/build"
cd "$state/build" || unbuilt build 20
nixos-rebuild build || unbuilt build 20
system=$(readlink -f "$state/build/result")
closure "$(readlink -f /run/current-system)" "$system"
cd /
point built
found=$(cat "$system/etc/nixprov-revision" 2>/dev/null || echo none)
if [ "$found" != "$wanted" ]; then
  echo "the system that was built has nixprov revision $found instead of $wanted: does configuration.nix import it?"
  unbuilt check 21
fi

if [ "$limit" = 0 ]; then
  phase profile
  set_profile "$system" || finish profile 22
  forget
  phase activate
  "$system/bin/switch-to-configuration" switch
  status=$(looked_at $? "$system")
  failed_units > "$state/failed"
  finish activate "$status"
fi

: > "$state/open"
sync "$state"
phase activate
"$system/bin/switch-to-configuration" test
status=$(looked_at $? "$system")
point activated
failed_units > "$state/failed"
result activate "$status"
await_verdict
[ ! -e "$state/confirmed" ] || commit "$system"
[ ! -e "$state/expired" ] || back expired
back aborted
