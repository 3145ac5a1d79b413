"""Remnants of the running units: state, images, containers, sockets. The system brings them, `down` takes them away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from typing_extensions import override

from provisioner import hooks
from provisioner.hooks import Hook
from provisioner.machine.facts import Facts
from provisioner.machine.journal import Journal
from provisioner.machine.switch import AT_BOOT, BOOT_MENU, DISARM
from provisioner.machine.switch import DIR as SWITCH_DIR
from provisioner.machine.switch import UNIT as SWITCH_UNIT
from provisioner.machine.things import Folder, Record, Remnant, Thing, Unit, of_kind
from provisioner.machine.transaction import Part, RemoveTree, Shell
from provisioner.steps.base import Step

# The engine removes it with its last container, unless the engine is killed just then.
_BRIDGE: Final = "nixprov0"

# The watcher of a container outlives the engine, and would make its folders again after their removal. A host sees the
# processes of its own containers too. Those may be machines with a runner of theirs, and are not ours.
_WATCHERS: Final = """\
tries=50
while [ "$tries" -gt 0 ]; do
  tries=$((tries - 1)) watchers=
  for process in $(grep -ls '/var/lib/nixprov-containers/' /proc/[0-9]*/cmdline | cut -d/ -f3); do
    [ "$(readlink "/proc/$process/ns/pid")" = "$(readlink /proc/self/ns/pid)" ] || continue
    case $(cat "/proc/$process/comm" 2>/dev/null) in
      conmon | podman | crun | runc) watchers="$watchers $process" ;;
    esac
  done
  [ -n "$watchers" ] || break
  kill -9 $watchers 2>/dev/null || :
  sleep 0.1
done"""

# Generations of our switches would keep our module's closure alive and offer it at boot. The current one always stays.
# The boot menu is written again without the removed generations. A killed build has left its root for the garbage
# collector.
_GENERATIONS: Final = f"""\
for root in /nix/var/nix/gcroots/auto/*; do
  case $(readlink "$root") in {SWITCH_DIR}/*) rm -f "$root" ;; esac
done
if [ -s {SWITCH_DIR}/generations ]; then
  profile=/nix/var/nix/profiles/system
  current=$(readlink "$profile" | sed -n 's/.*system-\\([0-9]*\\)-link$/\\1/p')
  for generation in $(sort -un {SWITCH_DIR}/generations); do
    [ "$generation" = "$current" ] || [ ! -e "$profile-$generation-link" ] ||
      [ ! -e "$profile-$generation-link/etc/nixprov-revision" ] ||
      nix-env --profile "$profile" --delete-generations "$generation" >/dev/null
  done
{BOOT_MENU}
fi
systemctl stop {SWITCH_UNIT} 2>/dev/null || :
systemctl reset-failed 'nixprov-*' 2>/dev/null || :"""


class Remnants(Step):
    """Remnants of all `owners`, whose units have ended by then. A switch is no step, so its own are declared here."""

    name = "remnants"

    def __init__(self, owners: Sequence[Step]) -> None:
        self._owners = owners

    @override
    def things(self, hook: Hook) -> tuple[Thing, ...]:
        paths = " ".join(remnant.path for remnant in self._remnants(hook))
        return (
            Record("remnants", f'for path in {paths}; do [ ! -e "$path" ] || echo "$path"; done'),
            Folder(SWITCH_DIR, 0o700),
            Unit(SWITCH_UNIT),
            Unit(AT_BOOT.rpartition("/")[2]),
        )

    def _remnants(self, hook: Hook) -> tuple[Remnant, ...]:
        theirs = (remnant for step in self._owners for remnant in of_kind(step.things(hook), Remnant))
        return (*theirs, Remnant(AT_BOOT, is_tree=False), Remnant(f"/sys/class/net/{_BRIDGE}", is_tree=False))

    @override
    def remains(self, facts: Facts, journal: Journal) -> tuple[str, ...]:
        return tuple(facts.text("remnants").split())

    @override
    def remove(self, facts: Facts, journal: Journal) -> tuple[Part, ...]:
        remnants = self._remnants(hooks.installed(journal))
        trees = [RemoveTree(remnant.path) for remnant in remnants if remnant.is_tree]
        bridge = Shell(f"ip link delete {_BRIDGE} 2>/dev/null || :")
        return (Shell(_GENERATIONS), Shell(DISARM), Shell(_WATCHERS), bridge, *trees)
