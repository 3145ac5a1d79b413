"""The file system below every machine: Debian, and over it the stand-in NixOS.

Owns the recipe and its cache, which has three kinds of directories:

* `base-<hash>` is Debian with the lab's packages. It takes minutes to build and changes seldom.
* `nix-<hash>` has the Nix of a newer Debian on top, on request.
* `tree-<hash>` has the changes of the stand-in's install.sh. It takes seconds to build and changes with our own files.

All are built aside and then renamed, so a directory with its final name is complete. Knows nothing of running labs.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nixprov_lab.errors import LabError
from nixprov_lab.paths import cache_dir
from nixprov_lab.process import Progress, clean_environment, locked, run

HERE: Final = Path(__file__).parent
RELEASE: Final = "trixie"
# debootstrap leaves nix-bin half configured, due to the order of its dependencies; so the second list is apt's.
FIRST: Final = "systemd,systemd-sysv,dbus,openssh-server,ca-certificates,iproute2,busybox-static,git,sudo"
LATER: Final = (
    "nix-bin podman crun netavark aardvark-dns nftables docker.io docker-cli iptables opendoas polkitd"
    " python3-minimal libpython3-stdlib"
)
UNUSED_DAYS: Final = 7
# Own mount and pid namespaces, which end with the process that started them: no mount or process outlives a build.
_IN_NAMESPACES: Final = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"),
)
_APT_SETTINGS: Final = re.compile(r"Acquire::(https?::(?!Proxy-Auto-Detect)|Check-|Force|Retries)")


@dataclass(frozen=True, slots=True)
class Sources:
    """The directories of this package that are put into the tree."""

    nixos: Path = HERE / "nixos"
    guest: Path = HERE / "guest"


def ensure(
    progress: Progress, in_use: Collection[Path] = (), sources: Sources | None = None, nix_from: str = ""
) -> tuple[Path, ...]:
    """Build the missing parts of the tree; its directories, uppermost first, for an overlay's `lowerdir`.

    `nix_from` is another suite of Debian, and the machines get its Nix. `in_use` are directories of running labs, which
    are kept at any age.

    Takes minutes the first time, no time later. Needs root. The base also needs Debian's default mirror, through this
    computer's apt settings and name servers. Raises LabError with the last lines of the log.
    """
    sources = sources or Sources()
    cache = cache_dir()
    if bad := set(str(cache)) & set(",:\\"):
        raise LabError(
            f"the cache directory {cache} has {' '.join(sorted(bad))} in its name, which overlayfs cannot take",
            hint="set XDG_CACHE_HOME to another",
        )
    with locked(cache / "lock", lambda: progress("another process is building the lab's tree: waiting for it")):
        _remove_leftovers(cache)
        base = _ensure_base(cache, progress)
        newer = [_ensure_newer_nix(cache, base, nix_from, progress)] if nix_from else []
        layer = _ensure_layer(cache, [*newer, base], sources, progress)
        _remove_unused(cache, keep={base, *newer, layer, *in_use, *(path.parent for path in in_use)})
    return (layer / "upper", *(path / "upper" for path in newer), base)


def _ensure_base(cache: Path, progress: Progress) -> Path:
    script = HERE / "build" / "base.sh"
    base = cache / f"base-{_digest([RELEASE, FIRST, LATER, script.read_text()])}"
    if not base.exists():
        with _apt_conf(cache) as settings:
            _build(base, [str(script), "TREE", RELEASE, FIRST, LATER, str(settings)], progress)
    os.utime(base)
    return base


def _ensure_newer_nix(cache: Path, base: Path, suite: str, progress: Progress) -> Path:
    script = HERE / "build" / "newer-nix.sh"
    layer = cache / f"nix-{_digest([base.name, suite, script.read_text()])}"
    if not layer.exists():
        with _apt_conf(cache) as settings:
            _build(layer, [str(script), str(base), "TREE", suite, str(settings)], progress)
    os.utime(layer)
    return layer


def _ensure_layer(cache: Path, below: Sequence[Path], sources: Sources, progress: Progress) -> Path:
    script = HERE / "build" / "layer.sh"
    names = [path.name for path in below]
    contents = [*names, script.read_text(), *_contents(sources.nixos), *_contents(sources.guest)]
    layer = cache / f"tree-{_digest(contents)}"
    if not layer.exists():
        *newer, base = below
        lower = ":".join(map(str, [*(path / "upper" for path in newer), base]))
        _build(layer, [str(script), lower, "TREE", str(sources.nixos), str(sources.guest)], progress)
    os.utime(layer)
    return layer


def _build(target: Path, argv: Sequence[str], progress: Progress) -> None:
    """Run a build script on a directory beside the target (`TREE` in argv), then give it its name."""
    building = target.with_name(f"{target.name}.building")
    log = target.with_name(f"{target.name}.log")
    words = [str(building) if word == "TREE" else word for word in argv]
    building.mkdir()
    building.chmod(0o755)  # it becomes the machines' root directory, so the umask must not decide
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [*_IN_NAMESPACES, "/bin/sh", *words],
            env=clean_environment(**_proxies()),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as child,
    ):
        _follow(child, progress)
    if child.returncode != 0:
        shutil.rmtree(building)
        raise LabError(f"the lab's tree could not be built: {_last_lines(log)}", hint=f"the whole log is {log}")
    building.rename(target)


@contextmanager
def _apt_conf(cache: Path) -> Iterator[Path]:
    settings = cache / "apt.conf.building"
    settings.touch(mode=0o600)  # a proxy's address may hold a password
    settings.write_text(_apt_settings())
    try:
        yield settings
    finally:
        settings.unlink()


def _follow(child: subprocess.Popen[str], progress: Progress) -> None:
    try:
        for line in child.stdout or ():
            progress(line.rstrip("\n"))
        child.wait()
    finally:
        child.kill()
        child.wait()


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _contents(directory: Path) -> list[str]:
    """Names and hashes of all files of a directory that are ours."""
    files = sorted(path for path in directory.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    if not files:
        raise LabError(f"{directory} is missing or empty", hint="install nixprov again")
    return [
        word
        for path in files
        for word in (str(path.relative_to(directory)), hashlib.sha256(path.read_bytes()).hexdigest())
    ]


def _apt_settings() -> str:
    """The computer's apt settings for its mirrors: proxies, time-outs, checks; no setting that runs a program."""
    dump = run(["apt-config", "dump", "--format", '%f "%v";%n', "Acquire"])
    return "".join(f"{line}\n" for line in dump.splitlines() if _APT_SETTINGS.match(line))


def _proxies() -> dict[str, str]:
    """The proxies debootstrap's downloads go through: the environment's, else apt's."""
    names = ("http_proxy", "https_proxy", "no_proxy")
    found = {name: value for name in names if (value := os.environ.get(name) or os.environ.get(name.upper()))}
    apt = re.search(r'^Acquire::http::Proxy "(.+)";$', _apt_settings(), re.MULTILINE)
    return {"http_proxy": apt[1], **found} if apt and apt[1] != "DIRECT" else found


def _last_lines(log: Path, count: int = 4) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " / ".join(lines[-count:]) or "no output"


def remove_leftovers() -> None:
    """Remove leftovers of interrupted builds. A running build is waited for."""
    cache = cache_dir()
    if any(cache.glob("*.building")):
        with locked(cache / "lock"):
            _remove_leftovers(cache)


def _remove_leftovers(cache: Path) -> None:
    for path in cache.glob("*.building"):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _remove_unused(cache: Path, keep: set[Path]) -> None:
    """Remove trees that no lab has used for days."""
    oldest = time.time() - UNUSED_DAYS * 86400
    for path in [*cache.glob("base-*"), *cache.glob("nix-*"), *cache.glob("tree-*")]:
        if path.is_dir() and path not in keep and path.stat().st_mtime < oldest:
            shutil.rmtree(path)
            path.with_name(f"{path.name}.log").unlink(missing_ok=True)
