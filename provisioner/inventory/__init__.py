"""Inventories in Ansible's formats, host patterns, and the wanted runners and module of each host.

    inventory = load(["inventory"])
    for host in inventory.select("web:!old", limit=None): ...

Owns everything from the operator's files to `model.HostSpec`. Knows nothing of ssh, CI or Nix.
"""

from provisioner.inventory.fleet import Inventory, InventoryGroup, InventoryHost, load
from provisioner.inventory.vault import VaultReader

__all__ = ["Inventory", "InventoryGroup", "InventoryHost", "VaultReader", "load"]
