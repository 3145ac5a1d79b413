"""From raw output to log lines: secrets masked, then stamped (gitlab-runner's common/buildlogger)."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final

MASK: Final = b"[MASKED]"
TOKEN_PREFIXES: Final = tuple(
    prefix.encode()
    for prefix in (
        *("glpat-", "gloas-", "gldt-", "glrt-", "glcbt-", "glrtr-", "glptt-", "glft-", "glimt-", "glagent-"),
        *("glsoat-", "glffct-", "_gitlab_session=", "gltok-"),
    )
)
_TOKEN_BYTES: Final = rb"[-.0-9A-Za-z_=]"
_URL_SECRETS: Final = (
    rb"[?&](?:private_token|authenticity_token|rss_token|x-amz-signature|x-amz-credential|x-amz-security-token)="
)
_LONGEST_LINE: Final = 8 * 1024
Write = Callable[[bytes], None]


class Masker:
    """Replaces secrets, also those in two pieces, and so holds back the possible start of one."""

    def __init__(self, phrases: Iterable[str], prefixes: Iterable[str] = ()) -> None:
        self._phrases = sorted({phrase.encode() for phrase in phrases if phrase}, key=len, reverse=True)
        self._starts = sorted(
            {*TOKEN_PREFIXES, *(prefix.encode() for prefix in prefixes if prefix)}, key=len, reverse=True
        )
        starts = b"|".join(re.escape(start) for start in self._starts)
        open_ended = rb"(?P<start>" + starts + rb")" + _TOKEN_BYTES + rb"+|(?P<key>(?i:" + _URL_SECRETS + rb"))[^&\s]+"
        whole = [re.escape(phrase) for phrase in self._phrases]
        self._secret = re.compile(b"|".join([*whole, open_ended]))
        self._maybe_longer = re.compile(rb"(?:" + starts + rb")" + _TOKEN_BYTES + rb"*\Z|[?&][-\w]*(?:=[^&\s]*)?\Z")
        self._pending = b""

    def feed(self, data: bytes) -> bytes:
        self._pending += data
        cut = self._safe_end()
        ready, self._pending = self._pending[:cut], self._pending[cut:]
        return self._secret.sub(_replacement, ready)

    def end(self) -> bytes:
        ready, self._pending = self._pending, b""
        return self._secret.sub(_replacement, ready)

    def _safe_end(self) -> int:
        data = self._pending
        cut = len(data)
        found = self._maybe_longer.search(data)
        if found:
            cut = found.start()
        for word in (*self._phrases, *self._starts):
            for length in range(min(len(word) - 1, len(data)), 0, -1):
                if data.endswith(word[:length]):
                    cut = min(cut, len(data) - length)
                    break
        # The end of a secret may start another one, so it goes out in one piece or not yet.
        return min(
            (found.start() for found in self._secret.finditer(data) if found.start() < cut < found.end()), default=cut
        )


def _replacement(found: re.Match[bytes]) -> bytes:
    return (found["start"] or found["key"] or b"") + MASK


class Stamper:
    """`2026-01-02T03:04:05.678901Z 01O text`: time, stream number in hex, O or E, a blank or `+` for a continued line.

    Lines go out when they are complete, at a carriage return, or when longer than 8 KiB.
    """

    def __init__(self, write: Write, number: int, kind: str) -> None:
        self._write = write
        self._label = f"{number:02x}{kind}"
        self._line = b""
        self._flag = " "

    def feed(self, data: bytes) -> None:
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._put(line + b"\n")
        if not rest:
            return
        if not self._line:
            self._line = self._header()
        self._line += rest
        if b"\r" in rest or len(self._line) > _LONGEST_LINE:
            self.end()
            self._flag = "+"

    def _put(self, text: bytes) -> None:
        self._write((self._line or self._header()) + text)
        self._line = b""

    def end(self) -> None:
        if self._line:
            self._write(self._line + b"\n")
            self._line = b""

    def _header(self) -> bytes:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        header = f"{now} {self._label}{self._flag}".encode()
        self._flag = " "
        return header


class Stream:
    """One stream of a job's output; safe to use from several threads."""

    def __init__(self, write: Write, masker: Masker, stamper: Stamper | None) -> None:
        self._write = write
        self._masker = masker
        self._stamper = stamper
        self._lock = threading.Lock()

    def write(self, data: bytes) -> None:
        with self._lock:
            self._put(self._masker.feed(data))

    def close(self) -> None:
        with self._lock:
            self._put(self._masker.end())
            if self._stamper:
                self._stamper.end()

    def _put(self, data: bytes) -> None:
        if not data:
            return
        if self._stamper:
            self._stamper.feed(data)
        else:
            self._write(data)


class JobLog:
    """The job's log for people: the runner's own lines in gitlab-runner's colours, and streams for the job's output."""

    _RUNNER: Final = 0
    _WORK: Final = 1

    def __init__(self, write: Write, secrets: Iterable[str], prefixes: Iterable[str], *, timestamps: bool) -> None:
        self._sink = write
        self._secrets = tuple(secrets)
        self._prefixes = tuple(prefixes)
        self._timestamps = timestamps
        self._own = self._stream(self._RUNNER, "O")

    def stdout(self) -> Stream:
        return self._stream(self._WORK, "O")

    def stderr(self) -> Stream:
        return self._stream(self._WORK, "E")

    def _stream(self, number: int, kind: str) -> Stream:
        stamper = Stamper(self._sink, number, kind) if self._timestamps else None
        return Stream(self._sink, Masker(self._secrets, self._prefixes), stamper)

    def raw(self, text: str) -> None:
        self._own.write(text.encode())

    def line(self, text: str) -> None:
        self.raw(f"\033[0K{text}\033[0;m\n")

    def title(self, text: str) -> None:
        self.line(f"\033[36;1m{text}\033[0;m")

    def info(self, text: str) -> None:
        self.raw(f"\033[32;1m{text}\033[0;m\n")

    def warning(self, text: str) -> None:
        self.raw(f"\033[0;33mWARNING: {text}\033[0;m\n")

    def error(self, text: str) -> None:
        self.raw(f"\033[31;1mERROR: {text}\033[0;m\n")

    def close(self) -> None:
        self._own.close()
