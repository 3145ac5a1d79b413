"""How much a host, GitLab or a program may say before it is not believed any more. Bytes, all generous.

Whoever says more fails with one line that names the limit, and nobody else fails with it. Times are bounded where the
waiting is done: `Limits` of the engine, `Patience` of GitLab.
"""

from __future__ import annotations

import errno
from typing import Final

KIB: Final = 1 << 10
MIB: Final = 1 << 20

# One command's answer, which is kept. A probe's is made of our module (200 KiB) and the owner's configuration; a
# preview's has a line of at most 300 bytes a path, so that a closure of 200,000 paths fits.
HOST_ANSWER: Final = 64 * MIB
# A switch's log, which only passes: eight builds that reach the 128 MiB that a job's build may say.
HOST_LOG: Final = 1024 * MIB
# Before the script begins: what login shells greet with.
HOST_GREETING: Final = 1 * MIB
# Before there is a root shell: what sudo, doas or run0 say, a lecture and a refusal.
HOST_ELEVATION: Final = 64 * KIB
# Lines of a log that wait for the cursor behind them; beyond it they are shown, and after a cut some come twice.
HELD_LOG: Final = 1 * MIB
# A line of a log; a longer one is cut into pieces.
HOST_LINE: Final = 64 * KIB
# Characters of a line that says what went wrong.
ERROR: Final = 4 * KIB
# A packet of ssh: OpenSSH sends and takes 256 KiB at most (packet.c, PACKET_MAX_SIZE).
SSH_PACKET: Final = 256 * KIB
# Lines before the first packet: RFC 4253, 4.2, has 255 bytes for the version, and no limit for what stands before it.
SSH_BANNER: Final = 64 * KIB
# A reply of GitLab's, unpacked: a page of 100 runners with all the text that GitLab allows each (2 KiB) is 200 KiB.
GITLAB_REPLY: Final = 16 * MIB
# Entries of one list of GitLab's; a page has 100.
GITLAB_ENTRIES: Final = 100_000
# An inventory, a file of variables, or what an inventory script prints.
INVENTORY: Final = 64 * MIB
# A password, a token.
SECRET: Final = 64 * KIB
# What ssh says of its configuration, and what a proxy command complains of.
SSH_WORDS: Final = 1 * MIB


def told(limit: int) -> str:
    """`64 MiB`."""
    return f"{limit // MIB} MiB" if limit >= MIB else f"{limit // KIB} KiB"


class TooLongError(OSError):
    """A file, a reply or what a program prints, that is longer than it can sensibly be."""

    def __init__(self, limit: int) -> None:
        super().__init__(errno.EFBIG, f"longer than {told(limit)}")
