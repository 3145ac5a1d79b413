# The frame of what a host is asked beside its running system (aside.py): what it evaluates to, what would be built.
# Runs in a unit of its own, which ends with this script or with the connection that asked for it, and takes
# $RUNTIME_DIRECTORY with it. Its mounts are private: only here the folder of the configuration may be a copy with other
# files, so that Nix reads what it would read after `up` or `down`, from the same paths.
#
#   PROCESS START FOLDER ...   the sshd of the connection, the configuration's folder, what the question itself takes
#
# The answer is lines: `log TEXT`, and `NAME BASE64` for the records that the one who asked reads.
set -u
process=${1-} start=${2-} configuration=$3
shift 3
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
end() { echo yes | say answer-end; exit 0; }
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

if [ -n "$process" ]; then
  { while [ "$(started "$process")" = "$start" ]; do sleep 1; done; kill -9 $$; } > /dev/null 2>&1 &
fi

other_files() { # the folder is a copy with the other files from here on
  folder=$(readlink -f "$configuration") || cannot "$configuration is not there"
  [ "$(du -sk "$folder" | cut -f1)" -le 65536 ] || cannot "$folder is larger than 64 MiB"
  cp -a "$folder" "$here/nixos" || cannot "$folder cannot be copied"
  cd "$here/nixos" || cannot "$folder cannot be copied"
  [ ! -L nixprov ] || cannot "$folder/nixprov is a link"
  @EDITS@
  mount --bind "$here/nixos" "$folder" || cannot "there can be no mount over $folder"
  cd /
}

