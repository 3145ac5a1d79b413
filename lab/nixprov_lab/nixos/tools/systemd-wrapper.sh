#!/bin/sh
# Takes the place of Debian's systemd, which container managers start by its path. As PID 1 of a booting machine
# it first lets the boot default activate itself, as the second stage of NixOS' start does. Then it becomes systemd.
if [ $$ = 1 ] && [ ! -e /run/booted-system ]; then
    /nix/var/nix/profiles/system/init
fi
exec /usr/lib/systemd/debian/systemd "$@"
