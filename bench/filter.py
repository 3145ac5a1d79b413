"""The cost of the filter: bytes up, bytes down and small paths, against the same daemon's own socket.

Usage: python -m bench.filter [--rounds N] [--mib N] [--paths N]      (root; needs nix-bin; makes a store of its own)

Both sockets lead to the same daemon of this computer, in turn, with new contents each time. Bytes are sent and read by
the same small client on both sides. Small paths are added by `nix-store --add`, all in one process.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

from tests.contract.nix_store import DAEMONS, Store, daemon_program, filtered_store
from tests.unit.protocol import ADD_TO_STORE, GREETING, LAST, NAR_FROM_PATH, number, text, texts

PIECE = 1 << 15  # as src/libutil/serialise.hh has it
THROUGH = {"plain socket": "daemon", "filter": "socket"}


def main() -> None:
    options = _options()
    with filtered_store(daemon_program(DAEMONS[0])) as store:
        _compare(store, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--paths", type=int, default=2000)
    return parser.parse_args()


def _compare(store: Store, options: argparse.Namespace) -> None:
    seconds: dict[str, dict[str, list[float]]] = {name: {"up": [], "down": [], "small": []} for name in THROUGH}
    peaks = []
    for at in range(options.rounds):
        for name, through in THROUGH.items():
            with Client(store.root / through) as client:
                _transfer(client, f"{through}{at}".encode(), options.mib, seconds[name])
                peaks.append(_peak_of_filter(store))
            files = list(_small_files(store.root / f"small-{through}-{at}", options.paths))
            started = time.perf_counter()
            _add(store, files, through)
            seconds[name]["small"].append(time.perf_counter() - started)
    _print(seconds, peaks, options)


def _transfer(client: Client, seed: bytes, mib: int, seconds: Mapping[str, list[float]]) -> None:
    started = time.perf_counter()
    path = client.add(seed, mib)
    added = time.perf_counter()
    client.read(path, mib)
    seconds["up"].append(added - started)
    seconds["down"].append(time.perf_counter() - added)


class Client:
    """One connection that adds an archive of one file and reads it again."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._file = self._socket.makefile("rb", buffering=1 << 20)

    def __enter__(self) -> Self:
        self._socket.sendall(GREETING)
        self._file.read(16)
        self._until_last()
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def add(self, seed: bytes, mib: int) -> str:
        self._socket.sendall(number(ADD_TO_STORE) + text("blob") + text("fixed:r:sha256") + texts() + number(0))
        head = b"".join(map(text, ("nix-archive-1", "(", "type", "regular", "contents"))) + number(mib << 20)
        block = (seed * PIECE)[:PIECE]
        self._socket.sendall(number(len(head)) + head)
        frame = number(PIECE) + block
        for _ in range((mib << 20) // PIECE):
            self._socket.sendall(frame)
        end = text(")")
        self._socket.sendall(number(len(end)) + end + number(0))
        self._until_last()
        added = self._text()
        for field in ("text", "text", "texts", "number", "number", "number", "texts", "text"):
            self._skip(field)
        return added

    def read(self, path: str, mib: int) -> None:
        self._socket.sendall(number(NAR_FROM_PATH) + text(path))
        self._until_last()
        size = len(b"".join(map(text, ("nix-archive-1", "(", "type", "regular", "contents")))) + 8 + (mib << 20) + 16
        while size:
            size -= len(self._file.read1(min(size, 1 << 20)))

    def _skip(self, kind: str) -> None:
        if kind == "texts":
            for _ in range(self._number()):
                self._text()
        elif kind == "text":
            self._text()
        else:
            self._number()

    def _until_last(self) -> None:
        """Past version and trust to the end of the log; the daemon has nothing to say meanwhile."""
        recent = b""
        while not recent.endswith(number(LAST)):
            byte = self._file.read(8)
            if not byte:
                sys.exit("the daemon hung up")
            recent = (recent + byte)[-64:]

    def _number(self) -> int:
        return int.from_bytes(self._file.read(8), "little")

    def _text(self) -> str:
        size = self._number()
        return self._file.read(size + -size % 8)[:size].decode()


def _small_files(folder: Path, count: int) -> Iterator[str]:
    folder.mkdir()
    for at in range(count):
        path = folder / f"file{at}"
        path.write_text(f"{folder.name} {at}\n")
        yield str(path)


def _add(store: Store, files: list[str], through: str) -> None:
    done = store.nix("nix-store", "--add", *files, through=through)
    if done.returncode:
        sys.exit(done.stderr)


def _peak_of_filter(store: Store) -> int:
    """Peak memory, in KiB, of the filter's process for the one open connection."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            status = (process / "status").read_text()
        except OSError:
            continue
        parent = re.search(r"^PPid:\t(\d+)$", status, re.MULTILINE)
        if f"{store.root}/filter".encode() in command and parent and int(parent[1]) != os.getpid():
            found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
            return int(found[1]) if found else 0
    return 0


def _print(seconds: Mapping[str, Mapping[str, list[float]]], peaks: list[int], options: argparse.Namespace) -> None:
    plain, filtered = seconds["plain socket"], seconds["filter"]
    amounts = {
        "up": f"{options.mib} MiB up",
        "down": f"{options.mib} MiB down",
        "small": f"{options.paths} small paths",
    }
    print(f"median of {options.rounds} rounds; rate: of the plain socket's")
    for what, name in amounts.items():
        ratios = [before / after for before, after in zip(plain[what], filtered[what], strict=True)]
        middle, least, most = statistics.median(ratios), min(ratios), max(ratios)
        print(
            f"  {name:<18} plain {statistics.median(plain[what]):6.2f} s"
            f"   filter {statistics.median(filtered[what]):6.2f} s   rate {middle:4.0%} ({least:.0%} to {most:.0%})"
        )
    print(f"  memory of the filter's process, at most: {max(peaks) / 1024:.1f} MiB")


if __name__ == "__main__":
    main()
