# Programs of a Debian package, for machines without Debian.
set -eu
mkdir -p "$out/bin"
for program in $programs; do
    name=$(basename "$program")
    if [ -L "$program" ] && [ "$(dirname "$(readlink "$program")")" = . ]; then
        ln -s "$(readlink "$program")" "$out/bin/$name"
        continue
    fi
    cp -L "$program" "$out/bin/$name"
    chmod 0755 "$out/bin/$name"
    if [ "$(head -c 2 "$program")" = '#!' ]; then
        sed -i "1s,^#! */bin/sh,#!$shell/bin/sh,; 1s,^#! */bin/bash,#!$shell/bin/sh," "$out/bin/$name"
    else
        "$python" "$relocate" "$out/bin/$name" "$libraries/lib/loader" "$libraries/lib"
    fi
done
eval "$extra"
