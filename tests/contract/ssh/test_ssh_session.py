from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from provisioner.errors import ConnectionLost, HostRefused, RemoteFailed
from provisioner.ssh.session import Cancelled
from tests.contract.ssh.conftest import until

if TYPE_CHECKING:
    from tests.contract.ssh.conftest import Lab, Sshd

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="a direct root session needs a root login")


def test_gives_status_stdout_and_stderr_apart(lab: Lab, server: Sshd) -> None:
    done = lab.open(lab.spec(server)).run(b"echo out; echo err >&2; exit 7", timeout_s=10)
    assert (done.status, done.stdout, done.stderr) == (7, b"out\n", "err\n")


def test_the_shell_is_posix_sh_without_arguments_or_input(lab: Lab, server: Sshd) -> None:
    done = lab.open(lab.spec(server)).run(b'cat; echo "$#" "$(id -u)"', timeout_s=10)
    assert done.stdout == b"0 0\n"


def test_an_empty_script_succeeds(lab: Lab, server: Sshd) -> None:
    assert lab.open(lab.spec(server)).run(b"", timeout_s=10).status == 0


def test_every_byte_value_comes_back_as_it_is(lab: Lab, server: Sshd) -> None:
    octal = "".join(f"\\{value:03o}" for value in range(256))
    done = lab.open(lab.spec(server)).run(f"printf '{octal}'".encode(), timeout_s=10)
    assert done.stdout == bytes(range(256))


def test_five_megabytes_in_and_out_at_once(lab: Lab, server: Sshd) -> None:
    line = "x" * 4095 + "\n"
    payload = (line * 1280).encode()
    script = b"tee /dev/stderr <<'end of payload'\n" + payload + b"end of payload\nexit 3\n"
    done = lab.open(lab.spec(server)).run(script, timeout_s=60)
    assert done.status == 3
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(payload).digest()
    assert done.stderr == payload.decode()


def test_a_script_with_any_bytes_arrives_whole(lab: Lab, server: Sshd) -> None:
    # Not the NUL, which no shell can hold, nor the quote that ends the word.
    payload = bytes(b for b in random.Random(1).randbytes(100_000) if b not in b"\0'")  # noqa: S311, the same every time
    done = lab.open(lab.spec(server)).run(b"printf %s '" + payload + b"'", timeout_s=20)
    assert done.stdout == payload


def test_what_a_login_shell_says_of_itself_is_not_the_answer(lab: Lab, server: Sshd) -> None:
    (server.folder / ".bashrc").write_text("echo 'welcome to tester'; echo 'are you well?' >&2; printf 'no line end'\n")
    heard: list[bytes] = []
    done = lab.open(lab.spec(server)).run(b"echo out; echo more", timeout_s=10, on_output=heard.append)
    assert (done.status, done.stdout) == (0, b"out\nmore\n")
    assert b"are you well" in b"".join(heard)  # the file was read
    assert b"welcome" not in b"".join(heard)


@pytest.mark.parametrize(
    ("command", "said"),
    [("echo 'This account is currently not available.'; exit 1", "not available"), ("exit 3", "status 3.*nothing")],
)
def test_a_login_that_runs_no_script_is_said(lab: Lab, command: str, said: str) -> None:
    server = lab.server(settings=(f"ForceCommand {command}",))
    lab.trust(server)
    with pytest.raises(HostRefused, match=f"runs no script.*{said}"):
        lab.open(lab.spec(server)).run(b"echo out", timeout_s=10)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_death_by_signal_is_a_status_as_in_a_shell(lab: Lab, server: Sshd, number: signal.Signals) -> None:
    assert lab.open(lab.spec(server)).run(f"kill -{number} $$".encode(), timeout_s=10).status == 128 + number


def test_all_commands_share_one_connection_and_are_counted(lab: Lab, server: Sshd) -> None:
    session = lab.open(lab.spec(server))
    for _ in range(3):
        session.run(b":", timeout_s=10)
    session.close()
    assert (session.commands, session.connections) == (3, 1)
    assert server.final_log.count("Accepted publickey") == 1


def test_output_is_handed_on_while_the_command_runs(lab: Lab, server: Sshd) -> None:
    got: list[bytes] = []
    go = lab.folder / "go"
    script = f"echo one; while [ ! -e {go} ]; do sleep 0.05; done; echo two >&2"

    def hear(data: bytes) -> None:
        got.append(data)
        go.touch()

    done = lab.open(lab.spec(server)).run(script.encode(), timeout_s=10, on_output=hear)
    assert (done.status, b"".join(got)) == (0, b"one\ntwo\n")


def test_a_connection_that_is_cut_is_said_soon_and_can_be_made_again(lab: Lab, server: Sshd) -> None:
    session = lab.open(lab.spec(server))
    started = lab.folder / "started"

    def cut() -> None:
        until(started.exists)
        server.signal_sessions(signal.SIGKILL)

    cutter = threading.Thread(target=cut)
    cutter.start()
    began = time.monotonic()
    with pytest.raises(ConnectionLost, match="lost while a command ran"):
        session.run(f"touch {started}; sleep 60".encode(), timeout_s=60)
    cutter.join()
    assert time.monotonic() - began < 10
    session.reconnect()
    assert session.run(b"echo back", timeout_s=10).stdout == b"back\n"
    assert session.connections == 2


def test_a_peer_that_falls_silent_is_given_up_by_keepalive(lab: Lab, server: Sshd) -> None:
    session = lab.open(lab.spec(server), keepalive_s=0.2)
    server.signal_sessions(signal.SIGSTOP)
    with pytest.raises(ConnectionLost, match=r"no answer for 0\.6 s"):
        session.run(b":", timeout_s=30)


def test_keepalive_leaves_a_long_quiet_command_alone(lab: Lab, server: Sshd) -> None:
    # So many questions that a busy sshd may take three seconds for an answer, and one more than that without one.
    spec = lab.spec(server, options={"serveralivecountmax": "30"})
    assert lab.open(spec, keepalive_s=0.1).run(b"sleep 4; echo done", timeout_s=30).stdout == b"done\n"


def test_a_peer_that_falls_silent_during_an_upload_ends_with_the_time_limit(lab: Lab, server: Sshd) -> None:
    session = lab.open(lab.spec(server), keepalive_s=30)
    until(lambda: len(server.sessions()) == 1)  # the login's helper has ended

    def fall_silent() -> None:
        until(lambda: len(server.sessions()) > 1)  # the script's shell is there
        server.signal_sessions(signal.SIGSTOP)

    stopper = threading.Thread(target=fall_silent)
    stopper.start()
    with pytest.raises(RemoteFailed, match="did not end within 3 s"):
        session.run(b"#" * 60_000_000, timeout_s=3)
    assert not stopper.is_alive()


def test_a_command_over_its_time_fails_and_the_session_stays_usable(lab: Lab, server: Sshd) -> None:
    session = lab.open(lab.spec(server))
    with pytest.raises(RemoteFailed, match="did not end within 2 s"):
        session.run(b"sleep 30", timeout_s=2)
    assert session.run(b"echo still here", timeout_s=10).stdout == b"still here\n"


def test_cancelling_lets_the_command_go_at_once(lab: Lab, server: Sshd) -> None:
    session = lab.open(lab.spec(server))
    started, cancel, at = lab.folder / "started", threading.Event(), list[float]()

    def interrupt() -> None:
        until(started.exists)
        at.append(time.monotonic())
        cancel.set()

    threading.Thread(target=interrupt).start()
    with pytest.raises(Cancelled):
        session.run(f"touch {started}; sleep 60".encode(), timeout_s=60, cancel=cancel)
    assert time.monotonic() - at[0] < 15
    assert session.run(b"echo still here", timeout_s=10).status == 0


def test_a_daemon_that_keeps_the_output_open_does_not_hold_the_command(
    lab: Lab, server: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("provisioner.ssh.exec.LINGER_S", 0.5)
    began = time.monotonic()
    done = lab.open(lab.spec(server)).run(b"sleep 60 & echo $!", timeout_s=40)
    os.kill(int(done.stdout), signal.SIGKILL)
    assert done.status == 0
    assert time.monotonic() - began < 15


def test_a_server_that_opens_no_session_refuses(lab: Lab) -> None:
    server = lab.server(settings=("MaxSessions 0",))
    lab.trust(server)
    session = lab.open(lab.spec(server))
    with pytest.raises(HostRefused, match="opens no session"):
        session.run(b":", timeout_s=10)


def test_closing_twice_and_running_after_it(lab: Lab, server: Sshd) -> None:
    session = lab.open(lab.spec(server))
    session.close()
    session.close()
    with pytest.raises(ConnectionLost, match="no connection"):
        session.run(b":", timeout_s=1)


def test_no_thread_is_left_after_close(lab: Lab, server: Sshd) -> None:
    before = set(threading.enumerate())
    with lab.open(lab.spec(server)) as session:
        session.run(b":", timeout_s=10)
        assert set(threading.enumerate()) - before
    until(lambda: not set(threading.enumerate()) - before)


@pytest.mark.parametrize("cut", [1, 2, 3, 10, 14])
def test_a_script_that_is_cut_short_does_nothing(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    from provisioner.ssh.exec import _whole

    folder = tmp_path_factory.mktemp("cut")
    script = _whole(b"touch first\nrm -rf aaaa/bbbb/cccc")
    done = subprocess.run(["sh", "-s"], input=script[:-cut], cwd=folder, check=False, capture_output=True)
    whole_but_for_the_newline = cut == 1
    assert (folder / "first").exists() == whole_but_for_the_newline
    assert (done.returncode == 0) == whole_but_for_the_newline


def test_importing_the_seam_imports_neither_library() -> None:
    code = (
        "import sys, provisioner.ssh.session; print([m for m in ('fabric', 'paramiko', 'invoke') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
