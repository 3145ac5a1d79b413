"""What the client offers: nothing old, and all the rest of what the library has."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import paramiko
import pytest

from provisioner.ssh.config import Endpoint
from provisioner.ssh.known_hosts import KnownHosts
from provisioner.ssh.transport import HostTransport, _connect_kwargs

# RFC 8758 (RC4), RFC 9142 (SHA-1 key exchange), OpenSSH 8.8 (ssh-rsa), and CBC modes since OpenSSH 6.7.
OLD = re.compile(r"cbc|3des|arcfour|blowfish|md5|-sha1|^ssh-rsa|^ssh-dss")
ENDPOINT = Endpoint(
    alias="host1",
    hostname="192.0.2.1",
    port=22,
    user="root",
    identity_files=(),
    certificate_files=(),
    explicit_identities=(),
    identities_only=True,
    identity_agent="none",
    user_known_hosts=(),
    global_known_hosts=(),
    accept_new=False,
    hash_known_hosts=False,
    host_key_alias=None,
    connect_timeout_s=10,
    keepalive_s=15,
    keepalive_count=3,
    address_family="any",
    bind_address=None,
    proxy_command=None,
    gateway=None,
)
LISTS = ("ciphers", "macs", "kex", "pubkeys", "keys")


@pytest.fixture
def transport() -> Iterator[HostTransport]:
    """As it is made for every hop."""
    here, there = socket.socketpair()
    with here, there:
        factory = _connect_kwargs("host1", ENDPOINT, KnownHosts.load(()))["transport_factory"]
        made = factory(here, disabled_algorithms=None)
        assert isinstance(made, HostTransport)
        yield made


@pytest.mark.parametrize("kind", LISTS)
def test_nothing_old_is_offered(transport: HostTransport, kind: str) -> None:
    offered = getattr(transport, f"preferred_{kind}")
    assert offered
    assert [name for name in offered if OLD.search(name)] == []


@pytest.mark.parametrize("kind", [kind for kind in LISTS if kind != "keys"])
def test_all_the_rest_that_the_library_has_is(transport: HostTransport, kind: str) -> None:
    """An old algorithm that a newer paramiko brings, or a new one, shows here."""
    defaults = getattr(paramiko.Transport, f"_preferred_{kind}")
    assert [name for name in defaults if not OLD.search(name)] == list(getattr(transport, f"preferred_{kind}"))


def test_the_library_itself_would_offer_what_is_old() -> None:
    """Otherwise the two tests above show nothing."""
    defaults = {
        kind: getattr(paramiko.Transport, f"_preferred_{kind}") for kind in ("ciphers", "macs", "kex", "pubkeys")
    }
    assert all(any(OLD.search(name) for name in names) for names in defaults.values())
