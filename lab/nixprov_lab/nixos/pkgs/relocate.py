"""Makes an ELF program start through another loader and look for its libraries in another directory.

usage: relocate.py PROGRAM LOADER LIBRARIES

It does patchelf's work for the lab's one case: 64-bit little-endian executables as Debian links them. Both strings are
appended in a page of their own, which is mapped by a former note segment. The library path goes into a spare entry of
the dynamic section (the linker leaves five). It is DT_RPATH, not DT_RUNPATH, since it also holds for the libraries' own
libraries. Layout: System V ABI, chapters 4 and 5.
"""
# ruff: noqa: INP001 - a script of a Nix build, in no package

import struct
import sys
from pathlib import Path

PAGE = 0x1000
LOAD, DYNAMIC, INTERP, NOTE = 1, 2, 3, 4
DT_NULL, DT_STRTAB, DT_RPATH, DT_RUNPATH = 0, 5, 15, 29
SEGMENT = struct.Struct("<IIQQQQQQ")  # type flags offset vaddr paddr filesz memsz align
ENTRY = struct.Struct("<qQ")


def segments(elf: bytearray) -> list[tuple[int, list[int]]]:
    (start,) = struct.unpack_from("<Q", elf, 0x20)
    size, count = struct.unpack_from("<HH", elf, 0x36)
    return [(at, list(SEGMENT.unpack_from(elf, at))) for at in range(start, start + size * count, size)]


def set_library_path(elf: bytearray, dynamic: list[int], address: int) -> None:
    """Give the dynamic section a DT_RPATH whose string stands at an address of our own page."""
    places = range(dynamic[2], dynamic[2] + dynamic[5], ENTRY.size)
    entries = [(at, *ENTRY.unpack_from(elf, at)) for at in places]
    strings = next(value for _, tag, value in entries if tag == DT_STRTAB)
    old = [at for at, tag, _ in entries if tag in (DT_RPATH, DT_RUNPATH)]
    spare = [at for at, tag, _ in entries if tag == DT_NULL][:-1]
    if not (old or spare):
        raise SystemExit("no spare entry in the dynamic section")
    ENTRY.pack_into(elf, (old or spare)[0], DT_RPATH, address - strings)


def relocate(program: Path, loader: str, libraries: str) -> None:
    elf = bytearray(program.read_bytes())
    if elf[:6] != b"\x7fELF\x02\x01":
        raise SystemExit(f"{program}: not a 64-bit little-endian ELF file")
    table = segments(elf)
    by_type = {segment[0]: (at, segment) for at, segment in table}
    if INTERP not in by_type:
        return  # static
    end = max(segment[3] + segment[6] for _, segment in table if segment[0] == LOAD)
    address = -(-end // PAGE) * PAGE
    elf.extend(bytes(-len(elf) % PAGE))
    offset = len(elf)
    page = libraries.encode() + b"\0" + loader.encode() + b"\0"
    elf.extend(page)

    place = len(libraries.encode()) + 1
    at, interp = by_type[INTERP]
    length = len(loader.encode()) + 1
    interp[2:7] = [offset + place, address + place, address + place, length, length]
    SEGMENT.pack_into(elf, at, *interp)
    at, _ = by_type[NOTE]
    SEGMENT.pack_into(elf, at, LOAD, 4, offset, address, address, len(page), len(page), PAGE)
    set_library_path(elf, by_type[DYNAMIC][1], address)
    program.write_bytes(elf)


if __name__ == "__main__":
    relocate(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
