"""Errors of the lab on this computer, before any of its machines answers."""

from provisioner.errors import NixprovError


class LabError(NixprovError):
    """The lab cannot be built, started, found or asked. Nothing outside this computer is involved."""
