"""A plan's diffs for people, without the parts of no interest."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from provisioner.diff import label
from provisioner.hooks import HOOKS
from provisioner.report.wording import count
from provisioner.steps.wanted import SETTINGS


def for_people(diffs: Sequence[str]) -> tuple[str, ...]:
    """Leave out our own module's code where it comes or goes as a whole. The diff in --json has it."""
    told: list[str] = []
    for (comes, goes), group in groupby(diffs, _whole_code_of_ours):
        texts = list(group)
        told += [_in_short(texts, comes=comes)] if comes or goes else texts
    return tuple(told)


def _whole_code_of_ours(text: str) -> tuple[bool, bool]:
    """Whether a whole file of our code comes, and whether one goes."""
    old, new = _names(text)
    folder, _, name = max(old, new, key=len).rpartition("/")
    is_ours = any(folder == hook.module for hook in HOOKS) and name != SETTINGS
    return is_ours and old == "/dev/null", is_ours and new == "/dev/null"


def _names(text: str) -> tuple[str, str]:
    """The two paths in the head of a unified diff."""
    old, new = (line.split("\t")[0][len("+++ ") :] for line in text.split("\n", 2)[:2])
    return old, new


def _in_short(texts: Sequence[str], *, comes: bool) -> str:
    head = 3  # both names, and the one hunk
    lines = sum(text.count("\n") - head for text in texts)
    module = max(_names(texts[0]), key=len).rpartition("/")[0]
    old, new = ("/dev/null", module) if comes else (module, "/dev/null")
    said = f"{count(len(texts), 'file')}, {count(lines, 'line')} of nixprov's own"
    return f"--- {label(old, 'host')}\n+++ {label(new, 'nixprov')}\n@@ {said} @@\n"
