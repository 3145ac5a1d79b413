#!/bin/sh
cat <<'END'
{"g": {"hosts": {"a": 1}}, "_meta": {"hostvars": {}}}
END
