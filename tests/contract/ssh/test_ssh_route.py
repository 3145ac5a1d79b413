from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from provisioner.errors import ConnectionLost, HostKeyError, HostRefused, Unreachable
from provisioner.ssh import session
from provisioner.ssh.session import Cancelled
from tests.contract.ssh.conftest import until

if TYPE_CHECKING:
    from tests.contract.ssh.conftest import Lab, Sshd

RELAY = """
import select, socket, sys, os
peer = socket.create_connection((sys.argv[1], int(sys.argv[2])))
while True:
    for ready in select.select([0, peer], [], [])[0]:
        data = os.read(0, 65536) if ready == 0 else peer.recv(65536)
        if not data:
            sys.exit(0)
        peer.sendall(data) if ready == 0 else os.write(1, data)
"""


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def relay(lab: Lab) -> str:
    file = lab.folder / "relay.py"
    file.write_text(RELAY)
    return f"{sys.executable} {file} %h %p"


class TestConfiguration:
    def test_an_alias_of_an_included_file_is_followed(self, lab: Lab, server: Sshd) -> None:
        (lab.folder / "more").write_text(f"Host builder\n  HostName 127.0.0.1\n  Port {server.port}\n")
        lab.configure(f"Include {lab.folder / 'more'}")
        assert lab.open(lab.spec(server, "builder", port=None)).endpoint.known_as == server.name

    def test_match_is_evaluated(self, lab: Lab, server: Sshd) -> None:
        lab.configure(
            "Match host builder exec false\n  HostName 192.0.2.1\n"
            f"Match originalhost builder exec true\n  HostName 127.0.0.1\n  Port {server.port}"
        )
        lab.open(lab.spec(server, "builder", port=None))

    def test_the_inventory_wins_over_the_configuration(self, lab: Lab, server: Sshd) -> None:
        lab.configure("User nobody\nPort 1\nIdentityFile /nonexistent\nProxyCommand false")
        lab.open(lab.spec(server, options={"proxycommand": "none"}))

    def test_what_the_inventory_leaves_open_comes_from_the_configuration(self, lab: Lab, server: Sshd) -> None:
        lab.configure(f"IdentityFile {lab.key}\nPort {server.port}")
        lab.open(lab.spec(server, port=None, user=None, identity_file=None))

    def test_configuration_may_be_switched_off(self, lab: Lab, server: Sshd) -> None:
        lab.configure("ProxyCommand false")
        lab.open(lab.spec(server), use_ssh_config=False, known_hosts=(lab.known,))

    def test_a_configuration_with_an_error_is_one_line(self, lab: Lab, server: Sshd) -> None:
        lab.configure("NoSuchOption yes")
        with pytest.raises(Unreachable, match=r"cannot resolve 127\.0\.0\.1: .*[Bb]ad configuration option") as refused:
            lab.open(lab.spec(server))
        assert "\n" not in str(refused.value)

    def test_the_own_address_may_be_chosen(self, lab: Lab, server: Sshd) -> None:
        lab.open(lab.spec(server, options={"bindaddress": "127.0.0.9", "addressfamily": "inet"})).close()
        assert "from 127.0.0.9 port" in server.final_log

    def test_an_address_is_never_an_option(self, lab: Lab, server: Sshd) -> None:
        with pytest.raises(Unreachable):
            lab.open(lab.spec(server, f"-oProxyCommand=touch {lab.folder / 'owned'}"))
        assert not (lab.folder / "owned").exists()


class TestJumpHosts:
    def test_a_chain_is_gone_through_and_every_key_verified(self, lab: Lab) -> None:
        first, second, last = lab.server(), lab.server(), lab.server()
        lab.trust(first, second, last)
        jump = f"127.0.0.1:{first.port},127.0.0.1:{second.port}"
        lab.configure(f"IdentityFile {lab.key}")
        session = lab.open(lab.spec(last, options={"proxyjump": jump}))
        session.close()
        for server in (first, second, last):
            assert server.final_log.count("Accepted publickey") == 1
        assert session.connections == 1

    def test_a_jump_host_of_the_configuration_is_resolved_there(self, lab: Lab) -> None:
        jump, last = lab.server(), lab.server()
        lab.trust(jump, last)
        lab.configure(
            f"Host gate\n  HostName 127.0.0.1\n  Port {jump.port}\n  IdentityFile {lab.key}\n"
            f"Host inner\n  HostName 127.0.0.1\n  Port {last.port}\n  ProxyJump gate"
        )
        lab.open(lab.spec(last, "inner", port=None))
        assert "Accepted publickey" in jump.log

    def test_the_inventorys_key_and_known_hosts_serve_the_jump_host_too(self, lab: Lab) -> None:
        jump, last = lab.server(), lab.server()
        mine = lab.folder / "mine"
        mine.write_text(jump.known_hosts() + last.known_hosts())
        options = {"proxyjump": f"127.0.0.1:{jump.port}", "userknownhostsfile": str(mine)}
        lab.open(lab.spec(last, options=options))

    def test_an_unknown_key_of_a_jump_host_is_refused_by_its_name(self, lab: Lab) -> None:
        jump, last = lab.server(), lab.server()
        lab.trust(last)
        lab.configure(f"IdentityFile {lab.key}")
        with pytest.raises(HostKeyError) as refused:
            lab.open(lab.spec(last, options={"proxyjump": f"127.0.0.1:{jump.port}"}))
        assert jump.name in refused.value.message
        assert "Accepted" not in jump.final_log

    def test_what_a_jump_host_cannot_reach_is_unreachable_by_way_of_it(self, lab: Lab, server: Sshd) -> None:
        lab.configure(f"Host 127.0.0.1\n  IdentityFile {lab.key}")
        spec = lab.spec(server, "127.0.0.2", port=1, options={"proxyjump": f"127.0.0.1:{server.port}"})
        with pytest.raises(Unreachable, match=r"127\.0\.0\.2:1 by way of 127\.0\.0\.1 cannot be reached"):
            lab.open(spec)

    @pytest.mark.skipif(os.getuid() != 0, reason="a direct root session needs a root login")
    def test_a_jump_host_that_dies_is_a_lost_connection(
        self, lab: Lab, server: Sshd, capfd: pytest.CaptureFixture[str]
    ) -> None:
        jump = lab.server()
        lab.trust(jump)
        session = lab.open(lab.spec(server, options={"proxyjump": f"127.0.0.1:{jump.port}"}))
        started = lab.folder / "started"

        def die() -> None:
            until(started.exists)
            jump.signal_sessions(signal.SIGKILL)

        threading.Thread(target=die).start()
        with pytest.raises(ConnectionLost):
            session.run(f"touch {started}; sleep 60".encode(), timeout_s=60)
        session.close()
        assert capfd.readouterr() == ("", "")

    def test_jump_hosts_that_lead_to_each_other_end(self, lab: Lab, server: Sshd) -> None:
        lab.configure("Host a\n  ProxyJump b\nHost b\n  ProxyJump a")
        with pytest.raises(Unreachable, match="never end"):
            lab.open(lab.spec(server, "a"))

    def test_a_jump_for_all_hosts_does_not_go_through_itself(self, lab: Lab) -> None:
        jump, last = lab.server(), lab.server()
        lab.trust(jump, last)
        lab.configure(
            f"Host gate\n  HostName 127.0.0.1\n  Port {jump.port}\nHost *\n  IdentityFile {lab.key}\n  ProxyJump gate"
        )
        lab.open(lab.spec(last)).close()
        assert jump.final_log.count("Accepted publickey") == 1


class TestProxyCommand:
    def test_it_carries_the_connection_and_ends_with_it(self, lab: Lab, server: Sshd) -> None:
        session = lab.open(lab.spec(server, options={"proxycommand": relay(lab)}))
        link = session._link
        assert link is not None
        proxy = link.proxy
        assert proxy is not None
        assert proxy.process.poll() is None
        session.close()
        assert proxy.process.poll() is not None

    def test_what_it_says_when_it_fails_is_passed_on(self, lab: Lab, server: Sshd) -> None:
        options = {"proxycommand": "sh -c 'echo no such gate >&2; exit 3'"}
        with pytest.raises(Unreachable, match="proxy command failed: no such gate"):
            lab.open(lab.spec(server, options=options))

    def test_it_does_not_see_our_settings(self, lab: Lab, server: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NIXPROV_GITLAB_TOKEN", "poison")
        file = lab.folder / "environment"
        with pytest.raises(Unreachable):
            lab.open(lab.spec(server, options={"proxycommand": f"sh -c 'env > {file}'"}))
        assert "HOME=" in file.read_text()
        assert "poison" not in file.read_text()

    def test_one_that_does_not_want_to_end_is_made_to(
        self, lab: Lab, server: Sshd, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("provisioner.ssh.dial.CLOSE_TIMEOUT_S", 0.3)
        pid = lab.folder / "pid"
        # It hangs up only once it cannot be asked to end.
        stays = f"trap : TERM; echo $$ > {pid}; exec <&- >&-; while :; do sleep 1; done"
        with pytest.raises(Unreachable, match="cannot be reached"):
            lab.open(lab.spec(server, options={"proxycommand": f"sh -c '{stays}'"}))
        assert not Path(f"/proc/{pid.read_text().strip()}").exists()


class TestUnreachable:
    def test_a_closed_port_is_refused(self, lab: Lab, server: Sshd) -> None:
        server.stop()
        with pytest.raises(Unreachable, match="cannot be reached: the connection is refused"):
            lab.open(lab.spec(server))

    def test_a_server_that_says_nothing_ends_with_the_connect_timeout(
        self, lab: Lab, server: Sshd, silent: int
    ) -> None:
        began = time.monotonic()
        with pytest.raises(Unreachable, match="timed out"):
            lab.open(lab.spec(server, port=silent), connect_timeout_s=0.5)
        assert 0.4 < time.monotonic() - began < 15

    def test_a_jump_to_a_server_that_says_nothing_times_out_too(self, lab: Lab, server: Sshd, silent: int) -> None:
        lab.configure(f"IdentityFile {lab.key}")
        # Its own time, not that of the jump host.
        options = {"proxyjump": f"127.0.0.1:{server.port}", "connecttimeout": "1"}
        with pytest.raises(Unreachable, match=r"by way of 127\.0\.0\.1 .*timed out"):
            lab.open(lab.spec(server, port=silent, options=options))

    def test_the_hosts_own_connect_timeout_is_nearer(self, lab: Lab, server: Sshd, silent: int) -> None:
        began = time.monotonic()
        with pytest.raises(Unreachable, match="timed out"):
            lab.open(lab.spec(server, port=silent, options={"connecttimeout": "1"}), connect_timeout_s=60)
        assert time.monotonic() - began < 30

    def test_a_name_that_does_not_exist_is_not_tried_again(
        self, lab: Lab, server: Sshd, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[str] = []

        def nowhere(host: str, *_: object) -> None:
            asked.append(host)
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", nowhere)
        with pytest.raises(Unreachable, match="its name is not known"):
            lab.open(lab.spec(server, "nowhere.invalid"), retries=3)
        assert asked == ["nowhere.invalid"]

    def test_a_server_that_hangs_up_is_tried_again_as_often_as_asked(self, lab: Lab, server: Sshd) -> None:
        tries = lab.folder / "tries"
        options = {"proxycommand": f"sh -c 'echo x >> {tries}'"}
        with pytest.raises(Unreachable):
            lab.open(lab.spec(server, options=options), retries=1)
        assert tries.read_text() == "x\nx\n"

    def test_a_machine_that_comes_back_between_the_attempts_is_reached(
        self, lab: Lab, server: Sshd, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server.stop()
        pause = session._pause

        def comes_back(host: str, attempt: int, cancel: threading.Event | None) -> None:
            server.start()
            pause(host, attempt, cancel)

        monkeypatch.setattr(session, "_pause", comes_back)
        lab.open(lab.spec(server), retries=1)

    def test_an_interruption_ends_the_attempts(self, lab: Lab, server: Sshd) -> None:
        from dataclasses import replace

        from provisioner.ssh.session import Session

        server.stop()
        cancel = threading.Event()
        cancel.set()
        with pytest.raises(Cancelled):
            Session.open(lab.spec(server), replace(lab.options, retries=5), cancel=cancel)

    def test_something_else_than_ssh_is_one_line(self, lab: Lab, server: Sshd) -> None:
        options = {"proxycommand": "sh -c 'echo HTTP/1.1 400 Bad Request; sleep 5'"}
        with pytest.raises(Unreachable) as refused:
            lab.open(lab.spec(server, options=options), connect_timeout_s=1.0)
        assert "\n" not in str(refused.value)

    def test_nothing_is_written_to_stderr(self, lab: Lab, server: Sshd, capfd: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(HostRefused):
            lab.open(lab.spec(server, identity_file=str(Path("/nonexistent"))))
        server.stop()
        with pytest.raises(Unreachable):
            lab.open(lab.spec(server))
        assert capfd.readouterr() == ("", "")
