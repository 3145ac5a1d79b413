#!/bin/sh
cat <<'END'
{"g": ["h"], "_meta": {"hostvars": [1]}}
END
