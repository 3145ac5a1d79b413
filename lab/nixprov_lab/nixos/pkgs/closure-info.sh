# store-paths: every path of the closure, one a line. (registration and total-nar-size are not imitated.)
set -e
. "$NIX_ATTRS_SH_FILE"
out=${outputs[out]}
mkdir "$out"
grep -o '"path":"[^"]*"' "$NIX_ATTRS_JSON_FILE" | sed 's/^"path":"//; s/"$//' | sort -u > "$out/store-paths"
