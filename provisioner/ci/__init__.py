"""CI by intent: base.py is the seam, and each folder here is one provider."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from provisioner.ci import gitlab
from provisioner.ci.base import Kind

# By the word that begins a plan's lines; a new provider adds its folder and one line here.
KINDS: Final[Mapping[str, Kind]] = MappingProxyType({kind.words.key: kind for kind in (gitlab.KIND,)})
DEFAULT: Final = gitlab.KIND
CI_OPTIONS: Final = tuple(option for kind in KINDS.values() for option in kind.options)
