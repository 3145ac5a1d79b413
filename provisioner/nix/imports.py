"""Puts our hook into a NixOS module's `imports`, and takes it out again, on the syntax tree.

Owns the hook's text and the editable shapes of a file. Finds the hook again after people and formatters worked on the
file. An edit is one contiguous insertion, so that its removal gives every other byte back. Knows nothing of files,
hosts and backups. The caller checks that the host's own Nix accepts the text (`nix-instantiate --parse`).
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Final, TypeAlias

from provisioner.nix import syntax
from provisioner.nix.syntax import Node, NotUnderstood

# Builtins only: the file's arguments may lack `lib`, and `config` or `pkgs` recurse for ever here. The condition tests
# the file, not the directory: an empty directory would pass, and then break the user's own rebuilds.
HOOK: Final = "(if builtins.pathExists ./nixprov/default.nix then ./nixprov/default.nix else { })"
LINE_MARK: Final = '# nixprov: added by "nixprov up", removed by "nixprov down"'
INLINE_MARK: Final = "/* nixprov */"
ENTRY: Final = f"{HOOK} {LINE_MARK}"
ATTRIBUTE: Final = f"imports = [ {HOOK} ]; {LINE_MARK}"

_HOOK: Final = HOOK.encode()
_INLINE_ENTRY: Final = f"{HOOK} {INLINE_MARK}".encode()
_INLINE_ATTRIBUTE: Final = f"imports = [ {HOOK} ]; {INLINE_MARK}".encode()
_PREFIX: Final = f"[ {HOOK} ] {INLINE_MARK} ++ ".encode()
# Formatters turn `/* x */` into `# x`, so that the short mark is known in both forms.
_MARK: Final = re.compile(
    rb"[ \t]*(?:/\*[ \t]*nixprov[ \t]*\*/"
    rb'|#[ \t]*nixprov(?:: added by "nixprov up", removed by "nixprov down")?(?=[ \t\r]*(?:\n|\Z)))'
)
_PREFIX_TAIL: Final = re.compile(_MARK.pattern + rb"\s*\+\+ ?")
_WHOLE_LINE: Final = re.compile(
    rb"^[ \t]*(?:" + re.escape(ENTRY.encode()) + rb"|" + re.escape(ATTRIBUTE.encode()) + rb")\r?\n", re.MULTILINE
)
_COMMENTED: Final = re.compile(
    rb"(?:#|/\*)[#\s]*(?:imports = \[ )?" + re.escape(_HOOK) + rb"(?: \];)?\s*(?:# nixprov[^\n]*)?\s*(?:\*/)?"
)
_BLANK_LINE_END: Final = re.compile(rb"[ \t]*(?:\r?\n|\Z)")
_LONGEST_HOOK: Final = 2000
# Expressions that may stand to the right of `++` without parentheses.
_OPERANDS: Final = frozenset(
    {"apply_expression", "select_expression", "variable_expression", "parenthesized_expression"}
)

_Span: TypeAlias = tuple[int, int]


class Style(Enum):
    """How the hook went in."""

    ENTRY_LINE = "a line of its own in the list"
    ENTRY_INLINE = "an entry in a one-line list"
    PREFIX = "a list in front of an expression"
    ATTRIBUTE_LINE = "a new line that sets imports"
    ATTRIBUTE_INLINE = "a new imports attribute in a one-line set"


class Presence(Enum):
    """The state of our hook in a file."""

    ABSENT = "the hook is absent"
    PRESENT = "the hook is already there"
    ELSEWHERE = "the hook is there, but not in a list that surely is imports"
    SEVERAL = "the hook is there more than once"
    COMMENTED_OUT = "the hook is commented out"
    CHANGED = "./nixprov is used in words that are not ours"
    UNREADABLE = "the file does not parse"


class Refused(ValueError):
    """A file that is not edited.

    `reason` is one line in lower case, `line` the text to add, or delete, by hand.
    """

    def __init__(self, reason: str, line: str = ENTRY) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line


@dataclass(frozen=True, slots=True)
class Edit:
    """A file with the hook in it: `text` is the old bytes with `inserted` put in at byte `offset`."""

    text: bytes
    offset: int
    inserted: bytes
    style: Style


@dataclass(frozen=True, slots=True)
class _Traces:
    """All that is ours in a file: entries of lists, entries commented out, other uses of the directory."""

    hooks: tuple[Node, ...] = ()
    commented: tuple[Node, ...] = ()
    references: tuple[Node, ...] = ()

    @property
    def line(self) -> int:
        return min(syntax.line_of(node) for node in (*self.hooks, *self.commented, *self.references))


def add(source: bytes, folder: str) -> Edit:
    """Put the hook into the module's `imports`, in the style of the file; `folder` is where the file lies.

    Line ends, indentation and bytes that are not UTF-8 stay as they are. Raises Refused for a file that has the hook
    already or does not parse. Raises Refused too where one insertion cannot surely extend the imports.
    """
    if source.startswith(b"\xef\xbb\xbf"):
        raise Refused("line 1: the file starts with a byte order mark, which Nix rejects")
    if re.search(rb"\r(?!\n)", source):
        # Nix ends a comment there, the grammar does not: the two would see different code.
        raise Refused("the file has a carriage return without a newline")
    root = syntax.parse(source)
    if root is None:
        raise Refused(Presence.UNREADABLE.value)
    presence = find(source, folder)
    if presence is not Presence.ABSENT:
        raise Refused(f"line {_traces(root, source, folder).line}: {presence.value}")
    offset, inserted, style = _place(root, source)
    edit = Edit(source[:offset] + inserted + source[offset:], offset, inserted, style)
    if find(edit.text, folder) is not Presence.PRESENT or remove(edit.text, folder) != source:
        raise Refused("the edit could not be taken back exactly")
    return edit


def remove(source: bytes, folder: str) -> bytes | None:
    """Take the hook out wherever it now stands, with its mark; None when there is none.

    An entry that was reformatted, repeated or commented out is found too; additions of people beside it stay. Raises
    Refused when the file does not parse, or would still use ./nixprov by an entry that is not ours.
    """
    root = syntax.parse(source)
    if root is None:
        return _remove_lines(source)
    text = source
    while spans := _next_spans(_traces(root, text, folder), text):
        for start, end in sorted(spans, reverse=True):
            text = text[:start] + text[end:]
        root = syntax.parse(text)
        if root is None:
            raise Refused("without the hook the file would not parse")
    left = _traces(root, text, folder).references
    if left:
        raise Refused(f"line {syntax.line_of(left[0])}: {Presence.CHANGED.value}")
    return None if text == source else text


def find(source: bytes, folder: str) -> Presence:
    """Say whether the hook is in the file: once, unchanged but for its layout, and where NixOS reads it."""
    root = syntax.parse(source)
    if root is None:
        return Presence.UNREADABLE
    traces = _traces(root, source, folder)
    if traces.references:
        return Presence.CHANGED
    if len(traces.hooks) > 1:
        return Presence.SEVERAL
    if traces.hooks:
        return Presence.PRESENT if _is_imported(traces.hooks[0], root) else Presence.ELSEWHERE
    return Presence.COMMENTED_OUT if traces.commented else Presence.ABSENT


def _traces(root: Node, source: bytes, folder: str) -> _Traces:
    if b"nixprov" not in source:
        return _Traces()
    nodes = list(syntax.walk(root))
    hooks = [node for node in nodes if _is_hook(node, source, folder)]
    commented = [node for node in nodes if node.type == "comment" and _COMMENTED.fullmatch(_text(node, source))]
    paths = [node for node in nodes if node.type == "path_expression" and _is_ours(_text(node, source), folder)]
    outside = [path for path in paths if not any(_contains(hook, path) for hook in hooks)]
    return _Traces(tuple(hooks), tuple(commented), tuple(outside))


def _is_hook(node: Node, source: bytes, folder: str) -> bool:
    is_entry = node.type == "parenthesized_expression" and node.parent and node.parent.type == "list_expression"
    if not is_entry or node.end_byte - node.start_byte > _LONGEST_HOOK:
        return False
    # The absolute path: people add it by hand where configuration.nix is a link.
    return [token.replace(f"{folder}/".encode(), b"./") for token in _tokens(node, source)] == _hook_tokens()


@cache
def _hook_tokens() -> list[bytes]:
    root = syntax.parse(_HOOK)
    return _tokens(root, _HOOK) if root else []


def _tokens(top: Node, source: bytes) -> list[bytes]:
    return [_text(node, source) for node in syntax.walk(top) if not node.children and node.type != "comment"]


def _is_ours(path: bytes, folder: str) -> bool:
    clean = posixpath.normpath(path.decode("latin-1"))
    return clean.removeprefix(f"{folder}/").split("/")[0] == "nixprov"


def _contains(outer: Node, inner: Node) -> bool:
    return outer.start_byte <= inner.start_byte and inner.end_byte <= outer.end_byte


def _text(node: Node, source: bytes) -> bytes:
    return source[node.start_byte : node.end_byte]


def _is_imported(hook: Node, root: Node) -> bool:
    try:
        binding = _imports(syntax.module(root))
    except (NotUnderstood, Refused):
        return False
    literals = syntax.lists(syntax.field(binding, "expression")) if binding else ()
    return any(hook.parent == literal for literal in literals)


def _imports(module: Node) -> Node | None:
    """Find the one binding `imports = …;` of the module."""
    named = [(syntax.names(binding), binding) for binding in syntax.bindings(module)]
    attributes = {path[0] for path, binding in named if path and binding.type == "binding"}
    if "outputs" in attributes and attributes & {"inputs", "description"}:
        raise Refused("the file is a flake; the hook belongs into one of its modules")
    found = [
        (path, binding) for path, binding in named if "imports" in (path[:1] if binding.type == "binding" else path)
    ]
    if any(len(found) > 1 or binding.type != "binding" or len(path) > 1 for path, binding in found):
        raise Refused(f"line {syntax.line_of(found[-1][1])}: imports is inherited, or set in several places")
    return found[0][1] if found else None


def _place(root: Node, source: bytes) -> tuple[int, bytes, Style]:
    try:
        module = syntax.module(root)
    except NotUnderstood as problem:
        raise Refused(str(problem), ATTRIBUTE) from None
    binding = _imports(module)
    if binding is None:
        return _new_attribute(module, source)
    value = syntax.field(binding, "expression")
    for literal in syntax.lists(value):
        return _new_entry(literal, source)
    while value.type in syntax.SCOPES:
        value = syntax.field(value, "body")
    if value.type not in _OPERANDS and not syntax.is_concatenation(value):
        raise Refused(f"line {syntax.line_of(value)}: imports is not a list that one insertion can extend")
    return value.start_byte, _PREFIX, Style.PREFIX


def _new_entry(literal: Node, source: bytes) -> tuple[int, bytes, Style]:
    children = literal.named_children
    end = _end(children[-1], source) if children else literal.start_byte + 1
    gap = source[end : literal.end_byte - 1]
    # Entries before comments: an entry in a comment often stands at the margin.
    starters = sorted((child for child in children if _starts_line(child, source)), key=lambda c: c.type != "comment")
    if b"\n" in gap:
        offset = end + gap.index(b"\n") + 1
        indent = _indent(starters[-1], source) if starters else _hanging_indent(literal, source)
        return offset, indent + ENTRY.encode() + _newline_before(offset, source), Style.ENTRY_LINE
    if starters:
        newline = _newline_before(_line_start(starters[-1].start_byte, source), source)
        return end, newline + _indent(starters[-1], source) + _INLINE_ENTRY, Style.ENTRY_LINE
    return end, (b" " if children or gap else b"") + _INLINE_ENTRY, Style.ENTRY_INLINE


def _hanging_indent(literal: Node, source: bytes) -> bytes:
    """Indent as the entry beside the bracket; where there is none, one step deeper than the closing bracket."""
    for child in literal.named_children:
        if child.type != "comment":
            start = source[_line_start(child.start_byte, source) : child.start_byte]
            return re.sub(rb"[^ \t]", b" ", start)
    return _step_in(_indent_at(literal.end_byte - 1, source))


def _new_attribute(module: Node, source: bytes) -> tuple[int, bytes, Style]:
    brace = next(child for child in module.children if child.type == "{")
    end = brace.end_byte
    for child in module.children[module.children.index(brace) + 1 :]:
        if child.type != "comment" or b"\n" in source[end : child.start_byte]:
            break
        end = _end(child, source)
    line_end = re.compile(rb"[ \t]*\r?\n").match(source, end)
    if line_end is None:
        gap = b" " if source[brace.end_byte : brace.end_byte + 1].isspace() else b""
        return brace.end_byte, gap + _INLINE_ATTRIBUTE, Style.ATTRIBUTE_INLINE
    starters = [child for child in (*syntax.bindings(module), *module.named_children) if _starts_line(child, source)]
    indent = _indent(starters[0], source) if starters else _step_in(_indent_at(module.end_byte - 1, source))
    offset = line_end.end()
    return offset, indent + ATTRIBUTE.encode() + _newline_before(offset, source), Style.ATTRIBUTE_LINE


def _next_spans(traces: _Traces, source: bytes) -> list[_Span]:
    """The byte ranges to delete for one more trace to be gone; they do not overlap."""
    if traces.hooks:
        return _hook_spans(traces.hooks[0], source)
    return [_widened((node.start_byte, _end(node, source)), source) for node in traces.commented[:1]]


def _hook_spans(hook: Node, source: bytes) -> list[_Span]:
    literal = hook.parent
    binding = literal.parent if literal else None
    mark = _MARK.match(source, hook.end_byte)
    entry = _widened((hook.start_byte, mark.end() if mark else hook.end_byte), source, _follows_comment(hook, source))
    if mark or literal is None or binding is None:
        return [entry]
    is_alone = len(literal.named_children) == 1
    is_attribute = binding.type == "binding"
    behind = _MARK.match(source, binding.end_byte) if is_attribute else None
    if is_alone and behind:
        return [_widened((binding.start_byte, behind.end()), source)]
    prefix = _PREFIX_TAIL.match(source, literal.end_byte)
    if is_alone and prefix and not is_attribute:
        return [(literal.start_byte, prefix.end())]
    behind = behind or _MARK.match(source, literal.end_byte)
    return [entry, behind.span()] if behind else [entry]


def _follows_comment(node: Node, source: bytes) -> bool:
    before = node.prev_sibling
    return before is not None and before.type == "comment" and _text(before, source).startswith(b"#")


def _widened(span: _Span, source: bytes, is_line_break_needed: bool = False) -> _Span:
    """Add the blanks of the text: its whole line when nothing else is in it, or those to its left."""
    start, end = span
    line = _line_start(start, source)
    rest = _BLANK_LINE_END.match(source, end)
    if not source[line:start].strip(b" \t"):
        if rest:
            return line, rest.end()
        blanks = len(source) - end - len(source[end:].lstrip(b" \t"))
        if is_line_break_needed or source[end + blanks : end + blanks + 1] != b"]":
            return start, end + blanks
        return line - len(_newline_before(line, source)), end
    is_set_off = source[start - 1 : start] == b" " and (rest or source[end : end + 1] in b" \t])};")
    return (start - 1 if is_set_off else start), end


def _remove_lines(source: bytes) -> bytes | None:
    """Take our lines out of a file that does not parse, unless something else there may be about us."""
    text = _WHOLE_LINE.sub(b"", source)
    if b"./nixprov" in text:
        raise Refused("the file does not parse, and still uses ./nixprov")
    return None if text == source else text


def _end(node: Node, source: bytes) -> int:
    """Give the end of a node; the grammar counts the carriage return before a newline as part of a comment."""
    return node.start_byte + len(_text(node, source).rstrip(b"\r\n"))


def _line_start(offset: int, source: bytes) -> int:
    return source.rfind(b"\n", 0, offset) + 1


def _newline_before(offset: int, source: bytes) -> bytes:
    return b"\r\n" if source[:offset].endswith(b"\r\n") else b"\n"


def _starts_line(node: Node, source: bytes) -> bool:
    line = _line_start(node.start_byte, source)
    return line > 0 and not source[line : node.start_byte].strip(b" \t")


def _indent(node: Node, source: bytes) -> bytes:
    return source[_line_start(node.start_byte, source) : node.start_byte]


def _indent_at(offset: int, source: bytes) -> bytes:
    line = source[_line_start(offset, source) : offset]
    return line[: len(line) - len(line.lstrip(b" \t"))]


def _step_in(indent: bytes) -> bytes:
    return indent + (b"\t" if indent.endswith(b"\t") else b"  ")
