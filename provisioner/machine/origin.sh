# Describes the configured, the running and the next booting system, and signs of the running one's origin.
#
#   OTHER       yes: the configuration is the one with the other files
#   FILE        the file that describes the system
#   EVALUATED   a Nix expression of the system
other=$1 file=$2 evaluated=$3

profile=/nix/var/nix/profiles/system
running=$(readlink -f /run/current-system)
boot=$(readlink -f "$profile")
folder=$(readlink -f "$configuration")

# NIXOS_CONFIG beats nixos-config in NIX_PATH (nixpkgs, nixos/default.nix).
config=${NIXOS_CONFIG-}
[ -n "$config" ] || config=$(nix-instantiate --find-file nixos-config 2>/dev/null)
echo "$config" | say config
readlink -f "$config" 2>/dev/null | say config-real
readlink -f "$file" | say classic
! grep -qsF -e "$configuration/nixprov" -e "$file" "$config" || echo yes | say config-imports-ours
[ ! -e "$configuration/flake.nix" ] || echo yes | say flake

echo "$running" | say running
echo "$boot" | say boot
cat "$running/nixos-version" 2>/dev/null | say version
cat /proc/sys/kernel/hostname | say host-name
readlink -f "$running/kernel" 2>/dev/null | say kernel
for specialisation in "$boot"/specialisation/*; do
  [ "$(readlink -f "$specialisation")" != "$running" ] || echo "${specialisation##*/}"
done | say specialisation

# Units of the configuration are files, or links to a unit's own path. Others come with systemd and packages.
find "$running/etc/systemd/system/" -mindepth 1 -maxdepth 1 -printf '%y %f %l\n' 2>/dev/null | say units
tr ' ' '\n' < /var/lib/nixos/declarative-users 2>/dev/null | say users

# A system that was built here has its derivation here, unless nothing keeps derivations.
deriver=$(nix-store --query --deriver "$running" 2>/dev/null)
[ -e "$deriver" ] || grep -qsE '^[[:space:]]*keep-derivations[[:space:]]*=[[:space:]]*false' /etc/nix/nix.conf ||
  echo yes | say pushed
for sign in "$running/deploy-rs-activate" "$boot/deploy-rs-activate" "$running/etc/systemd/system/comin.service"; do
  [ ! -e "$sign" ] || echo "${sign##*/}"
done | say deployers
nixos-version --json 2>/dev/null | say version-json
cat "$running/etc/nix/registry.json" 2>/dev/null | say registry
upgrade=$(sed -n 's/^ExecStart=//p' "$running/etc/systemd/system/nixos-upgrade.service" 2>/dev/null)
{ [ -z "$upgrade" ] || grep -hoE -- '--flake [^ ]+' ${upgrade%% *} 2>/dev/null
  grep -hoE 'NH_FLAKE="?[^"]+' /etc/set-environment 2>/dev/null | tr -d '"'; } | say flakes
# Files in the folder that are newer than the profile of the system that boots.
find "$folder" -name .git -prune -o -path "$folder/nixprov" -prune -o \
  -type f -newer "${profile%/*}/$(readlink "$profile" | sed 's|.*/||')" -print 2>/dev/null | head -n 20 | say newer

[ "$other" != yes ] || other_files

# Read-write, so that imports from derivations work as they do for nixos-rebuild. Nothing else is built for it.
cat > "$here/question.nix" << 'END'
{ system }:
let
  inherit (system) config;
  attempt = value: let tried = builtins.tryEval value; in if tried.success then tried.value else null;
in {
  system = config.system.build.toplevel.outPath;
  version = attempt (config.system.nixos.label or null);
  hostName = attempt (config.networking.hostName or null);
  kernel = attempt (config.boot.kernelPackages.kernel.version or null);
  revision = attempt (config.system.configurationRevision or null);
  registry = attempt (config.environment.etc."nix/registry.json".text or null);
  units = attempt (builtins.attrNames config.systemd.units);
  users = attempt (map (user: user.name) (builtins.attrValues config.users.users));
}
END
if nix-instantiate --eval --strict --json --read-write-mode --arg system "$evaluated" "$here/question.nix" \
  > "$here/described" 2> "$here/said"; then
  say described < "$here/described"
  system=$(sed -n 's/.*"system":"\([^"]*\)".*/\1/p' "$here/described")
  # If the system happens to be built, it can preview its activation.
  if [ "$system" != "$running" ] && [ -x "$system/bin/switch-to-configuration" ]; then
    "$system/bin/switch-to-configuration" dry-activate > "$here/would" 2>&1
    # 11: somebody else's switch is at work, and there is no preview.
    [ $? = 11 ] || say dry-activate < "$here/would"
  fi
else
  say failed < "$here/said"
fi
sed 's/^/log /' "$here/said"
end
