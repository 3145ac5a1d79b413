"""The longest accepted output of a host, GitLab or a program. Bytes, all generous.

A longer answer fails with one line that names the limit, and fails nothing else. Times are bounded where the waiting is
done: `Limits` of the engine, `Patience` of GitLab.
"""

from __future__ import annotations

import errno
from typing import Final

KIB: Final = 1 << 10
MIB: Final = 1 << 20

# One command's answer, which is kept. A probe's has our module (200 KiB) and the owner's configuration. A preview's has
# a line of at most 300 bytes a path, so a closure of 200,000 paths fits.
HOST_ANSWER: Final = 64 * MIB
# A switch's log, which only passes: eight builds with the 128 MiB that a job's build may print.
HOST_LOG: Final = 1024 * MIB
# Before the script begins: the greetings of login shells.
HOST_GREETING: Final = 1 * MIB
# Before there is a root shell: a lecture and a refusal of sudo, doas or run0.
HOST_ELEVATION: Final = 64 * KIB
# Lines of a log that wait for the cursor behind them. Beyond it they are shown, and some come twice after a cut.
HELD_LOG: Final = 1 * MIB
# A line of a log; a longer one is cut into pieces.
HOST_LINE: Final = 64 * KIB
# Characters of an error's line.
ERROR: Final = 4 * KIB
# A packet of ssh: OpenSSH sends and takes 256 KiB at most (packet.c, PACKET_MAX_SIZE).
SSH_PACKET: Final = 256 * KIB
# Lines before the first packet: RFC 4253, 4.2, has 255 bytes for the version, and no limit before it.
SSH_BANNER: Final = 64 * KIB
# A reply of GitLab's, unpacked. A page of 100 runners with the longest texts that GitLab allows (2 KiB each) is 200
# KiB.
GITLAB_REPLY: Final = 16 * MIB
# Entries of one list of GitLab's; a page has 100.
GITLAB_ENTRIES: Final = 100_000
# An inventory, a file of variables, or the output of an inventory script.
INVENTORY: Final = 64 * MIB
# A password, a token.
SECRET: Final = 64 * KIB
# The errors of ssh about its configuration, and of a proxy command.
SSH_WORDS: Final = 1 * MIB


def told(limit: int) -> str:
    """`64 MiB`."""
    return f"{limit // MIB} MiB" if limit >= MIB else f"{limit // KIB} KiB"


class TooLongError(OSError):
    """A file, a reply or a program's output that is longer than it can sensibly be."""

    def __init__(self, limit: int) -> None:
        super().__init__(errno.EFBIG, f"longer than {told(limit)}")
