"""Known flaws of the Nix that a host runs now, and their acceptance by the owner.

The daemon of the jobs will run the Nix of the configuration that is built. templates/core/advisories.nix checks that
one and has the last word. Patches do not show in a version: a mended Nix may be named here too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from provisioner import advisories
from provisioner.advisories import Advisory, Found
from provisioner.machine.facts import Facts
from provisioner.model import ModuleSpec, Trust


@dataclass(frozen=True, slots=True)
class Flaws:
    """`nix` is the name and version of the host's Nix, empty when unknown.

    `found` is None when nothing was looked up. `accepted` are ids. `is_trusted`: jobs are root of the host anyhow.
    """

    nix: str
    found: Found | None
    accepted: frozenset[str]
    is_trusted: bool = False

    @classmethod
    def of(cls, wanted: ModuleSpec, facts: Facts) -> Flaws:
        found = advisories.of(facts.nix_product, facts.nix_version)
        # A trusted job is root of the host by its permissions, not by a flaw. There is nothing to refuse, and the
        # warning of that trust (trust.py) says more than any of these.
        is_trusted = wanted.trust is Trust.PLAIN
        return cls(facts.nix_name, found, frozenset(wanted.accepted_advisories), is_trusted)

    @property
    def all(self) -> tuple[Advisory, ...]:
        return (*self.found.root, *self.found.less) if self.found else ()

    @property
    def mended(self) -> str:
        """The nearest release without a way to root, if this one has some; empty when no release mends it."""
        return self.found.mended if self.found and self.found.root else ""

    def accepts(self, advisory: Advisory) -> bool:
        return advisory.id in self.accepted

    def refusal(self) -> tuple[str, str] | None:
        """The reason why `up` refuses the host, and its remedy; None when it does not."""
        refused = [one for one in self._ways_to_root if not self.accepts(one)]
        if not refused:
            return None
        names = _ids(refused)
        newer = f"switch the host to Nix {self.mended} or newer (nix.package)" if self.mended else "no release mends it"
        # The whole list: a person replaces a shorter one with it.
        accept = f"or accept by name: `nixprov_accept_advisories: [{_ids(self._ways_to_root)}]`"
        return f"nix {self.nix} lets jobs become root of the host: {names}", f"{newer}, {accept}"

    def warnings(self) -> Iterator[str]:
        """Lines that every run prints; none of them stops a run."""
        if self.is_trusted:
            return
        if self.found is None:
            yield f"{self._of_unknown_maker}: advisories were not looked at"
            return
        accepted = [one for one in self._ways_to_root if self.accepts(one)]
        if accepted:
            mends = f"; {self.mended} mends it" if self.mended else ""
            yield f"nix {self.nix} lets jobs become root of the host, and this is accepted: {_ids(accepted)}{mends}"
        if self.found.less:
            yield f"nix {self.nix} has flaws that give jobs less than root: {_ids(self.found.less)}"

    @property
    def _of_unknown_maker(self) -> str:
        return f"nix {self.nix} is not one that nixprov knows" if self.nix else "nix does not tell its version"

    @property
    def _ways_to_root(self) -> tuple[Advisory, ...]:
        return self.found.root if self.found and not self.is_trusted else ()


def _ids(found: tuple[Advisory, ...] | list[Advisory]) -> str:
    return ", ".join(one.id for one in found)
