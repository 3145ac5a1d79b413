"""Ways into a configuration for our module: one file a kind, chosen here and nowhere else."""

from typing import Final

from provisioner.errors import HookRefused
from provisioner.hooks.base import Hook
from provisioner.hooks.classic import Classic
from provisioner.machine.facts import Facts
from provisioner.machine.journal import Journal

# The first that knows a host as its own takes it; the last one says why none does.
HOOKS: Final[tuple[Hook, ...]] = (Classic(),)


def choose(facts: Facts) -> Hook:
    """The way into this host's configuration. Raises HookRefused where there is none."""
    for hook in HOOKS:
        if hook.detect(facts):
            return hook
    raise HOOKS[-1].refusal(facts)


def installed(journal: Journal) -> Hook:
    """The hook that the journal names: the one that put the module in takes it out, also where the host has changed.

    Without a journal it is the classic one, whose line can be found. Raises HookRefused for a kind not known here.
    """
    if journal.hook is None:
        return HOOKS[-1]
    for hook in HOOKS:
        if hook.kind == journal.hook.kind:
            return hook
    hint = "use a nixprov at least as new as the one that was used there last"
    raise HookRefused(journal.host, f"the module is in by a way that is not known: {journal.hook.kind}", hint=hint)


__all__ = ["HOOKS", "Hook", "choose", "installed"]
