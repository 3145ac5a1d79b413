"""GitLab's pagination: docs api/rest, "Pagination". Offset with totals, or keyset with nothing but rel=next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol, TypeVar
from urllib.parse import urlencode

from nixprov_lab.gitlab.params import Reader

MAX_PER_PAGE: Final = 100
MAX_COUNTED: Final = 10_000


class _HasId(Protocol):
    @property
    def id(self) -> int: ...


Item = TypeVar("Item")
Numbered = TypeVar("Numbered", bound=_HasId)


def per_page_and_page(reader: Reader) -> tuple[int, int]:
    """Read `per_page` (20, at most 100) and `page` (from 1). Nonsense is refused, 0 and less are corrected."""
    per_page = reader.integer("per_page", default=20) or 20
    page = reader.integer("page", default=1) or 1
    return min(max(per_page, 1), MAX_PER_PAGE), max(page, 1)


def offset_page(
    items: Sequence[Item], reader: Reader, url: str, query: Mapping[str, str]
) -> tuple[Sequence[Item], dict[str, str]]:
    """One page of `items` and its headers; over 10,000 records totals and rel=last are left out."""
    per_page, page = per_page_and_page(reader)
    reader.finish()
    start = (page - 1) * per_page
    last = max(-(-len(items) // per_page), 1)
    has_next = start + per_page < len(items)
    headers = {
        "X-Page": str(page),
        "X-Per-Page": str(per_page),
        "X-Prev-Page": str(page - 1) if page > 1 else "",
        "X-Next-Page": str(page + 1) if has_next else "",
    }
    pages = {"prev": page - 1 if page > 1 else 0, "next": page + 1 if has_next else 0, "first": 1}
    if len(items) <= MAX_COUNTED:
        headers |= {"X-Total": str(len(items)), "X-Total-Pages": str(last)}
        pages["last"] = last
    links = [
        f'<{url}?{urlencode({**query, "page": number, "per_page": per_page})}>; rel="{rel}"'
        for rel, number in pages.items()
        if number
    ]
    return items[start : start + per_page], headers | {"Link": ", ".join(links)}


def keyset_page(
    items: Sequence[Numbered], reader: Reader, url: str, query: Mapping[str, str]
) -> tuple[Sequence[Numbered], dict[str, str]]:
    """The records after `cursor` (an id) and a Link to the rest; `items` stand in the order asked for."""
    per_page, _ = per_page_and_page(reader)
    cursor = reader.integer("cursor")
    reader.finish()
    start = next((n + 1 for n, item in enumerate(items) if item.id == cursor), 0)
    shown = items[start : start + per_page]
    if start + per_page >= len(items):
        return shown, {}
    following = urlencode({**query, "cursor": shown[-1].id, "per_page": per_page})
    return shown, {"Link": f'<{url}?{following}>; rel="next"'}
