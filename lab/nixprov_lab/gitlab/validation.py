"""The rules of GitLab's runner model, shared by create and update."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from provisioner.model import AccessLevel

ACCESS_LEVELS: Final = tuple(level.value for level in AccessLevel)
MAX_TEXT: Final = 1024
MAX_TAGS: Final = 50
MIN_TIMEOUT_S: Final = 600


def runner_errors(
    *,
    description: str,
    maintenance_note: str | None,
    tags: Sequence[str],
    run_untagged: bool,
    maximum_timeout_s: int | None,
) -> dict[str, list[str]]:
    """Complaints by attribute, in the shape of the 400 of PUT; empty when all is well."""
    errors: dict[str, list[str]] = {}
    too_long = f"is too long (maximum is {MAX_TEXT} characters)"
    for name, text in (("description", description), ("maintenance_note", maintenance_note or "")):
        if len(text) > MAX_TEXT:
            errors[name] = [too_long]
    if not tags and not run_untagged:
        errors["tags_list"] = ["can not be empty when runner is not allowed to pick untagged jobs"]
    if len(tags) > MAX_TAGS:
        errors["tags_list"] = [f"Too many tags specified. Please limit the number of tags to {MAX_TAGS}"]
    if maximum_timeout_s is not None and maximum_timeout_s < MIN_TIMEOUT_S:
        errors["maximum_timeout"] = ["needs to be at least 10 minutes"]
    return errors
