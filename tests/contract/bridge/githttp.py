"""git over HTTP on loopback for both sides: the real `git http-backend`, with a log of every ref that changes.

A hook sees each request before git does, so that a test can change the world between two looks at it.
"""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    **{f"GIT_{who}_{what}": "x@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    **{f"GIT_{who}_DATE": "2026-01-01T00:00:00Z" for who in ("AUTHOR", "COMMITTER")},
}


def git(folder: Path, *arguments: str, stdin: bytes = b"") -> str:
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], check=False, input=stdin, capture_output=True, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


@dataclass(frozen=True)
class Moved:
    """One change of a ref by a push; "" is no ref."""

    ref: str
    old: str
    new: str


@dataclass
class Repository:
    """A bare repository that is served. `password` is what a push, or any access with `is_private`, has to say."""

    folder: Path
    password: str = ""
    is_private: bool = False
    moves: list[Moved] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    before: Callable[[str], None] = lambda _request: None
    on_move: Callable[[Moved], None] = lambda _move: None
    redirect: str = ""
    status: int = 0

    def __post_init__(self) -> None:
        if not (self.folder / "HEAD").exists():
            self.folder.mkdir(parents=True)
            git(self.folder, "init", "--quiet", "--bare", "--initial-branch=main")
            git(self.folder, "config", "http.receivepack", "true")
            git(self.folder, "config", "receive.fsckObjects", "true")

    def refs(self) -> dict[str, str]:
        lines = git(self.folder, "for-each-ref", "--format=%(refname) %(objectname)").splitlines()
        return dict(line.split() for line in lines)

    def commit(self, files: dict[str, str], parent: str = "", message: str = "change") -> str:
        """A commit with these files and no others; nothing points to it yet."""
        entries = []
        for name, text in files.items():
            blob = git(self.folder, "hash-object", "-w", "--stdin", stdin=text.encode())
            entries.append(f"100644 blob {blob}\t{name}\n")
        tree = git(self.folder, "mktree", stdin="".join(sorted(entries)).encode())
        return git(self.folder, "commit-tree", tree, *(("-p", parent) if parent else ()), "-m", message)

    def set(self, ref: str, commit: str | None) -> None:
        git(self.folder, *(("update-ref", ref, commit) if commit else ("update-ref", "-d", ref)))


Answer = tuple[int, list[tuple[str, str]], bytes]


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(self._chunks())
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._serve(body)

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _serve(self, body: bytes) -> None:
        status, headers, answer = self._answered(body)
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def _answered(self, body: bytes) -> Answer:
        path, _, query = self.path.partition("?")
        name, _, rest = path.lstrip("/").partition(".git/")
        repository = self.server.repositories.get(f"{name}.git")
        if repository is None:
            return (404, [], b"")
        if repository.status:
            return (repository.status, [], b"")
        if repository.redirect:
            return (302, [("Location", f"/{repository.redirect}/{rest}?{query}")], b"")
        is_push = "git-receive-pack" in self.path
        repository.before(f"{self.command} {rest}?{query}")
        repository.requests.append(f"{self.command} {rest}?{query}")
        said = self.headers.get("Authorization", "").removeprefix("Basic ")
        password = base64.b64decode(said).decode().partition(":")[2]
        if (is_push or repository.is_private) and (not password or password != repository.password):
            return (401, [("WWW-Authenticate", 'Basic realm="git"')], b"")
        with self.server.lock if is_push else _nothing():
            before = repository.refs() if is_push else {}
            status, headers, answer = self._backend(repository, rest, query, body)
            after = repository.refs() if is_push else {}
        for ref in sorted({*before, *after}):
            if before.get(ref) != after.get(ref):
                move = Moved(ref, before.get(ref, ""), after.get(ref, ""))
                repository.moves.append(move)
                repository.on_move(move)
        return status, headers, answer

    def _backend(self, repository: Repository, rest: str, query: str, body: bytes) -> Answer:
        variables = {
            **ENVIRONMENT,
            "GIT_PROJECT_ROOT": str(repository.folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": f"/{rest}",
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REMOTE_USER": "bridge",
        }
        done = subprocess.run(["git", "http-backend"], check=False, input=body, capture_output=True, env=variables)
        head, _, answer = done.stdout.partition(b"\r\n\r\n")
        headers = [tuple(line.split(": ", 1)) for line in head.decode().split("\r\n") if line]
        status = next((int(value.split()[0]) for name, value in headers if name == "Status"), 200)
        return status, [(name, value) for name, value in headers if name != "Status"], answer


@contextmanager
def _nothing() -> Iterator[None]:
    yield


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    repositories: dict[str, Repository]
    lock: threading.Lock

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is no error here."""


@contextmanager
def serving(repositories: dict[str, Repository]) -> Iterator[str]:
    """Serve them by path (`owner/name.git`); the value is the base URL."""
    server = Server(("127.0.0.1", 0), _Handler)
    server.repositories, server.lock = repositories, threading.Lock()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
