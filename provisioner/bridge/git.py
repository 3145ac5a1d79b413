"""The only file that starts git: by argument lists, without a shell, without names or URLs of a pull request.

A stranger's commit is fetched into a throw-away folder, with fsck and limits of size, memory and time.
From there it is pushed on by its id. Nothing is ever checked out, merged or walked through: the work of
reading a tree is the runner's. git reads the token through a credential helper, from an inherited
memory file. The token is in no argument, URL or variable. (git-scm.com/docs: git-config "transfer.fsckObjects" and
"credential.helper", git-push "--force-with-lease".)
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from provisioner.bridge.errors import BridgeUnavailable, LeaseLost, Moved, Side, Unbuildable
from provisioner.bridge.policy import Refs
from provisioner.bridge.values import OID
from provisioner.errors import ConfigError
from provisioner.limits import MIB
from provisioner.model import Secret

_NOTHING: Final = "0" * 40
_CARRIED: Final = "refs/heads/carried"
_MOST_PACKS: Final = 20
_SAID: Final = 16 * 1024
# git's words for bad objects and for limits that were reached. Everything else may be the network's fault.
_REFUSALS: Final = (
    (
        re.compile(rb"fsck error|fsckObjects|invalid object|unresolved deltas|bad (tree|object)"),
        "It has objects that git refuses.",
    ),
    (
        re.compile(rb"signal 25|File too large|exceeds maximum|^fatal: fetch-pack: invalid index-pack output"),
        "It is larger than the bridge takes.",
    ),
    (re.compile(rb"[Oo]ut of memory|malloc failed|mmap failed"), "It needs more memory than the bridge gives."),
)
_CONFIG: Final = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "credential.helper": "",
    "fetch.fsckObjects": "true",
    "fetch.recurseSubmodules": "false",
    "fetch.unpackLimit": "1",  # one pack, so that one limit of size holds for all of it
    "fetch.writeCommitGraph": "false",
    "gc.auto": "0",
    "http.followRedirects": "false",
    "http.lowSpeedLimit": "1000",
    "http.lowSpeedTime": "60",
    "maintenance.auto": "false",
    "pack.threads": "1",
    "protocol.allow": "never",
    "push.gpgSign": "false",
    "push.recurseSubmodules": "no",
    "receive.fsckObjects": "true",
    "transfer.credentialsInUrl": "die",
}
_KEPT: Final = (
    "PATH",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
    "https_proxy",
    "HTTPS_PROXY",
    "NO_PROXY",
    "no_proxy",
)


@dataclass(frozen=True, slots=True)
class Remote:
    """One side: a URL of bridge.toml's, and how to get a token for it that is valid now."""

    url: str
    user: str
    token: Callable[[], Secret]


@dataclass(frozen=True, slots=True)
class GitLimits:
    """Bytes and seconds. `base_*` are for the branches that the repository's owners push."""

    pack: int = 512 * MIB
    base_pack: int = 16_384 * MIB
    memory: int = 4096 * MIB
    fetch_s: float = 300.0
    base_fetch_s: float = 3600.0


class Git:
    """Moves commits from one side to the other; `folder` holds the base store and, for moments, quarantines."""

    def __init__(self, source: Remote, target: Remote, folder: Path, refs: Refs, limits: GitLimits) -> None:
        self._source = source
        self._target = target
        self._refs = refs
        self._limits = limits
        self._base = folder / "base.git"
        self._quarantine = folder / "quarantine"

    def prepare(self) -> None:
        """Make the base store, and throw away the rest of a killed pass."""
        self._quarantine.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in self._quarantine.iterdir():
            _throw_away(left)
        if not (self._base / "HEAD").is_file():
            self._run("init", "--quiet", "--bare", "--template=", str(self._base))

    def source_heads(self) -> Mapping[str, str]:
        """The mirrored branches on GitHub that exist."""
        if not self._refs.mirrored:
            return {}
        # git matches the ends of names: `a/refs/heads/main` is listed too.
        heads = self._heads(self._source, sorted(self._refs.mirrored))
        return {ref: oid for ref, oid in heads.items() if ref in self._refs.mirrored}

    def target_heads(self) -> Mapping[str, str]:
        """Our refs on GitLab; refs of others are not looked at."""
        heads = self._heads(self._target, ["refs/heads/*"])
        return {ref: oid for ref, oid in heads.items() if self._refs.may_set(ref)}

    def _heads(self, remote: Remote, patterns: Sequence[str]) -> dict[str, str]:
        listed = self._run("ls-remote", "--refs", "--end-of-options", remote.url, *patterns, remote=remote)
        pairs = (line.partition(b"\t") for line in listed.splitlines())
        return {ref.decode("utf-8", "backslashreplace"): oid.decode() for oid, _, ref in pairs}

    def mirror(self, ref: str, oid: str, expected: str | None) -> None:
        """Bring a branch of the repository's own over. Raises Moved, LeaseLost, BridgeUnavailable, Unbuildable."""
        wide = GitLimits(self._limits.base_pack, memory=self._limits.memory, fetch_s=self._limits.base_fetch_s)
        self._fetch(self._base, ref, ref, wide)
        self._check_moved(self._base, ref, oid)
        if len(list((self._base / "objects/pack").glob("*.pack"))) > _MOST_PACKS:
            self._run("repack", "--quiet", "-d", "--geometric=2", folder=self._base, limits=wide)
        self._push(self._base, oid, ref, expected, wide)

    def carry(self, number: int, oid: str, expected: str | None) -> None:
        """Bring a pull request's head over, if it still is `oid`.

        `expected` is the ref's value on GitLab; another value there ends in LeaseLost. Raises Moved, LeaseLost,
        Unbuildable (git or a limit refused the commit), BridgeUnavailable.
        """
        with self._quarantined() as folder:
            self._fetch(folder, f"refs/pull/{number}/head", _CARRIED, self._limits)
            self._check_moved(folder, _CARRIED, oid)
            self._push(folder, oid, self._refs.of_pull(number), expected, self._limits)

    def delete(self, ref: str, expected: str) -> None:
        """Take a ref of ours away. Raises LeaseLost, BridgeUnavailable, Unbuildable."""
        self._push(self._base, None, ref, expected, self._limits)

    @contextmanager
    def _quarantined(self) -> Iterator[Path]:
        folder = Path(tempfile.mkdtemp(dir=self._quarantine))
        try:
            self._run("init", "--quiet", "--bare", "--template=", str(folder))
            # Read from, never written to: known objects need not come again.
            alternates = folder / "objects/info/alternates"
            alternates.parent.mkdir(exist_ok=True)
            alternates.write_text(f"{self._base / 'objects'}\n")
            yield folder
        finally:
            _throw_away(folder)

    def _fetch(self, folder: Path, ref: str, into: str, limits: GitLimits) -> None:
        options = ("--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--end-of-options")
        self._run(
            "fetch", *options, self._source.url, f"+{ref}:{into}", folder=folder, remote=self._source, limits=limits
        )

    def _check_moved(self, folder: Path, ref: str, oid: str) -> None:
        found = self._run("rev-parse", "--verify", "--end-of-options", f"{ref}^{{commit}}", folder=folder)
        if found.decode().strip() != oid:
            raise Moved(f"{ref} is {found.decode().strip()} and not {oid} any more")

    def _push(self, folder: Path, oid: str | None, ref: str, expected: str | None, limits: GitLimits) -> None:
        lease, refspec = self._update(oid, ref, expected)
        options = ("--porcelain", "--quiet", "--no-verify", lease, "--end-of-options")
        self._run("push", *options, self._target.url, refspec, folder=folder, remote=self._target, limits=limits)

    def _update(self, oid: str | None, ref: str, expected: str | None) -> tuple[str, str]:
        """Build every change of GitLab's refs: our refs only, ids only, and only over the value that was seen."""
        is_allowed = self._refs.may_delete(ref) if oid is None else self._refs.may_set(ref) and OID.fullmatch(oid)
        if not is_allowed or not OID.fullmatch(expected or _NOTHING):
            raise ValueError(f"not ours to change: {ref!r} to {oid!r}")
        return f"--force-with-lease={ref}:{expected or ''}", f"{oid or ''}:{ref}"

    def _run(
        self,
        *arguments: str,
        folder: Path | None = None,
        remote: Remote | None = None,
        limits: GitLimits | None = None,
    ) -> bytes:
        """Run git to its end and give its output. Raises LeaseLost, Unbuildable, BridgeUnavailable."""
        limits = limits or self._limits
        argv = ["prlimit", f"--fsize={limits.pack}", f"--as={limits.memory}", f"--cpu={int(limits.fetch_s) + 1}", "--"]
        argv += ["git", *(("-C", str(folder)) if folder else ()), *arguments]
        with ExitStack() as stack:
            out = stack.enter_context(tempfile.TemporaryFile(dir=self._quarantine))
            err = stack.enter_context(tempfile.TemporaryFile(dir=self._quarantine))
            credential = stack.enter_context(_memory_file(remote)) if remote else None
            environment = self._environment(remote, credential)
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environment,
                pass_fds=() if credential is None else (credential,),
                start_new_session=True,
            )
            status = _ended(process, limits.fetch_s)
            printed, said = _text(out, limits.pack), _text(err, _SAID)
        if status:
            side = Side.GITLAB if remote is self._target else Side.GITHUB
            raise _explained(side, arguments[0], printed, said, timed_out=status == _TIMED_OUT)
        return printed

    def _environment(self, remote: Remote | None, credential: int | None) -> dict[str, str]:
        """Leave out our own and the machine's settings: they could name programs to run."""
        config = dict(_CONFIG)
        if remote:
            scheme = remote.url.partition("://")[0]
            config[f"protocol.{scheme}.allow"] = "always"
            # Fixed text; git gives the helper one word, which the comment swallows.
            config[f"credential.{remote.url}.helper"] = f"!cat /dev/fd/{credential} #"
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ} | {
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "false",
            "HOME": str(self._quarantine),
            "LC_ALL": "C",
            "GIT_CONFIG_COUNT": str(len(config)),
        }
        for number, (key, value) in enumerate(config.items()):
            environment |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
        return environment


_TIMED_OUT: Final = -1000


def _ended(process: subprocess.Popen[bytes], seconds: float) -> int:
    """Wait for it. Past its time git and all that it started are killed: they share a process group."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return _TIMED_OUT
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def _memory_file(remote: Remote) -> Iterator[int]:
    """A file without a name or a disk that holds the credential, in the form of git's helpers."""
    descriptor = os.memfd_create("credential")
    try:
        os.write(descriptor, f"username={remote.user}\npassword={remote.token().reveal()}\n".encode())
        yield descriptor
    finally:
        os.close(descriptor)


def _text(file: IO[bytes], limit: int) -> bytes:
    file.seek(0)
    return file.read(limit)


def _explained(side: Side, command: str, printed: bytes, said: bytes, *, timed_out: bool) -> Exception:
    """Give a failure its meaning. git's own words stay here: a stranger's commit may have a part in them."""
    if timed_out:
        return BridgeUnavailable(side, f"git {command} took longer than the bridge waits")
    if b"(stale info)" in printed or b"(fetch first)" in printed or b"reference already exists" in printed:
        return LeaseLost("somebody else has changed the ref on GitLab meanwhile")
    if b"[remote rejected]" in printed or b"[rejected]" in printed:
        is_lock = b"cannot lock ref" in printed or b"failed to update ref" in printed
        return LeaseLost("the ref was locked") if is_lock else Unbuildable("GitLab refused the commit.")
    if b"early EOF" in said or b"RPC failed" in said:
        return BridgeUnavailable(side, f"git {command} was cut off")
    for pattern, reason in _REFUSALS:
        if pattern.search(said):
            return Unbuildable(reason)
    if b"couldn't find remote ref" in said:
        return Moved("the ref is not there any more")
    if b"Authentication failed" in said or b"could not read" in said:
        return ConfigError(f"git {command}: the token is not accepted")
    return BridgeUnavailable(side, f"git {command} did not come through")


def _throw_away(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True) if folder.is_dir() else folder.unlink(missing_ok=True)
