#!/bin/sh
[ "$1" = --host ] && { cat <<END
{"name": "$2", "n": 3}
END
exit; }
cat <<'END'
{"web": {"hosts": ["h1", "h2"]}}
END
