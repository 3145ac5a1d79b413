"""TLS: an unknown certificate is refused before the token is sent, a known one is taken, and the choice is ours."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from typing_extensions import override

from provisioner.ci.gitlab.access import Access
from provisioner.ci.gitlab.client import Client
from provisioner.errors import CiUnavailable
from provisioner.model import Secret
from provisioner.transport import Patience

seen_tokens: list[str | None] = []


class User(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        seen_tokens.append(self.headers["PRIVATE-TOKEN"])
        body = json.dumps({"id": 1}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class QuietServer(HTTPServer):
    @override
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that does not trust us ends the handshake: expected here."""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1 with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gitlab")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(made.public_bytes(pem) + secret)
    return path


@pytest.fixture(scope="module")
def url(certificate: Path) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with QuietServer(("127.0.0.1", 0), User) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"https://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def check(url: str) -> Callable[[bool | str], None]:
    def with_verify(verify: bool | str) -> None:
        seen_tokens.clear()
        api = Client(Access(url, Secret("glpat-x"), verify=verify), Patience(repetitions=0))
        try:
            api.check()
        finally:
            api.close()

    return with_verify


def test_an_unknown_certificate_is_refused_before_the_token_is_sent(check: Callable[[bool | str], None]) -> None:
    with pytest.raises(CiUnavailable, match=r"certificate: self.signed certificate") as caught:
        check(True)
    assert "NIXPROV_GITLAB_CA" in caught.value.hint
    assert seen_tokens == []


def test_a_bundle_makes_it_known(check: Callable[[bool | str], None], certificate: Path) -> None:
    check(str(certificate))
    assert seen_tokens == ["glpat-x"]


def test_verification_may_be_switched_off(check: Callable[[bool | str], None]) -> None:
    check(False)
    assert seen_tokens == ["glpat-x"]
