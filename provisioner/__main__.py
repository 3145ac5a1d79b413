"""`python -m provisioner`: the same as `nixprov`."""

from provisioner.cli import main

main()
