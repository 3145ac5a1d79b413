"""A host's merged variables as its address, login and way to root.

Source: Ansible's documentation of the `ssh` connection plugin and of the become plugins, their variables. Knows
neither files' grammars nor runners.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from provisioner.errors import InventoryError
from provisioner.inventory import ssh_args
from provisioner.inventory.origin import Notices, Var, kind_of, nearest
from provisioner.model import Become, Connection, FrozenDict, Secret
from provisioner.paths import expanded

BECOME_METHODS: Final = ("sudo", "doas", "run0")
PASSWORDS: Final = frozenset(
    {
        *("ansible_password", "ansible_ssh_pass", "ansible_ssh_password", "ansible_ssh_private_key_passphrase"),
        *("ansible_become_password", "ansible_become_pass", "ansible_sudo_pass", "ansible_sudo_password"),
    }
)
_ADDRESS: Final = ("ansible_host", "ansible_ssh_host")
_PORT: Final = ("ansible_port", "ansible_ssh_port")
_USER: Final = ("ansible_user", "ansible_ssh_user")
_KEY: Final = ("ansible_ssh_private_key_file", "ansible_private_key_file")
_ARGS: Final = ("ansible_ssh_args", "ansible_ssh_common_args", "ansible_ssh_extra_args")
_CHECKING: Final = ("ansible_ssh_host_key_checking", "ansible_host_key_checking")
_TIMEOUT: Final = ("ansible_ssh_timeout", "ansible_timeout")
_BECOME_PASSWORD: Final = ("ansible_become_password", "ansible_become_pass", "ansible_sudo_pass")
_CONNECTIONS: Final = frozenset({"ssh", "smart", "paramiko", "paramiko_ssh"})
_IGNORED: Final = (
    *("ansible_password", "ansible_ssh_pass", "ansible_ssh_password", "ansible_ssh_private_key_passphrase"),
    *("ansible_become_exe", "ansible_become_flags"),
)
_TRUE: Final = frozenset({"yes", "true", "on", "y", "t", "1"})
_FALSE: Final = frozenset({"no", "false", "off", "n", "f", "0"})
_MOST_PORT: Final = 65_535


def is_password(name: str) -> bool:
    return name in PASSWORDS


class Variables:
    """One host's merged variables, asked by type; an error names host, variable, expected type, file and line."""

    def __init__(self, host: str, values: Mapping[str, Var]) -> None:
        self.host = host
        self.values = values

    def find(self, names: Sequence[str]) -> str | None:
        """The first of the names that has a value."""
        return next((name for name in names if name in self.values and self.values[name].value is not None), None)

    def text(self, names: Sequence[str]) -> str | None:
        """A non-empty string, or a number as one."""
        name = self.find(names)
        if name is None:
            return None
        value = _revealed(self.values[name].value)
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise self.error(name, f"expected a string, got {kind_of(value)}")
        return self._plain(name, str(value)) or None

    def number(self, names: Sequence[str], most: int) -> int | None:
        name, text = self.find(names), self.text(names)
        if name is None or text is None:
            return None
        if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= most and len(text) < 10):  # noqa: PLR2004
            raise self.error(name, f"expected a whole number from 1 to {most}")
        return int(text)

    def boolean(self, names: Sequence[str]) -> bool | None:
        name = self.find(names)
        if name is None:
            return None
        text = str(_revealed(self.values[name].value)).lower()
        if text not in _TRUE | _FALSE:
            raise self.error(name, "expected true or false")
        return text in _TRUE

    def error(self, name: str, message: str, *, hint: str = "") -> InventoryError:
        return self.values[name].where.error(f"host {self.host}: {name}: {message}", hint=hint)

    def _plain(self, name: str, text: str) -> str:
        if "{{" in text or "{%" in text:
            raise self.error(name, "templates are not evaluated", hint="write the value itself")
        if "\0" in text:
            raise self.error(name, "has a NUL character in it")
        return text


def connection(variables: Variables, notices: Notices) -> Connection:
    """Read the `ansible_*` variables of one host.

    An option of ansible_ssh_*_args with its own field fills it where no variable does. The others stay in `options`.
    Raises InventoryError.
    """
    _check_plugin(variables)
    _warn_of_ignored(variables, notices)
    options = _options(variables, notices)
    from_args = {name: options.pop(name, None) for name in ("port", "user", "identityfile")}
    port = variables.number(_PORT, _MOST_PORT) or (int(from_args["port"]) if from_args["port"] else None)
    return Connection(
        address=variables.text(_ADDRESS) or variables.host,
        port=port,
        user=variables.text(_USER) or from_args["user"],
        identity_file=_expanded(variables.text(_KEY) or from_args["identityfile"]),
        become=_become(variables),
        options=FrozenDict(options),
    )


def concealed(name: str, value: object) -> object:
    """A variable's value as it may be passed around: a password, by its name, becomes a Secret."""
    if is_password(name) and value is not None and not isinstance(value, Secret):
        return Secret(str(value))
    return value


def _check_plugin(variables: Variables) -> None:
    plugin = variables.text(["ansible_connection"])
    if plugin is not None and plugin.rpartition(".")[2] not in _CONNECTIONS:
        raise variables.error(
            "ansible_connection", f"{plugin} is not supported", hint="nixprov reaches every host by ssh"
        )


def _warn_of_ignored(variables: Variables, notices: Notices) -> None:
    for name in _IGNORED:
        if name in variables.values:
            notices.warn(f"{name} is ignored", variables.values[name].where)


def _options(variables: Variables, notices: Notices) -> dict[str, str]:
    options: dict[str, str] = {}
    for name in _ARGS:
        for key, value in _from_args(name, variables, notices).items():
            options.setdefault(key, value)
    # an option with its own variable stands before the args on Ansible's command line, and so wins
    checking, timeout = variables.boolean(_CHECKING), variables.number(_TIMEOUT, 86_400)
    if checking is not None:
        options["stricthostkeychecking"] = "yes" if checking else "no"
    if timeout is not None:
        options["connecttimeout"] = str(timeout)
    return options


def _from_args(name: str, variables: Variables, notices: Notices) -> dict[str, str]:
    text = variables.text([name])
    if text is None:
        return {}
    try:
        options, ignored = ssh_args.parse(text)
    except ValueError as error:
        message = str(error)
        raise variables.error(name, message[:1].lower() + message[1:]) from error
    if "port" in options and not (options["port"].isdigit() and 1 <= int(options["port"][:9]) <= _MOST_PORT):
        raise variables.error(name, f"{options['port']} is not a valid port")
    for word in ignored:
        hint = nearest(word.removeprefix("-o ").lower(), ssh_args.OPTIONS) if word.startswith("-o ") else ""
        notices.warn(f"{name}: {word} is ignored" + (f"; {hint}" if hint else ""), variables.values[name].where)
    return options


def _become(variables: Variables) -> Become | None:
    """None where the inventory leaves it open or says no. A password or method alone means that become is wanted."""
    if variables.boolean(["ansible_become"]) is False:
        return None
    method, user = variables.text(["ansible_become_method"]), variables.text(["ansible_become_user"])
    password = variables.text(_BECOME_PASSWORD)
    if not (variables.boolean(["ansible_become"]) or method or password):
        return None
    method = (method or "sudo").rpartition(".")[2]
    if method not in BECOME_METHODS:
        raise variables.error("ansible_become_method", f"{method} is not one of {', '.join(BECOME_METHODS)}")
    if user not in {None, "root"}:
        raise variables.error("ansible_become_user", "must be root, which alone may switch a configuration")
    return Become(method=method, password=Secret(password) if password else None)


def _expanded(path: str | None) -> str | None:
    return str(expanded(path)) if path and path.startswith("~") else path


def _revealed(value: object) -> object:
    return value.reveal() if isinstance(value, Secret) else value
