"""Each link of the documentation leads to a file that is there, and to a heading in it; each page is listed for the reader."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import yaml

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
PAGES: Final = (*sorted(DOCS.rglob("*.md")), *sorted(ROOT.glob("*.md")), ROOT / "lab/README.md")
LINK: Final = re.compile(r"\[[^]]*\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")


def prose(text: str) -> str:
    return re.sub(r"(?m)^(?: {4}|\t).*$|`[^`\n]*`", "", text)


def anchors(page: Path) -> set[str]:
    """The names that a heading has in the site and in repository viewers alike."""
    titles = re.findall(r"(?m)^#+ (.+)$", page.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in titles}


def broken(page: Path, text: str) -> Iterator[str]:
    for file, anchor in LINK.findall(prose(text)):
        target = (page.parent / file).resolve() if file else page
        if not target.exists():
            yield f"{page.relative_to(ROOT)}: {file} is not there"
        elif anchor and anchor not in anchors(target):
            yield f"{page.relative_to(ROOT)}: {file} has no heading #{anchor}"


def test_every_link_leads_somewhere() -> None:
    assert [found for page in PAGES for found in broken(page, page.read_text(encoding="utf-8"))] == []


def test_a_broken_link_would_be_seen() -> None:
    text = "[a](nowhere.md) [b](security.md#nothing) [c](security.md#known-flaws-of-nix) [d](https://x.example) `[e](f.md)`"
    found = list(broken(DOCS / "usage.md", text))
    assert [line.partition(": ")[2] for line in found] == [
        "nowhere.md is not there",
        "security.md has no heading #nothing",
    ]


def test_pages_of_the_site_lead_to_pages_of_the_site() -> None:
    for page in DOCS.rglob("*.md"):
        for file, _ in LINK.findall(prose(page.read_text(encoding="utf-8"))):
            assert (page.parent / file).resolve().is_relative_to(DOCS), f"{page.relative_to(ROOT)}: {file}"


def test_every_page_is_listed_once() -> None:
    """A page in the navigation, a decision in the index of decisions."""

    def files(entry: object) -> Iterator[str]:
        for one in entry if isinstance(entry, list) else entry.values() if isinstance(entry, dict) else ():
            yield from [one] if isinstance(one, str) else files(one)

    listed = list(files(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    pages = {page for page in DOCS.rglob("*.md") if not re.match(r"\d", page.name)}
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in pages)
    index = (DOCS / "adr/README.md").read_text()
    assert sorted(re.findall(r"\]\((\d[^)]*)\)", index)) == sorted(
        page.name for page in (DOCS / "adr").glob("[0-9]*.md")
    )
