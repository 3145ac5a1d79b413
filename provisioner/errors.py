"""All refusals and failures of nixprov; foreign exceptions never leave their seam.

    NixprovError
    ├── ConfigError            what the operator gave us: options, inventory, plays, templates
    │   ├── InventoryError     ... with file and line
    │   └── NothingSelected    a pattern that selects no host
    ├── HostError              something about one machine; carries the host's inventory name
    │   ├── Unreachable        no connection: refused, timed out, unknown name
    │   │   └── HostKeyError   the key is unknown or has changed
    │   ├── HostRefused        connected, but may not: authentication, sudo, not NixOS
    │   ├── HookRefused        the user's configuration cannot be edited surely
    │   ├── NotDescribed       what runs is not what the user's configuration describes
    │   ├── RemoteFailed       a remote command ended with an unexpected status
    │   │   └── NothingChanged ... a transaction, before its first change: full disk, read-only disk
    │   ├── ConnectionLost     the connection went while a command was running
    │   ├── Locked             another operator's run holds the host
    │   ├── BuildFailed        evaluation or build said no; nothing was activated
    │   └── SwitchFailed       the activation failed
    ├── NotUnsealed            what was sealed with another key, or changed on its way
    └── CiError                the provider of CI, seen from the operator
        ├── CiUnavailable      no usable answer: down, timed out, 5xx, rate limit for too long
        └── CiRefused          understood, and said no: token, scope, role, bad value

A message is one line in lower case and names the fault; `hint` is the next thing to do. Each error pickles, with any
`__init__`; its cause and its traceback stay behind.
"""

from __future__ import annotations

from collections.abc import Mapping


class NixprovError(Exception):
    """The base of all expected failures: printed as one line, never as a traceback."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (type(self), self.args, vars(self))


def _restored(kind: type[NixprovError], arguments: tuple[object, ...], fields: Mapping[str, object]) -> NixprovError:
    """Without `__init__`: its parameters differ from the `args` that an exception keeps."""
    error = kind.__new__(kind, *arguments)
    vars(error).update(fields)
    return error


class ConfigError(NixprovError):
    pass


class InventoryError(ConfigError):
    """An inventory or play that cannot be read as meant.

    `file` is the path as the operator gave it, `line` counts from 1 (0: the file as a whole).
    """

    def __init__(self, message: str, *, file: str = "", line: int = 0, hint: str = "") -> None:
        where = f"{file}:{line}: " if file and line else f"{file}: " if file else ""
        super().__init__(where + message, hint=hint)
        self.file = file
        self.line = line


class NothingSelected(ConfigError):
    pass


class HostError(NixprovError):
    """A failure of one machine; `host` is its name in the inventory."""

    def __init__(self, host: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.host = host


class Unreachable(HostError):
    pass


class HostKeyError(Unreachable):
    pass


class HostRefused(HostError):
    pass


class HookRefused(HostError):
    pass


class NotDescribed(HostError):
    pass


class RemoteFailed(HostError):
    pass


class NothingChanged(RemoteFailed):
    pass


class ConnectionLost(HostError):
    pass


class Locked(HostError):
    pass


class BuildFailed(HostError):
    pass


class SwitchFailed(HostError):
    pass


class NotUnsealed(NixprovError):
    pass


class CiError(NixprovError):
    pass


class CiUnavailable(CiError):
    pass


class CiRefused(CiError):
    pass
