#!/bin/sh
cat <<'END'
{"web": {"hosts": ["h1", "h2"], "vars": {"v": 1}}, "p": {"children": ["web"], "vars": {"v": 0, "w": 2}}, "_meta": {"hostvars": {"h1": {"x": [1, true, null]}, "ghost": {"y": 1}}}}
END
