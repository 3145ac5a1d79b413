"""What goes wrong on this computer, before any machine of the lab answers."""

from provisioner.errors import NixprovError


class LabError(NixprovError):
    """The lab cannot be built, started, found or asked; nothing outside this computer is involved."""
