# Builder of runCommand: the build environment, then the command. It is in a file because it may be long.
set -eo pipefail
. "$stdenv/setup"
. "$buildCommandPath"
