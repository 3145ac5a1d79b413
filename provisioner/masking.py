"""Stars for secrets in foreign text: the second line of defence."""

from __future__ import annotations

import re
from typing import Final

from provisioner.ci import KINDS

# Credentials of all providers, not only of the one in use.
_TOKENS: Final = tuple(re.compile(kind.secrets) for kind in KINDS.values())
# In Nix or in JSON. Repetitions are bounded: a file of nothing but `tokentokentoken` must not take quadratic time.
_SECRET_VALUE: Final = re.compile(
    r"""(?ix) ( (?:password|passwd|passphrase|secret|token|private_?key|psk)
        (?! File | _file | Path | Version ) \w{0,64} "? \s{0,16} [=:] \s{0,16} )
        ( "(?:[^"\\]|\\[\s\S])*" | ''[\s\S]*?'' )"""
)


def without_tokens(text: str) -> str:
    """Cut the credentials of all providers to their prefix."""
    for tokens in _TOKENS:
        text = tokens.sub(r"\1***", text)
    return text


def masked(text: str) -> str:
    """Lines of a file for a diff, with stars for tokens and for values of names that sound secret."""
    return without_tokens(_SECRET_VALUE.sub(r'\1"***"', text))
