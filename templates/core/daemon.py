"""A process of Nix for each connection of a job, in its own network. Builds of two connections never meet.

A build with a network uses the network of its daemon. Nix' own daemon has one network for all builds. There, builds of
different jobs can talk on loopback and hand over file descriptors on abstract sockets. So this program accepts the
connections of the socket that systemd hands down. For each it runs `COMMAND`, with the connection as standard input and
output. With `--ip` the process gets a new network namespace. One link leads from it to the namespace of this program,
which translates addresses.

    daemon.py [--ip PROGRAM] -- COMMAND...

It runs as root, reads nothing from a job, and needs only Python's standard library (3.8 or newer).
"""

# ruff: noqa: INP001 - a program by itself, pushed to the hosts

from __future__ import annotations

import argparse
import ctypes
import ipaddress
import os
import signal
import socket
import subprocess
import sys

LISTENER = 3
CLONE_NEWNET = 0x40000000
# Reserved for benchmarks between networks (RFC 2544), so no outside host has such an address.
POOL = ipaddress.ip_network("198.18.0.0/15")
LINKS = POOL.num_addresses // 2
TRIES = 20

_kernel = ctypes.CDLL(None, use_errno=True)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--ip", default="")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(arguments)
    for name in ("LISTEN_FDS", "LISTEN_PID"):
        os.environ.pop(name, None)
    os.set_inheritable(LISTENER, False)
    # Otherwise each ended connection would leave a zombie.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listener = socket.socket(fileno=LISTENER)
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            serve(connection, options.ip, options.command)
        connection.close()


def serve(connection: socket.socket, ip: str, command: list[str]) -> None:
    """Become the process of one connection. Any failure ends it, and with it the connection."""
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if ip:
            leave_the_others(ip)
        os.dup2(connection.fileno(), 0)
        os.dup2(connection.fileno(), 1)
        os.execv(command[0], command)  # noqa: S606 - a program of the store, by its path
    except (OSError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"a connection has no network of its own and is ended: {error}\n")
    finally:
        os._exit(1)


def leave_the_others(ip: str) -> None:
    """Enter a new network namespace that has a link to the old one."""
    outside = os.open("/proc/self/ns/net", os.O_RDONLY)
    _checked(_kernel.unshare(CLONE_NEWNET))
    inside = os.open("/proc/self/ns/net", os.O_RDONLY)
    number = _link(ip, outside)
    near, far = POOL[2 * number], POOL[2 * number + 1]
    _checked(_kernel.setns(outside, CLONE_NEWNET))
    _batch(ip, f"addr add {near}/31 dev build{number}\nlink set build{number} up\n")
    _checked(_kernel.setns(inside, CLONE_NEWNET))
    _batch(ip, f"link set lo up\naddr add {far}/31 dev eth0\nlink set eth0 up\nroute add default via {near}\n")
    os.close(outside)
    os.close(inside)


def _link(ip: str, outside: int) -> int:
    """Make the link and return its unused number. A number may outlive its process, as long as builds use the link."""
    for left in reversed(range(TRIES)):
        number = (os.getpid() + left) % LINKS
        command = ["link", "add", "eth0", "type", "veth", "peer", f"build{number}", "netns", f"/proc/self/fd/{outside}"]
        done = subprocess.run([ip, *command], pass_fds=(outside,), check=not left, stderr=subprocess.PIPE)
        if done.returncode == 0:
            return number
    raise AssertionError


def _batch(ip: str, lines: str) -> None:
    subprocess.run([ip, "-batch", "-"], input=lines.encode(), check=True)


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


if __name__ == "__main__":
    main(sys.argv[1:])
