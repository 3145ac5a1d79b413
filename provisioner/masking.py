"""Stars for secrets in foreign text: the second line of defence."""

from __future__ import annotations

import re
from typing import Final

from provisioner.ci import KINDS

# Credentials of every provider there is, whichever runs.
_TOKENS: Final = tuple(re.compile(kind.secrets) for kind in KINDS.values())
# In Nix or in JSON. Repetitions are bounded: a file of nothing but `tokentokentoken` must not take the square of its
# length.
_SECRET_VALUE: Final = re.compile(
    r"""(?ix) ( (?:password|passwd|passphrase|secret|token|private_?key|psk)
        (?! File | _file | Path | Version ) \w{0,64} "? \s{0,16} [=:] \s{0,16} ) ( "(?:[^"\\]|\\.)*" | ''.*?'' )"""
)


def without_tokens(text: str) -> str:
    """What looks like a credential of a provider is cut to its prefix."""
    for tokens in _TOKENS:
        text = tokens.sub(r"\1***", text)
    return text


def masked(text: str) -> str:
    """Lines of a file for a diff: tokens, and what is assigned to a name that sounds like a secret, as stars."""
    return without_tokens(_SECRET_VALUE.sub(r'\1"***"', text))
