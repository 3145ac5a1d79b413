"""Two machines for the attacks: host1 with the plain daemon's socket in its jobs, host2 with ours."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from nixprov_lab.running import Lab

from tests.attacks.case import Case, Door, Result
from tests.attacks.suite import Suite, open_plain_door
from tests.lab.operator import Operator

HOSTS = {Door.PLAIN: "host1", Door.OURS: "host2"}
AT_ONCE = 4


# What a host may say for itself and its jobs must not have of it.
CARELESS = r"""
sed -i 's#^  system.stateVersion = .*#  nix.settings = { require-sigs = false; sandbox = "relaxed"; trusted-users = [ "*" ]; };\n&#' \
  /etc/nixos/configuration.nix
sed -i 's#^  system.stateVersion = .*#  virtualisation.containers.containersConf.settings.containers.default_capabilities = [ "MKNOD" "NET_RAW" "SYS_ADMIN" ];\n&#' \
  /etc/nixos/configuration.nix
grep -q require-sigs /etc/nixos/configuration.nix
grep -q default_capabilities /etc/nixos/configuration.nix
nixos-rebuild switch
"""


# Texts of the inventory that look like a place for the runner's token.
VALUES = """nixprov_environment={"ATTACK_VALUE": "@TOKEN@ @IMAGE@"}\n"""


def prepare(lab: Lab, home: Path) -> None:
    """Make both runners, with room for several jobs at once, ours on a careless host, and open the plain door on its own."""
    lab.run(HOSTS[Door.OURS], ["sh", "-c", CARELESS])
    inventory = home / "inventory"
    inventory.write_text(f"{lab.files.inventory.read_text()}nixprov_concurrent={AT_ONCE}\n{VALUES}")
    said = Operator(lab, home)("up", "--yes", "--json", NIXPROV_INVENTORY=str(inventory))
    assert said.code == 0, said.err
    open_plain_door(lab, HOSTS[Door.PLAIN])


def fight(lab: Lab, cases: Sequence[Case], tell: Callable[[Result], None] = lambda _: None) -> list[Result]:
    """Run the cases at both doors at the same time. Raises what the first of the two that failed raised."""
    results: list[Result] = []
    failures: list[BaseException] = []

    def one(door: Door) -> None:
        try:
            for result in Suite.start(lab, HOSTS[door], door).run(cases):
                results.append(result)
                tell(result)
        except BaseException as error:  # noqa: BLE001 - it is raised again in the caller's thread
            failures.append(error)

    threads = [threading.Thread(target=one, args=(door,)) for door in Door]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return results
