#!/bin/sh
# Stands where Debian's systemd stood: container managers start that one by its path. As PID 1 of a machine that boots
# it first lets the boot default activate itself, as the second stage of NixOS' start does; then, as ever, it is systemd.
if [ $$ = 1 ] && [ ! -e /run/booted-system ]; then
    /nix/var/nix/profiles/system/init
fi
exec /usr/lib/systemd/debian/systemd "$@"
