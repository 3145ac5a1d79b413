"""The lab's network: one bridge with an address of the computer, hosts on it, no way out.

Owns the choice of addresses and the interfaces' names; knows nothing of the programs on the machines.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable
from ipaddress import IPv4Network
from pathlib import Path
from typing import Final

from nixprov_lab.process import run

FIRST_HOST: Final = 11
MOST_HOSTS: Final = 99


def subnet_of(lab_id: str) -> IPv4Network:
    """The /24 that belongs to an id, within 10.0.0.0/8."""
    return IPv4Network(f"10.{int(lab_id[:2], 16)}.{int(lab_id[2:4], 16)}.0/24")


def bridge_of(lab_id: str) -> str:
    return f"npl{lab_id}"


def machine_of(lab_id: str, host: str) -> str:
    """The name of a container. It is part of an interface's name, which has room for 15 characters."""
    return f"{lab_id}-{host.removeprefix('host')}"


def link_of(lab_id: str, host: str) -> str:
    """The computer's end of a host's cable, as systemd-nspawn --network-bridge names it."""
    return f"vb-{machine_of(lab_id, host)}"


def gateway(subnet: IPv4Network) -> str:
    return str(subnet[1])


def address(subnet: IPv4Network, number: int) -> str:
    """The address of the host `host<number>`, counted from 1."""
    return str(subnet[FIRST_HOST - 1 + number])


def is_free(subnet: IPv4Network, taken: Iterable[IPv4Network]) -> bool:
    return not any(subnet.overlaps(other) for other in taken)


def networks_in_use() -> list[IPv4Network]:
    """The networks of this computer's routes, addresses and name servers. The default route does not count."""
    routes = json.loads(run(["ip", "-json", "-4", "route", "show", "table", "all"]) or "[]")
    names = [str(route.get("dst", "default")) for route in routes] + _name_servers()
    return [network for name in names if (network := _network(name)) is not None and network.prefixlen > 0]


def create_bridge(name: str, subnet: IPv4Network) -> None:
    run(["ip", "link", "add", "name", name, "type", "bridge"])
    run(["ip", "address", "add", f"{gateway(subnet)}/{subnet.prefixlen}", "dev", name])
    run(["ip", "link", "set", "dev", name, "up"])


def remove_link(name: str) -> None:
    """Remove an interface when it is there."""
    if Path("/sys/class/net", name).exists():
        # Its other end may be going with the machine at this moment. Then the link is gone, as wanted.
        run(["ip", "link", "delete", "dev", name], check=False)


def set_link(name: str, *, up: bool) -> None:
    run(["ip", "link", "set", "dev", name, "up" if up else "down"])


def _name_servers() -> list[str]:
    try:
        lines = Path("/etc/resolv.conf").read_text().splitlines()
    except FileNotFoundError:
        return []
    return [words[1] for line in lines if len(words := line.split()) > 1 and words[0] == "nameserver"]


def _network(text: str) -> IPv4Network | None:
    if text == "default":
        return None
    try:
        return ipaddress.IPv4Network(text, strict=False)
    except ValueError:
        return None
