#!/bin/sh
cat <<'END'
{"g": {"hosts": ["h[1:3]", "h:22"], "vars": {"u": {"__ansible_unsafe": "{{ x }}"}}}, "_meta": {"hostvars": {}}}
END
