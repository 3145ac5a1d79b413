"""Questions to a host. Each runs in a unit of its own, over other files if need be, and changes only the store.

`aside.sh` beside this file is the frame of a question; `preview.sh` and `origin.sh` ask (ADR 0015, 0023).
"""

from __future__ import annotations

import base64
import shlex
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Final

from provisioner.machine.lock import CONNECTION

LIMIT_S: Final = 3600
# The last record of a whole answer.
LAST: Final = "answer-end"


def script(
    purpose: str, run: str, question: str, folder: str, edits: Mapping[str, bytes | None], *arguments: str
) -> bytes:
    """The script for `sh -s`, as root. `question` names the file that asks; `folder` is that of the configuration.

    `edits` maps the paths of files below it to other content; None stands for an absent file.
    """
    others = [_edit(path.removeprefix(f"{folder}/"), content) for path, content in edits.items()]
    frame = _text("aside.sh").replace("@EDITS@", "\n  ".join(others))
    unit = f"nixprov-{purpose}-{run}"
    values = {"unit": unit, "purpose": purpose, "limit": LIMIT_S, "arguments": shlex.join([folder, *arguments])}
    return _START.format(**values, find=CONNECTION, program=frame + _text(question)).encode()


# The unit's folder goes with the unit, however it ends. The program is on standard input and read whole before it
# starts. It holds the user's files, so it does not lie where others could read it.
_START: Final = """\
export LC_ALL=C PATH="/run/wrappers/bin:/run/current-system/sw/bin:$PATH"
{find}set -- $(connection)
systemd-run --quiet --collect --pipe --wait --service-type=exec --unit={unit} --description='nixprov: {purpose}' \\
  --property=RuntimeDirectory={unit} --property=RuntimeDirectoryMode=0700 --property=PrivateMounts=yes \\
  --property=RuntimeMaxSec={limit} --property='ExecStopPost=-/bin/sh /run/{unit}/forget.sh' \\
  /bin/sh -s -- "${{1-}}" "${{2-}}" {arguments} << 'END-OF-QUESTION'
{{
{program}
}} < /dev/null
END-OF-QUESTION
"""


@cache
def _text(name: str) -> str:
    return files("provisioner.machine").joinpath(name).read_text(encoding="utf-8")


def _edit(path: str, content: bytes | None) -> str:
    place = shlex.quote(path)
    if content is None:
        return f"rm -f {place}"
    data = base64.b64encode(content).decode()
    # `rm` first: a write through a link would leave the copy.
    return f'mkdir -p "$(dirname {place})" && rm -f {place} && printf %s {shlex.quote(data)} | base64 -d > {place}'


def log_line(line: str) -> str | None:
    """The text of a line of the log; None for a record."""
    return line.removeprefix("log ") if line.startswith("log ") else None
