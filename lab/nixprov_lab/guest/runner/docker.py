"""The Docker Engine API over a unix socket (version 1.41, also in podman's compatible API)."""

from __future__ import annotations

import http.client
import json
import select
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

from .errors import DockerError
from .scope import Scope

API: Final = "/v1.41"
_TIMEOUT_S: Final = 600.0
_POLL_S: Final = 0.2
_HEADER: Final = 8
_STDERR: Final = 2
_CHUNK: Final = 64 * 1024
NOT_FOUND: Final = 404
Write = Callable[[bytes], None]


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("docker", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@dataclass(frozen=True)
class ImageInfo:
    """An image; containers are created from its `reference`."""

    id: str
    digests: tuple[str, ...] = ()

    @property
    def reference(self) -> str:
        return self.digests[0] if self.digests else self.id


class Docker:
    """The engine's API. Every method raises DockerError; ids may be names as well."""

    def __init__(self, host: str) -> None:
        self._path = host.removeprefix("unix://")

    def info(self) -> Mapping[str, Any]:
        return self._object("GET", "/info")

    def version(self) -> Mapping[str, Any]:
        return self._object("GET", "/version")

    def image(self, name: str) -> ImageInfo:
        found = self._object("GET", f"/images/{quote(name, safe='/:@')}/json")
        return ImageInfo(str(found.get("Id", "")), tuple(found.get("RepoDigests") or ()))

    def pull(self, name: str) -> None:
        """Pull an image. Errors of a pull come in the body of a 200."""
        reference = name if ":" in name or "@" in name else f"{name}:latest"
        text = self._call("POST", f"/images/create?{urlencode({'fromImage': reference})}")
        for line in text.splitlines():
            message = json.loads(line).get("error") if line.strip() else None
            if message:
                raise DockerError(str(message))

    def create_volume(self, name: str, labels: Mapping[str, str]) -> None:
        self._object("POST", "/volumes/create", {"Name": name, "Labels": dict(labels)})

    def remove_volume(self, name: str) -> None:
        self._call("DELETE", f"/volumes/{quote(name)}?force=1")

    def create_container(self, name: str, body: Mapping[str, object]) -> str:
        return str(self._object("POST", f"/containers/create?{urlencode({'name': name})}", body)["Id"])

    def start(self, container: str) -> None:
        self._call("POST", f"/containers/{container}/start")

    def stop(self, container: str) -> None:
        """Stop a container by SIGTERM, and by SIGKILL after its grace. A stopped one is no error."""
        self._call("POST", f"/containers/{container}/stop")

    def wait(self, container: str, seconds: float = _TIMEOUT_S) -> int | None:
        """Wait for a container's end; its exit status, or None if it still runs after `seconds`."""
        try:
            found = self._object("POST", f"/containers/{container}/wait?condition=not-running", timeout=seconds)
        except TimeoutError:
            return None
        return int(found["StatusCode"])

    def exists(self, container: str) -> bool:
        try:
            self._object("GET", f"/containers/{container}/json")
        except DockerError as error:
            if error.status == NOT_FOUND:
                return False
            raise
        return True

    def remove(self, container: str, *, volumes: bool = True) -> None:
        """Remove a container by force, with its anonymous volumes. A missing one is no error."""
        try:
            self._call("DELETE", f"/containers/{container}?force=1&v={int(volumes)}")
        except DockerError as error:
            if error.status != NOT_FOUND:
                raise

    def execute(self, container: str, argv: list[str]) -> None:
        """Start a command in a running container, without waiting for its end."""
        made = self._object("POST", f"/containers/{container}/exec", {"Cmd": argv})
        self._call("POST", f"/exec/{made['Id']}/start", {"Detach": True, "Tty": False})

    def attach(self, container: str) -> Attached:
        """Attach to input and output of a container before its start."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(_TIMEOUT_S)
            connection.connect(self._path)
            query = urlencode({"stream": 1, "stdin": 1, "stdout": 1, "stderr": 1})
            request = (
                f"POST {API}/containers/{container}/attach?{query} HTTP/1.1\r\n"
                "Host: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n"
            )
            connection.sendall(request.encode())
            status, received = _upgrade_status(connection)
        except OSError as error:
            connection.close()
            raise DockerError(f"attach: {error}") from None
        if status not in {101, 200}:
            connection.close()
            raise DockerError(f"unable to upgrade to tcp, received {status}", status)
        return Attached(connection, received)

    def _object(
        self, method: str, path: str, body: Mapping[str, object] | None = None, timeout: float = _TIMEOUT_S
    ) -> Mapping[str, Any]:
        value = json.loads(self._call(method, path, body, timeout) or "{}")
        if not isinstance(value, dict):
            raise DockerError(f"{method} {path.split('?', maxsplit=1)[0]}: the reply is no JSON object")
        return value

    def _call(
        self, method: str, path: str, body: Mapping[str, object] | None = None, timeout: float = _TIMEOUT_S
    ) -> str:
        connection = _UnixConnection(self._path, timeout)
        data = None if body is None else json.dumps(body).encode()
        try:
            connection.request(method, API + path, data, {"Content-Type": "application/json"})
            response = connection.getresponse()
            text = response.read().decode("utf-8", "replace")
        except TimeoutError:
            raise
        except (OSError, http.client.HTTPException) as error:
            raise DockerError(f"cannot talk to the Docker daemon at unix://{self._path}: {error}") from None
        finally:
            connection.close()
        if response.status >= http.client.BAD_REQUEST:
            raise DockerError(f"Error response from daemon: {_message(text)}", response.status)
        return text


def _message(text: str) -> str:
    try:
        value = json.loads(text)
    except ValueError:
        return text.strip()
    return str(value.get("message", text)) if isinstance(value, dict) else text


def _upgrade_status(connection: socket.socket) -> tuple[int, bytes]:
    """The status of the reply to an upgrade, and the bytes that came after its head."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(_CHUNK)
        if not piece:
            break
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    words = head.split(b"\r\n")[0].split()
    return (int(words[1]) if len(words) > 1 and words[1].isdigit() else 0), rest


class Attached:
    """Both directions of an attached container without terminal."""

    def __init__(self, connection: socket.socket, received: bytes = b"") -> None:
        self._socket = connection
        self._received = received

    def send(self, data: bytes) -> None:
        """Send all of the container's standard input, and end it."""
        try:
            self._socket.sendall(data)
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise DockerError(f"attach: {error}") from None

    def copy(self, stdout: Write, stderr: Write, scope: Scope) -> None:
        """Copy until the container closes its output. Raises Cancelled when the scope ends first."""
        while header := self._take(_HEADER, scope):
            data = self._take(int.from_bytes(header[4:], "big"), scope)
            (stderr if header[0] == _STDERR else stdout)(data)

    def _take(self, size: int, scope: Scope) -> bytes:
        """Exactly this many bytes, or none when the stream has ended."""
        while len(self._received) < size:
            while not select.select([self._socket], [], [], _POLL_S)[0]:
                scope.check()
            scope.check()
            piece = self._receive()
            if not piece:
                return b""
            self._received += piece
        taken, self._received = self._received[:size], self._received[size:]
        return taken

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(_CHUNK)
        except OSError as error:
            raise DockerError(f"attach: {error}") from None

    def close(self) -> None:
        self._socket.close()
