"""The things nixprov owns on a host, in the order in which they are put there; they are taken back in reverse."""

from typing import Final

from provisioner.steps.base import Comparison, State, Step, Wanted
from provisioner.steps.hook import Hook
from provisioner.steps.module import ModuleFiles
from provisioner.steps.remnants import Remnants
from provisioner.steps.secrets import Secrets
from provisioner.steps.staged import Staged
from provisioner.steps.state import StateDir

STEPS: Final[tuple[Step, ...]] = (StateDir(), Secrets(), ModuleFiles(), Hook(), Staged(), Remnants())

__all__ = ["STEPS", "Comparison", "State", "Step", "Wanted"]
