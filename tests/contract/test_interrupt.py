"""Ctrl-C before any host is touched: the end, at once."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path


def test_a_gitlab_that_does_not_answer_holds_nobody(tmp_path: Path) -> None:
    inventory, token = tmp_path / "inventory", tmp_path / "token"
    inventory.write_text("w1 ansible_host=127.0.0.1\n")
    token.write_text("glpat-x\n")
    token.chmod(0o600)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        arguments = ["status", "-i", str(inventory), "--gitlab-url", url, "--gitlab-token-file", str(token)]
        run = subprocess.Popen(
            [sys.executable, "-m", "provisioner", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "HOME": str(tmp_path), "NO_PROXY": "*"},
        )
        try:
            with silent.accept()[0]:
                run.send_signal(signal.SIGINT)
                out, err = run.communicate(timeout=15)
        finally:
            run.kill()
            run.wait()
    assert (run.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "nixprov: interrupted"
    assert "Traceback" not in err
