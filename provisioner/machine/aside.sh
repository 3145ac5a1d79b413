# The frame of a question to a host beside its running system (aside.py): its evaluation, or its next build.
# Runs in a unit of its own, which ends with this script or with the connection that asked. $RUNTIME_DIRECTORY goes with
# it. Its mounts are private, so only here the configuration's folder may be a copy with other files. From the same
# paths Nix then reads the files that it would read after `up` or `down`.
#
#   PROCESS START FOLDER ...   the sshd of the connection, the configuration's folder, the arguments of the question
#
# The answer is lines: `log TEXT`, and `NAME BASE64` for each record.
set -u
process=${1-} start=${2-} configuration=$3
shift 3
here=$RUNTIME_DIRECTORY

export HOME=/root USER=root
# /etc/set-environment names variables that only a session has: programs.ssh.startAgent alone adds $XDG_RUNTIME_DIR.
set +u
[ ! -r /etc/set-environment ] || . /etc/set-environment
set -u
export LC_ALL=C PATH="/run/wrappers/bin:/run/current-system/sw/bin:${PATH:-/usr/bin:/bin}"

# systemd runs this after any end: it removes the root that Nix made of the link to the built system.
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

logged() { # runs a command: output as log lines and in ./said; returns its status
  { "$@" 2>&1; echo $? > "$here/status"; } | tee "$here/said" | sed -u 's/^/log /'
  return "$(cat "$here/status")"
}

if [ -n "$process" ]; then
  { while [ "$(started "$process")" = "$start" ]; do sleep 1; done; kill -9 $$; } > /dev/null 2>&1 &
fi

other_files() { # from here on the folder is a copy with the other files
  folder=$(readlink -f "$configuration") || cannot "$configuration is not there"
  [ "$(du -sk "$folder" | cut -f1)" -le 65536 ] || cannot "$folder is larger than 64 MiB"
  cp -a "$folder" "$here/nixos" || cannot "$folder cannot be copied"
  cd "$here/nixos" || cannot "$folder cannot be copied"
  [ ! -L nixprov ] || cannot "$folder/nixprov is a link"
  @EDITS@
  mount --bind "$here/nixos" "$folder" || cannot "there can be no mount over $folder"
  cd /
}

