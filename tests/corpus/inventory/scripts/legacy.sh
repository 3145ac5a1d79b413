#!/bin/sh
cat <<'END'
{"web": ["h1", "h2"], "lone": {"a": 1}, "_meta": {"hostvars": {}}}
END
