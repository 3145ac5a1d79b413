"""The errors of the bridge; all but the last two are met inside a pass:

BridgeError              nixprov's base for the bridge
├── BridgeUnavailable    one side is silent or asks for patience; the next pass tries again
├── LeaseLost            GitLab's ref has changed since it was seen; the next pass looks again
├── Moved                the pull request has changed since it was seen; the next pass looks again
├── Unbuildable          this commit is refused, and a person has to look
├── Unsafe               settings of GitLab or of the App would let a stranger's job do more than build
└── Busy                 another bridge works on the same state
"""

from __future__ import annotations

from enum import Enum

from provisioner.errors import NixprovError


class Side(Enum):
    GITHUB = "GitHub"
    GITLAB = "GitLab"


class BridgeError(NixprovError):
    pass


class BridgeUnavailable(BridgeError):
    """`wait_s`: the patience that this side asked for, in seconds."""

    def __init__(self, side: Side, message: str, *, wait_s: float = 0.0) -> None:
        super().__init__(f"{side.value}: {message}")
        self.side = side
        self.wait_s = wait_s


class LeaseLost(BridgeError):
    pass


class Moved(BridgeError):
    pass


class Unbuildable(BridgeError):
    """The message is a fixed sentence, fit for the page of the pull request."""


class Unsafe(BridgeError):
    pass


class Busy(BridgeError):
    pass
