# Previews a system made from other files of the configuration, without touching the real ones.
#
#   BUILD   yes: build a missing system
#   MAKES   the command that leaves the system as ./result, and then its dry run, as shell words
build=$1 makes=$2 would_make=$3

rebuild() { # COMMAND
  mkdir -p "$here/build"
  cd "$here/build" || cannot 'there is no room in /run'
  eval "logged $1" || { say failed < "$here/said"; end; }
}

only_in() { # 1 or 2, of ./old and ./new: SIZE PATH
  comm "-$((3 - $1))3" "$here/old" "$here/new" > "$here/only"
  [ ! -s "$here/only" ] || xargs nix-store --query --size < "$here/only" | paste -d' ' - "$here/only"
}

units() { find -L "$1/etc/systemd/system" -maxdepth 1 -type f -name '*.*' 2>/dev/null | sed 's|.*/||' | sort; }

other_files

if [ "$build" != yes ]; then
  rebuild "$would_make"
  if grep -qE 'will be (built|fetched)|know how to build' "$here/said"; then
    say dry-run < "$here/said"
    end
  fi
fi
rebuild "$makes"
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
# Since NixOS 25.05 it is refused at once during somebody else's switch.
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
