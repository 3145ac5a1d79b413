#!/bin/sh
# layer.sh BASE LAYER NIXOS GUEST
#
# Turns Debian into the stand-in NixOS: LAYER/upper gets the changes that NIXOS/install.sh makes to BASE.
# BASE stays untouched. NIXOS and GUEST are directories of this package; they are copied to /opt/lab of the tree.
# To be run as root in mount and pid namespaces of its own, as base.sh.
set -eu
umask 022
base=$1 layer=$2 nixos=$3 guest=$4
root=$layer/root
mkdir -p "$layer/upper" "$layer/work" "$root"
mount -t overlay -o "lowerdir=$base,upperdir=$layer/upper,workdir=$layer/work,redirect_dir=on,index=off,metacopy=off" lab "$root"

mkdir -p "$root/opt/lab/nixos"
cp -R "$nixos/." "$root/opt/lab/nixos/"
cp -R "$guest/." "$root/opt/lab/"
find "$root/opt/lab" -name __pycache__ -type d -prune -exec rm -rf {} +
chmod -R a+rX,go-w "$root/opt/lab"
chmod 0755 "$root/opt/lab/nixos/install.sh"

echo "stand-in NixOS: building its first generation"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs -o mode=0755 tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
  chroot "$root" /opt/lab/nixos/install.sh >&2
umount "$root/tmp" "$root/run" "$root/sys" "$root/proc"
umount -R -l "$root/dev"
umount "$root"
rm -rf "$layer/work" "$root"
