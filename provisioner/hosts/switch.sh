#!/bin/sh
# Builds and activates a system, or goes back to an earlier one. Pushed to /var/lib/nixprov/switch/run.sh and started by
# systemd as a unit of its own, so that a lost connection cannot stop it half-way (NixOS/nixpkgs#39118, #462179).
#
#   run.sh switch REVISION     REVISION: what /etc/nixprov-revision of the new system must say; "none": must not exist
#   run.sh rollback GENERATION
#
# Writes how far it came and with which status to ./result, as one line: PHASE STATUS GENERATION.
set -u
verb=$1
wanted=$2
state=/var/lib/nixprov/switch
profile=/nix/var/nix/profiles/system

export HOME=/root USER=root
[ ! -r /etc/set-environment ] || . /etc/set-environment
export PATH="/run/wrappers/bin:/run/current-system/sw/bin:${PATH:-/usr/bin:/bin}"

generation() { readlink "$profile" | sed -n 's/.*system-\([0-9]*\)-link$/\1/p'; }

finish() { # PHASE STATUS
  printf '%s %s %s\n' "$1" "$2" "$(generation)" > "$state/result.new"
  sync "$state/result.new"
  mv "$state/result.new" "$state/result"
  exit "$2"
}

phase() { # keeps the phase on disk too: a reader after a crash sees where it was
  printf '%s running %s\n' "$1" "$(generation)" > "$state/result"
  echo "nixprov: $1"
}

activate() { # SYSTEM
  phase activate
  "$1/bin/switch-to-configuration" switch
  finish activate $?
}

forget() { # the build's own link, and the root that nix-build made of it
  for root in /nix/var/nix/gcroots/auto/*; do
    [ "$(readlink "$root")" != "$state/build/result" ] || rm -f "$root"
  done
  rm -rf "$state/build"
}

if [ "$verb" = rollback ]; then
  phase rollback
  nix-env --profile "$profile" --switch-generation "$wanted" || finish rollback 22
  activate "$profile-$wanted-link"
fi

phase build
rm -rf "$state/build"
mkdir -p "$state/build"
cd "$state/build" || finish build 20
nixos-rebuild build || finish build 20
system=$(readlink -f result)
found=$(cat "$system/etc/nixprov-revision" 2>/dev/null || echo none)
if [ "$found" != "$wanted" ]; then
  echo "the system that was built has nixprov revision $found instead of $wanted: does configuration.nix import it?"
  forget
  finish check 21
fi

# What was checked is what is activated: the profile gets this very path, nothing is evaluated a second time.
phase profile
if [ "$(readlink -f "$profile")" != "$system" ]; then
  nix-env --profile "$profile" --set "$system" || finish profile 22
  generation >> "$state/generations"
fi
cd /
forget
activate "$system"
