#!/bin/sh
# Turns the Debian it is run in into the stand-in NixOS: channel, /etc/nixos, packages in the store, first generation.
# Run as root in the tree (a chroot with /proc and /dev) with these sources in /opt/lab/nixos; needs no network.
set -eu
umask 022
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root USER=root
lab=/opt/lab
sources=$lab/nixos
system=/nix/var/nix/profiles/system
channels=/nix/var/nix/profiles/per-user/root/channels
release=25.11
# The sources of the packages in pkgs/debian.nix.
packages="bash bsdutils busybox-static bzip2 ca-certificates coreutils crun curl dbus-bin diffutils docker-cli docker.io findutils git grep gzip hostname
    iproute2 libc-bin libc6 login mawk mount ncurses-bin nftables nix-bin openssh-client passwd podman procps python3-minimal sed sudo
    systemd systemd-sysv tar util-linux xz-utils"

fail() { echo "install.sh: $*" >&2; exit 1; }
step() { echo "install.sh: $*"; }
[ "$(id -u)" = 0 ] || fail "must be run as root"
[ -x $lab/bin/python3 ] || fail "$lab/bin/python3 is missing: the runner's stand-in needs it"
command -v nix-build > /dev/null || fail "Nix is missing in the tree"

describe() { # debian.json: {"package": {"version": ..., "programs": [...]}}
    separator='{'
    for package in $packages; do
        version=$(dpkg-query -W -f='${Version}' "$package") || fail "Debian's package $package is missing in the tree"
        version=$(echo "$version" | sed 's/^[0-9]*://; s/-[^-]*$//; s/[+~].*//')
        programs=$(dpkg -L "$package" | sed -n 's,^/\(usr/\)\?\(s\?bin/[^/]*\)$,/usr/\2,p' | sort -u |
            while read -r program; do [ ! -f "$program" ] || printf '"%s" ' "$program"; done | sed 's/ $//; s/ /, /g')
        printf '%s\n  "%s": {"version": "%s", "programs": [%s]}' "$separator" "$package" "$version" "$programs"
        separator=,
    done
    printf '\n}\n'
}

# Our own builds read Debian's /usr and run before there are build users.
build() { nix-build --option sandbox false --option build-users-group '' --option substitute false --option build-dir /nix/var/nix/builds "$@"; }

step "channel"
mkdir -p /nix/var/nix/builds /nix/store
work=$(mktemp -d)
tree=$work/nixos-$release.nixprov-lab
mkdir -p "$tree/guest"
cp -R $sources/default.nix $sources/flake.nix $sources/lib $sources/nixos $sources/pkgs $sources/tools "$tree/"
for file in $lab/*; do
    case $file in $sources | $lab/bin | $lab/gitlab-runner) ;; *) cp -R "$file" "$tree/guest/" ;; esac
done
describe > "$tree/pkgs/debian.json"
printf %s "$release" > "$tree/.version"
channel=$(nix-store --option build-users-group '' --add "$tree")
environment=$(build --no-out-link -E "derivation {
    name = \"user-environment\"; system = builtins.currentSystem; builder = \"/bin/sh\"; PATH = \"/usr/bin\";
    channel = builtins.storePath $channel; args = [ \"-c\" \"mkdir \$out; ln -s \$channel \$out/nixos\" ];
}")
mkdir -p "$(dirname $channels)"
nix-env --option build-users-group '' -p $channels --set "$environment"
rm -rf "$work"
export NIX_PATH=nixpkgs=$channels/nixos:nixos-config=/etc/nixos/configuration.nix:$channels

step "/etc/nixos"
mkdir -p /etc/nixos
cp $sources/etc-nixos/*.nix /etc/nixos/
touch /etc/NIXOS /etc/default/locale # without the second, pam_env complains on each login

step "packages of the store"
# Held by roots, since they cannot be built again in a sandbox and jobs need them.
mkdir -p /nix/var/nix/gcroots/nixprov-lab
build -o /nix/var/nix/gcroots/nixprov-lab/package -E '
    with import <nixpkgs> { };
    [ libraries busybox python3 cacert git nix openssh curl podman stdenv.environment hello ] ++ stdenv.initialPath' > /dev/null

step "crun"
mv /usr/bin/crun $lab/crun
install -m 0755 $sources/tools/crun.sh /usr/bin/crun

step "Debian's own units"
# Debian's units with links in /etc are of no use here, or started by NixOS' own units.
rm -rf /etc/systemd/system /etc/sudoers.d /etc/containers
mkdir -p /usr/local/lib/systemd/system
for unit in systemd-modules-load.service systemd-firstboot.service; do ln -sf /dev/null /usr/local/lib/systemd/system/$unit; done

step "first generation"
toplevel=$(build '<nixpkgs/nixos>' -A system --no-out-link)
nix-env --option build-users-group '' -p $system --set "$toplevel"
$system/activate
sed -i '/^127\.0\.0\.2 /d' /etc/hosts # the name of the computer that builds the tree
mkdir -p /usr/lib/systemd/debian
mv /usr/lib/systemd/systemd /usr/lib/systemd/debian/systemd
cp $sources/tools/systemd-wrapper.sh /usr/lib/systemd/systemd
chmod 0755 /usr/lib/systemd/systemd

rm -rf /root/.cache /nix/var/nix/builds/*
chown root:nixbld /nix/store
chmod 1775 /nix/store
