"""Renders the templates we ship; the only importer of Jinja2.

A template decides the shape, never a value: what is put in has to go through the `nix` filter, and anything else is an
error, so that no value from an inventory can become code. Must not know hosts or the meaning of what is rendered.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import cache
from importlib.resources.abc import Traversable
from typing import Final

from jinja2 import FunctionLoader, StrictUndefined, TemplateError, TemplateNotFound, TemplateSyntaxError, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from provisioner import resources
from provisioner.errors import ConfigError
from provisioner.nix.literal import to_nix

_SUFFIX: Final = ".j2"


class _NixText(str):
    """Text that may stand in a file as it is: what the `nix` filter gives."""

    __slots__ = ()


def render(name: str, /, **values: object) -> str:
    """Render `templates/<name>.j2`; see Renderer.render."""
    return _shipped().render(name, **values)


@cache
def _shipped() -> Renderer:
    return Renderer(resources.templates())


class Renderer:
    """The templates of one folder."""

    def __init__(self, folder: Traversable) -> None:
        self._environment = ImmutableSandboxedEnvironment(
            loader=FunctionLoader(_loader(folder)),
            undefined=StrictUndefined,
            autoescape=False,  # for HTML; `finalize` is what keeps values out of the code here
            keep_trailing_newline=True,
            trim_blocks=True,
            lstrip_blocks=True,
            finalize=_only_nix,
        )
        self._environment.filters["nix"] = _nix

    def render(self, name: str, /, **values: object) -> str:
        """Render `<name>.j2`; `{{ x | nix }}` writes a value, `{{ x | nix(4) }}` one whose lines are indented by 4.

        Raises ConfigError with file and line for a template that is missing or wrong, a name without a value, and a
        value that Nix cannot hold; TypeError for a Secret (see provisioner.nix.literal).
        """
        file = name + _SUFFIX
        try:
            return self._environment.get_template(file).render(values)
        except TemplateNotFound as error:
            raise ConfigError(f"there is no template {error.name}") from error
        except TemplateSyntaxError as error:
            raise ConfigError(f"{error.filename or file}:{error.lineno}: {error.message}") from error
        except TemplateError as error:
            raise ConfigError(f"{_place(error, file)}: {error.message}") from error
        except ConfigError as error:
            raise ConfigError(f"{_place(error, file)}: {error.message}", hint=error.hint) from error


def _loader(folder: Traversable) -> Callable[[str], tuple[str, str, Callable[[], bool]] | None]:
    def load(name: str) -> tuple[str, str, Callable[[], bool]] | None:
        file = folder / name
        if "/" in name or not file.is_file():
            return None
        return file.read_text(encoding="utf-8"), f"{folder.name}/{name}", lambda: True

    return load


def _nix(value: object, indent: int = 0) -> _NixText:
    if isinstance(value, Undefined):
        str(value)  # raises UndefinedError, which names the variable
    return _NixText(to_nix(value, indent))


def _only_nix(value: object) -> object:
    if isinstance(value, _NixText | Undefined):
        return value
    raise ConfigError("a value is put into the text as it is", hint="write {{ … | nix }}")


def _place(error: BaseException, file: str) -> str:
    """Give file and line of the innermost frame that is a template: Jinja2 rewrites the traceback to show those."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(_SUFFIX)]
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else file
