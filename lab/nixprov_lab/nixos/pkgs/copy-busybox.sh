# busybox and a link for each of its applets.
set -eu
mkdir -p "$out/bin"
cp -L /bin/busybox "$out/bin/busybox"
"$out/bin/busybox" --list | while read -r applet; do
    [ "$applet" = busybox ] || ln -s busybox "$out/bin/$applet"
done
