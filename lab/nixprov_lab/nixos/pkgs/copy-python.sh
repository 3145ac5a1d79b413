# Python with its standard library; it finds the library beside itself.
set -eu
version=$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
mkdir -p "$out/bin" "$out/lib"
cp -L "$python" "$out/bin/$version"
"$python" "$relocate" "$out/bin/$version" "$libraries/lib/loader" "$libraries/lib"
cp -R "/usr/lib/$version" "$out/lib/"
ln -s "$version" "$out/bin/python3"
"$out/bin/python3" -c 'import ssl, json, http.client, subprocess, threading'
