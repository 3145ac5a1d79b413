"""Unified diffs of what a plan would change."""

from __future__ import annotations

import difflib

from provisioner.plan import FileChange


def unified(change: FileChange) -> str:
    """One file as `diff -u` would show it; bytes that are not UTF-8 appear as replacement characters."""
    before, after = (_lines(content) for content in (change.before, change.after))
    old = change.path if change.before is not None else "/dev/null"
    new = change.path if change.after is not None else "/dev/null"
    return "".join(difflib.unified_diff(before, after, f"{old} (host)", f"{new} (nixprov)"))


def _lines(content: bytes | None) -> list[str]:
    return (content or b"").decode("utf-8", "replace").splitlines(keepends=True)
