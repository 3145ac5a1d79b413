"""Ways into a configuration for our module: one file a kind, chosen here and nowhere else."""

from typing import Final

from provisioner.errors import HookRefused
from provisioner.hooks.base import Hook
from provisioner.hooks.classic import Classic
from provisioner.machine.facts import Facts
from provisioner.machine.journal import Journal

# The first that detects a host takes it; the last one gives the reason when none does.
HOOKS: Final[tuple[Hook, ...]] = (Classic(),)


def choose(facts: Facts) -> Hook:
    """The way into this host's configuration. Raises HookRefused where there is none."""
    for hook in HOOKS:
        if hook.detect(facts):
            return hook
    raise HOOKS[-1].refusal(facts)


def installed(journal: Journal) -> Hook:
    """The hook in the journal: it installed the module and takes it out, even if the host has changed.

    Without a journal it is the classic one, whose line can be found. Raises HookRefused for an unknown kind.
    """
    if journal.hook is None:
        return HOOKS[-1]
    for hook in HOOKS:
        if hook.kind == journal.hook.kind:
            return hook
    hint = "use a nixprov at least as new as the one that was used there last"
    raise HookRefused(journal.host, f"the kind of the module's hook is not known: {journal.hook.kind}", hint=hint)


__all__ = ["HOOKS", "Hook", "choose", "installed"]
