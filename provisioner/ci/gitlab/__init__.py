"""GitLab as a provider of CI."""

from __future__ import annotations

from provisioner.ci.gitlab.access import Access
from provisioner.ci.gitlab.api import Forge


def connect(access: Access) -> Forge:
    """Return the GitLab that `access` names; nothing is sent yet."""
    from provisioner.ci.gitlab.client import Client

    return Client(access)
