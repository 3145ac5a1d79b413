"""Starts the system's tools and holds locks. Owns the report of a failed tool; knows nothing of labs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, flock
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from nixprov_lab.errors import LabError

Progress = Callable[[str], None]

# Debian's package for each program that is started, without the programs of every Debian.
PACKAGES: Final[Mapping[str, str]] = {
    "debootstrap": "debootstrap",
    "systemd-nspawn": "systemd-container",
    "ip": "iproute2",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
}
NOT_ROOT: Final = "the lab needs root: it makes mounts, a bridge and containers"
INOTIFY: Final = Path("/proc/sys/fs/inotify/max_user_instances")
INOTIFY_INSTANCES: Final = 1024
ADMIN_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def missing_for_lab() -> str:
    """The reason why no lab can be started here, in one line; empty when one can."""
    if os.geteuid() != 0:
        return NOT_ROOT
    missing = [program for program in PACKAGES if not shutil.which(program, path=ADMIN_PATH)]
    if missing:
        packages = " ".join(sorted({PACKAGES[program] for program in missing}))
        return f"the lab needs {', '.join(missing)}: apt-get install {packages}"
    if not all(find_spec(name) for name in ("starlette", "uvicorn")):
        return "the lab needs nixprov's extra `lab`: pip install 'nixprov[lab]'"
    return ""


def require_root() -> None:
    if os.geteuid() != 0:
        raise LabError(NOT_ROOT)


def require_lab() -> None:
    if problem := missing_for_lab():
        raise LabError(problem)


def allow_inotify(progress: Progress) -> None:
    """Raise root's number of inotify instances (inotify(7)). A machine takes about seven, and the default is 128."""
    try:
        if int(INOTIFY.read_text()) < INOTIFY_INSTANCES:
            INOTIFY.write_text(str(INOTIFY_INSTANCES))
            progress(f"fs.inotify.max_user_instances is {INOTIFY_INSTANCES} now, until this computer starts again")
    except (OSError, ValueError):
        return  # a machine that cannot start without it reports that


def clean_environment(**extra: str) -> dict[str, str]:
    """The environment of the lab's processes. It has nothing of the operator's, where tokens may be."""
    return {"PATH": ADMIN_PATH, "HOME": "/root", "LC_ALL": "C.UTF-8", **extra}


def run(argv: Sequence[str], *, check: bool = True) -> str:
    """Run a tool to its end and return its standard output. Raises LabError with its last words."""
    done = subprocess.run(
        argv, env=clean_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if check and done.returncode != 0:
        raise LabError(f"{argv[0]} failed ({done.returncode}): {last_line(done.stderr) or ' '.join(argv)}")
    return done.stdout


def last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def try_lock(fd: int) -> bool:
    try:
        flock(fd, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def locked(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold an exclusive lock on a file, made when missing; `waiting` is called once when another holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not try_lock(fd):
            waiting()
            flock(fd, LOCK_EX)
        yield
    finally:
        os.close(fd)
