"""Reading the words of `ansible_ssh_common_args` and the like as OpenSSH options.

Source: ssh(1) and ssh_config(5). Owns: the list of options that nixprov understands; the others are named in a
warning.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Final

OPTIONS: Final = frozenset(
    {
        *("addressfamily", "bindaddress", "certificatefile", "ciphers", "compression", "connectionattempts"),
        *("connecttimeout", "forwardagent", "globalknownhostsfile", "hostkeyalgorithms", "hostkeyalias", "hostname"),
        *("identitiesonly", "identityagent", "identityfile", "kexalgorithms", "macs", "passwordauthentication"),
        *("port", "preferredauthentications", "proxycommand", "proxyjump", "pubkeyacceptedalgorithms"),
        *("pubkeyauthentication", "serveralivecountmax", "serveraliveinterval", "stricthostkeychecking", "user"),
        "userknownhostsfile",
    }
)
# about sharing and noise of OpenSSH's own processes: nixprov keeps one connection per host by itself
_WITHOUT_EFFECT: Final = frozenset({"batchmode", "controlmaster", "controlpath", "controlpersist", "loglevel"})
_FLAGS: Final = {
    "4": ("addressfamily", "inet"),
    "6": ("addressfamily", "inet6"),
    "A": ("forwardagent", "yes"),
    "C": ("compression", "yes"),
    "a": ("forwardagent", "no"),
}
_QUIET_FLAGS: Final = frozenset("Tnqtvx")
_WITH_VALUE: Final = {"J": "proxyjump", "b": "bindaddress", "i": "identityfile", "l": "user", "p": "port"}
_OTHERS_WITH_VALUE: Final = frozenset("BDEFILOPQRSWcemw")


def parse(text: str) -> tuple[dict[str, str], list[str]]:
    """The options by lower-case name, and the ignored words. The first value of an option counts, as for ssh.

    Raises ValueError: the words cannot be split, or an option lacks its value.
    """
    options: dict[str, str] = {}
    ignored: list[str] = []
    for name, value, word in _options(shlex.split(text)):
        if name in OPTIONS:
            options.setdefault(name, value)
        elif name not in _WITHOUT_EFFECT:
            ignored.append(word)
    return options, ignored


def _options(words: list[str]) -> Iterator[tuple[str, str, str]]:
    """Each option's name ("" if unknown), value, and how to name it to people."""
    rest = iter(words)
    for word in rest:
        if len(word) < 2 or not word.startswith("-") or word == "--":  # noqa: PLR2004
            yield "", "", word
        else:
            yield from _letters(word[1:], rest)


def _letters(letters: str, rest: Iterator[str]) -> Iterator[tuple[str, str, str]]:
    """One word of single-letter options; the first one with a value takes the rest."""
    for place, letter in enumerate(letters, start=1):
        if letter in _FLAGS:
            yield *_FLAGS[letter], f"-{letter}"
        elif letter == "o" or letter in _WITH_VALUE or letter in _OTHERS_WITH_VALUE:
            value = letters[place:] or next(rest, "")
            if not value:
                raise ValueError(f"-{letter} needs a value")
            yield _option(value) if letter == "o" else (_WITH_VALUE.get(letter, ""), value, f"-{letter}")
            return
        elif letter not in _QUIET_FLAGS:
            yield "", "", f"-{letter}"


def _option(text: str) -> tuple[str, str, str]:
    """`Name=value`, `Name value`, `Name = value`."""
    name, equals, value = text.replace("=", " = ", 1).partition(" = ")
    if not equals or " " in name.strip():
        name, _, value = text.strip().partition(" ")
    name, value = name.strip(), value.strip()
    if not value:
        raise ValueError(f"-o {name} needs a value")
    return name.lower(), value.strip('"'), f"-o {name}"
