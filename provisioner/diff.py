"""Unified diffs of a plan's changes: files, and settings of runners at the provider. Secrets are stars."""

from __future__ import annotations

import difflib
import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Literal, TypeAlias

from typing_extensions import override

from provisioner.ci.base import RunnerAction, RunnerVerb, Words
from provisioner.masking import masked
from provisioner.plan import FileChange, HostPlan

NO_NEWLINE = "\\ No newline at end of file\n"
_CONTEXT: Final = 3
_MATCHED: Final = 2000
_Tag: TypeAlias = Literal["replace", "delete", "insert", "equal"]


def unified(change: FileChange) -> str:
    """One file as `diff -u` would show it; bytes that are not UTF-8 appear as replacement characters."""
    old = change.path if change.before is not None else "/dev/null"
    new = change.path if change.after is not None else "/dev/null"
    hunks = "".join(
        line if line.endswith("\n") else f"{line}\n{NO_NEWLINE}"
        for line in _hunks(_lines(change.before), _lines(change.after))
    )
    return masked(f"--- {label(old, 'host')}\n+++ {label(new, 'nixprov')}\n{hunks}") if hunks else ""


def _hunks(before: Sequence[str], after: Sequence[str]) -> Iterator[str]:
    for group in _Compared(before, after).get_grouped_opcodes(_CONTEXT):
        (_, old, _, new, _), (_, _, old_end, _, new_end) = group[0], group[-1]
        yield f"@@ -{_range(old, old_end)} +{_range(new, new_end)} @@\n"
        for tag, old, old_end, new, new_end in group:
            if tag == "equal":
                yield from (f" {line}" for line in before[old:old_end])
                continue
            yield from (f"-{line}" for line in before[old:old_end])
            yield from (f"+{line}" for line in after[new:new_end])


def _range(start: int, end: int) -> str:
    """As `diff -u` counts: from 1, but an empty range from the line before it."""
    length = end - start
    return f"{start + 1}" if length == 1 else f"{start + bool(length)},{length}"


class _Compared(difflib.SequenceMatcher[str]):
    """Two files, compared from their first difference to their last.

    difflib takes more than the square of the lines between, and one of the two files is a host's. Beyond some thousand
    lines all of them count as replaced.
    """

    def __init__(self, before: Sequence[str], after: Sequence[str]) -> None:
        super().__init__()
        self._before, self._after = before, after

    @override
    def get_opcodes(self) -> list[tuple[_Tag, int, int, int, int]]:
        old, new = self._before, self._after
        head = _alike(zip(old, new, strict=False))
        tail = _alike(zip(reversed(old[head:]), reversed(new[head:]), strict=False))
        middle = self._middle(old[head : len(old) - tail], new[head : len(new) - tail])
        codes: list[tuple[_Tag, int, int, int, int]] = [("equal", 0, head, 0, head)]
        codes += [(tag, a + head, b + head, c + head, d + head) for tag, a, b, c, d in middle]
        codes.append(("equal", len(old) - tail, len(old), len(new) - tail, len(new)))
        return [code for code in codes if code[1] != code[2] or code[3] != code[4]]

    def _middle(self, old: Sequence[str], new: Sequence[str]) -> list[tuple[_Tag, int, int, int, int]]:
        if old and new and max(len(old), len(new)) > _MATCHED:
            return [("replace", 0, len(old), 0, len(new))]
        return difflib.SequenceMatcher(None, old, new).get_opcodes()


def _alike(pairs: Iterable[tuple[str, str]]) -> int:
    """The number of equal pairs at the start."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def plan_diffs(plan: HostPlan, files: Sequence[FileChange]) -> tuple[str, ...]:
    """All diffs of a plan: the provider's first, because it comes first."""
    runners = (runner_diff(action, plan.words) for action in plan.runner_changes)
    return tuple(text for text in (*runners, *map(unified, files)) if text)


def runner_diff(action: RunnerAction, words: Words) -> str:
    """A runner's settings before and after, in the form of a unified diff; empty when none of them changes."""
    changes = list(_settings(action))
    if not changes and action.verb is not RunnerVerb.DELETE:
        return ""
    id_ = "" if action.id is None else f" #{action.id}"
    known = f"{words.name} {words.runner} {_one_line(action.name)}{id_}"
    old = "/dev/null" if action.verb is RunnerVerb.CREATE else f"{known}\t({words.name})"
    new = "/dev/null" if action.verb is RunnerVerb.DELETE else f"{known}\t(nixprov)"
    body = "".join(
        f"{sign}{name}: {_one_line(value)}\n"
        for name, before, after in changes
        for sign, value in (("-", before), ("+", after))
        if value is not None
    )
    return masked(f"--- {old}\n+++ {new}\n{body}")


def _settings(action: RunnerAction) -> Iterator[tuple[str, str | None, str | None]]:
    yield from ((name, None, value) for name, value in action.settings)
    yield from ((difference.name, difference.before, difference.after) for difference in action.differences)


def _one_line(text: str) -> str:
    return text.replace("\n", "\\n")


def label(path: str, side: str) -> str:
    # A tab ends the name in a unified diff, so that `patch` reads it.
    return path if path == "/dev/null" else f"{_one_line(path)}\t({side})"


def _lines(content: bytes | None) -> list[str]:
    # Not splitlines, which also ends lines at U+2028 and the like, unlike editors and `diff`.
    return io.StringIO((content or b"").decode("utf-8", "replace"), newline="\n").readlines()
