#!/bin/sh
# newer-nix.sh BASE LAYER SUITE APT_CONF
#
# Gives Debian the Nix of another of its suites: LAYER/upper gets what apt changes in BASE, which stays untouched.
# APT_CONF is a file with this computer's proxy settings and the like, in the layer only for the time of the build.
# To be run as root in mount and pid namespaces of its own, as base.sh.
set -eu
umask 022
base=$1 layer=$2 suite=$3 apt_conf=$4
root=$layer/root
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
mkdir -p "$layer/upper" "$layer/work" "$root"
mount -t overlay -o "lowerdir=$base,upperdir=$layer/upper,workdir=$layer/work,redirect_dir=on,index=off,metacopy=off" lab "$root"

echo "Debian $suite: its Nix and the libraries of it (about half a minute)"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs tmpfs "$root/run"
cp "$apt_conf" "$root/etc/apt/apt.conf.d/99nixprov-lab"
cp /etc/resolv.conf "$root/etc/resolv.conf"
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 0755 "$root/usr/sbin/policy-rc.d"
# Only what this Nix asks for comes from there; the rest of the machine stays what it is.
mirror=$(sed -n 's/^deb \(\[[^]]*\] \)*\([^ ]*\) .*/\2/p' "$root/etc/apt/sources.list" | head -n 1)
echo "deb $mirror $suite main" >"$root/etc/apt/sources.list.d/newer.list"
printf 'Package: *\nPin: release n=%s\nPin-Priority: 100\n' "$suite" >"$root/etc/apt/preferences.d/newer"
chroot "$root" apt-get -q update >&2
chroot "$root" apt-get -q -y --no-install-recommends -t "$suite" install nix-bin >&2
chroot "$root" nix --version >&2
chroot "$root" apt-get -q clean >&2
umount -R "$root/proc" "$root/sys" "$root/run"
umount -R -l "$root/dev"
rm -rf "$root"/var/lib/apt/lists/* "$root"/var/cache/* "$root"/var/log/*
rm -f "$root/usr/sbin/policy-rc.d" "$root/etc/apt/apt.conf.d/99nixprov-lab" "$root/etc/resolv.conf"
umount "$root"
rm -rf "$layer/work" "$root"
