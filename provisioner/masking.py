"""The second line of defence: what looks like a secret in foreign text becomes stars."""

from __future__ import annotations

import re
from typing import Final

# Tokens by the prefixes GitLab gives them (doc/security/tokens, "Token prefixes").
_TOKENS: Final = re.compile(r"\b(gl(?:pat|rt|rtr|cbt|dt|ptt|oas|soat|agent|imt|ft)-)[\w.-]{6,}")
# In Nix or in JSON. Repetitions are bounded: a file of nothing but `tokentokentoken` must not take the square of its
# length.
_SECRET_VALUE: Final = re.compile(
    r"""(?ix) ( (?:password|passwd|passphrase|secret|token|private_?key|psk)
        (?! File | _file | Path | Version ) \w{0,64} "? \s{0,16} [=:] \s{0,16} ) ( "(?:[^"\\]|\\.)*" | ''.*?'' )"""
)


def without_tokens(text: str) -> str:
    """What looks like one of GitLab's tokens is cut to its prefix."""
    return _TOKENS.sub(r"\1***", text)


def masked(text: str) -> str:
    """Lines of a file for a diff: tokens, and what is assigned to a name that sounds like a secret, as stars."""
    return without_tokens(_SECRET_VALUE.sub(r'\1"***"', text))
