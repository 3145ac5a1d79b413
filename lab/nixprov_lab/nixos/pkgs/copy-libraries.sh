# The loader and every library that the copied programs load.
set -eu
mkdir -p "$out/lib"
# shellcheck disable=SC2086 # lists, and patterns on purpose
set -- $programs $(find $folders -type f \( -perm -u+x -o -name '*.so' \))
# ldd ends with 1 when one of the files is a script.
{ ldd "$@" 2>/dev/null || true; } | sed -n 's/^\t.* => \(\/[^ ]*\) (.*/\1/p; s/^\t\(\/[^ ]*\) (.*/\1/p' | sort -u |
    while read -r library; do cp -L "$library" "$out/lib/"; done
for library in libgcc_s.so.1 libnss_dns.so.2 libnss_files.so.2; do
    cp -L /lib/*-linux-gnu/$library "$out/lib/"
done
ln -s "$(cd "$out/lib" && echo ld-linux*)" "$out/lib/loader"
