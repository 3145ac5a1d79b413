"""nixprov: NixOS machines as GitLab CI runners that build with the machine's own store, and back without a trace."""

__version__ = "0.1.0"
