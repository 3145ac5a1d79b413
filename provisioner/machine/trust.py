"""Whether this host's Nix can tell a job from root, by the facts from before any build.

templates/core/filter.nix asserts the same of the built configuration, and has the last word.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from provisioner.machine.facts import Facts
from provisioner.model import Trust

# Nix 2.4 and later trust a client by its user. Nix 2.18 and later have a daemon that can trust nobody.
BY_USER: Final = (2, 4)
NOBODY: Final = (2, 18)
# Names under which the daemon of an older Nix sees a job.
_FILTER: Final = ("*", "nixprov-filter", "@nixprov-filter")
_PLAIN: Final = "or say `nixprov_trust: plain` for it and trust every job"


def problems(wanted: Trust, facts: Facts) -> Iterator[tuple[str, str]]:
    """Reasons why jobs would be root of the host, each with its remedy; none if that is wanted, or unknown."""
    version = tuple(int(number) for number in re.findall(r"\d+", facts.nix_version)[:2])
    if wanted is Trust.PLAIN or not version or version >= NOBODY:
        return
    if version < BY_USER:
        problem = f"nix {facts.nix_version} is older than 2.4 and cannot keep jobs from being root of the host"
        yield problem, f"switch the host to a newer Nix, {_PLAIN}"
    elif taken := next((user for user in _FILTER if user in facts.trusted_users), ""):
        problem = (
            f"nix {facts.nix_version} is older than 2.18, and `{taken}` in trusted-users makes jobs root of the host"
        )
        yield problem, f"take `{taken}` out of trusted-users and switch, {_PLAIN}"
    elif facts.takes_unsigned:
        problem = f"nix {facts.nix_version} is older than 2.18, and without require-sigs jobs can be root of the host"
        yield problem, f"set require-sigs and switch, {_PLAIN}"


def warnings(wanted: Trust, facts: Facts) -> Iterator[str]:
    """The warning of every run about a host with trusted jobs, now or soon."""
    if wanted is Trust.PLAIN or facts.trusts_jobs:
        whose = "nixprov_trust: plain" if wanted is Trust.PLAIN else "not what the inventory says"
        yield f"jobs have the host's own Nix daemon, and root in a job's container is root of the host ({whose})"
