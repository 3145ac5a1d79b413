#!/bin/sh
# base.sh TREE RELEASE FIRST LATER APT_CONF
#
# Makes Debian RELEASE in TREE: FIRST (comma separated) by debootstrap, LATER (space separated) by apt in the tree.
# APT_CONF is a file with this computer's proxy settings and the like, in the tree only for the time of the build.
# To be run as root in mount and pid namespaces of its own, so that nothing it mounts can outlive it.
# Progress for people on standard output, everything else on standard error.
set -eu
umask 022
tree=$1 release=$2 first=$3 later=$4 apt_conf=$5
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8

echo "Debian $release: downloading and unpacking (about a minute)"
debootstrap --variant=minbase --include="$first" "$release" "$tree" >&2

echo "Debian $release: Nix, podman, Docker and their libraries (about a minute)"
mount -t proc proc "$tree/proc"
mount --rbind /dev "$tree/dev"
mount -t sysfs -o ro sysfs "$tree/sys"
mount -t tmpfs tmpfs "$tree/run"
cp "$apt_conf" "$tree/etc/apt/apt.conf.d/99nixprov-lab"
rm -f "$tree/etc/resolv.conf"
cp /etc/resolv.conf "$tree/etc/resolv.conf"
# Packages must not start anything on the computer that builds the tree.
printf '#!/bin/sh\nexit 101\n' >"$tree/usr/sbin/policy-rc.d"
chmod 0755 "$tree/usr/sbin/policy-rc.d"
chroot "$tree" apt-get -q update >&2
# shellcheck disable=SC2086 # a list of package names
chroot "$tree" apt-get -q -y --no-install-recommends install $later >&2
# polkit wants logind's PAM module; sessions of the machine's users stay as they are without it.
chroot "$tree" pam-auth-update --package --remove systemd >&2
chroot "$tree" apt-get -q clean >&2
umount -R "$tree/proc" "$tree/sys" "$tree/run"
umount -R -l "$tree/dev"

# NixOS has no Python in reach; the stand-in runner finds this one by its full path.
mkdir -p "$tree/opt/lab/bin"
mv "$tree"/usr/bin/python3* "$tree/opt/lab/bin/"

# The computer's cgroups may have no pids controller, and no systemd of the machine's user is asked for a cgroup.
conf=$tree/usr/share/containers/containers.conf
sed -i 's/^#pids_limit = .*/pids_limit = 0/; s/^#cgroup_manager = .*/cgroup_manager = "cgroupfs"/' "$conf"
grep -q '^pids_limit = 0' "$conf"
grep -q '^cgroup_manager = "cgroupfs"' "$conf"

# Machines without a way out fetch no updates, and their host keys are known before they start.
rm -f "$tree"/etc/systemd/system/timers.target.wants/* "$tree"/etc/systemd/system/*/sshd-keygen.service

# Hosts are told apart by these; each gets its own before it starts.
rm -f "$tree"/etc/ssh/ssh_host_* "$tree/var/lib/dbus/machine-id" "$tree/var/lib/systemd/random-seed"
: >"$tree/etc/machine-id"
rm -rf "$tree"/var/lib/apt/lists/* "$tree"/var/cache/* "$tree"/var/log/*
rm -f "$tree/usr/sbin/policy-rc.d" "$tree/etc/apt/apt.conf.d/99nixprov-lab" "$tree/etc/resolv.conf"
