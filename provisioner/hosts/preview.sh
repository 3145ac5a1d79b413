# Says what a system made from some other files in /etc/nixos would bring, without touching the ones that are there.
# Runs in a unit of its own (preview.py), which ends with this script or with the connection that asked for it, and
# takes $RUNTIME_DIRECTORY with it. Its mounts are private: only here /etc/nixos is the copy with the other files, so
# that nixos-rebuild evaluates what it would evaluate after `up` or `down`, from the same paths.
#
#   BUILD PROCESS START   BUILD: yes: build what is missing; PROCESS and START: the sshd of the connection
#
# The answer is lines: `log TEXT`, and `NAME BASE64` for the records that preview.py reads.
set -u
build=$1 process=${2-} start=${3-}
here=$RUNTIME_DIRECTORY

export HOME=/root USER=root
# Names variables that only a session has: programs.ssh.startAgent alone makes it say $XDG_RUNTIME_DIR.
set +u
[ ! -r /etc/set-environment ] || . /etc/set-environment
set -u
export LC_ALL=C PATH="/run/wrappers/bin:/run/current-system/sw/bin:${PATH:-/usr/bin:/bin}"

# What systemd runs when this has ended in whatever way: the root that Nix made of the link to what was built.
cat > "$here/forget.sh" << END
export PATH=/run/wrappers/bin:/run/current-system/sw/bin:/usr/bin:/bin
for root in /nix/var/nix/gcroots/auto/*; do
  [ "\$(readlink "\$root")" != "$here/build/result" ] || rm -f "\$root"
done
END

say() { printf '%s ' "$1"; base64 | tr -d '\n'; echo; }
end() { echo yes | say preview-end; exit 0; }
cannot() { echo "$1" | say cannot; end; }

started() {
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 0
  set -- ${stat##*) }
  shift 19
  echo "$1"
}

logged() { # runs a command, its output as log lines and in ./said; gives its status
  { "$@" 2>&1; echo $? > "$here/status"; } | tee "$here/said" | sed -u 's/^/log /'
  return "$(cat "$here/status")"
}

rebuild() { # ACTION
  mkdir -p "$here/build"
  cd "$here/build" || cannot 'there is no room in /run'
  logged nixos-rebuild "$1" || { say failed < "$here/said"; end; }
}

only_in() { # 1 or 2, of ./old and ./new: SIZE PATH
  comm "-$((3 - $1))3" "$here/old" "$here/new" > "$here/only"
  [ ! -s "$here/only" ] || xargs nix-store --query --size < "$here/only" | paste -d' ' - "$here/only"
}

units() { find -L "$1/etc/systemd/system" -maxdepth 1 -type f -name '*.*' 2>/dev/null | sed 's|.*/||' | sort; }

if [ -n "$process" ]; then
  { while [ "$(started "$process")" = "$start" ]; do sleep 1; done; kill -9 $$; } > /dev/null 2>&1 &
fi

folder=$(readlink -f /etc/nixos) || cannot '/etc/nixos is not there'
[ "$(du -sk "$folder" | cut -f1)" -le 65536 ] || cannot "$folder is larger than 64 MiB"
cp -a "$folder" "$here/nixos" || cannot "$folder cannot be copied"
cd "$here/nixos" || cannot "$folder cannot be copied"
[ ! -L nixprov ] || cannot "$folder/nixprov is a link"
@EDITS@
mount --bind "$here/nixos" "$folder" || cannot "there can be no mount over $folder"

if [ "$build" != yes ]; then
  rebuild dry-build
  if grep -qE 'will be (built|fetched)|know how to build' "$here/said"; then
    say dry-run < "$here/said"
    end
  fi
fi
rebuild build
old=$(readlink -f /run/current-system)
new=$(readlink -f "$here/build/result")
for system in old new; do
  eval "nix-store --query --requisites \"\$$system\"" | sort > "$here/$system" || cannot 'nix-store gives no closure'
done
only_in 1 | say removed
only_in 2 | say added
cat "$new/etc/nixprov-revision" 2>/dev/null | say revision
units "$old" > "$here/old"
units "$new" > "$here/new"
comm -13 "$here/old" "$here/new" | say new-units
# Since NixOS 25.05 it is refused at once while somebody else's switch is at work.
left=60
while :; do
  "$new/bin/switch-to-configuration" dry-activate > "$here/said" 2>&1
  [ $? = 11 ] || break
  [ "$left" -gt 0 ] || cannot "somebody else's switch holds /run/nixos/switch-to-configuration.lock"
  flock --timeout 2 /run/nixos/switch-to-configuration.lock sleep 0
  left=$((left - 2))
done
say dry-activate < "$here/said"
end
