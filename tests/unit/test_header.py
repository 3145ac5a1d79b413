"""The header of what we write: whose a file is, and whether it was edited."""

from __future__ import annotations

import re

import pytest

from provisioner import __version__
from provisioner.nix.header import Header, managed


def test_a_managed_file_knows_its_body_and_says_nothing_that_changes() -> None:
    text = managed("{ }\n")
    assert text.endswith("\n{ }\n")
    assert text.startswith("# Managed by nixprov ")
    assert managed("{ }\n") == text
    header = Header.read(text.encode())
    assert header is not None
    assert header.is_intact
    assert header.digest in text.splitlines()[0]
    assert header.version == ""
    assert __version__ not in text


def test_a_header_that_names_a_version_is_the_same_header() -> None:
    """As all had it up to 0.1.0: a file that is on a host keeps it."""
    text = managed("{ }\n").encode()
    older = re.sub(rb"nixprov \w+;", b"nixprov 0.1.0rc1+local;", text, count=1)
    header = Header.read(older)
    assert older != text
    assert header is not None
    assert header == Header.read(text)
    assert (header.version, header.is_intact) == ("0.1.0rc1+local", True)


def test_an_older_nixprov_takes_the_file_for_its_own() -> None:
    """Its `down` leaves what it does not recognise: this is what it looks for."""
    first = (
        rb'# Managed by nixprov [0-9A-Za-z.+!-]+; do not edit \(sha256:[0-9a-f]{64}\); "nixprov down" removes it\r?\n'
    )
    assert re.match(first, managed("{ }\n").encode())


@pytest.mark.parametrize(("old", "new"), [("{ }", "{  }"), ("\n{ }\n", "\n{ }"), ("ä", "a"), ("\n{", "\r\n{")])
def test_a_hand_edit_is_seen(old: str, new: str) -> None:
    text = managed("# ä\n{ }\n").replace(old, new)
    header = Header.read(text.encode())
    assert header is not None
    assert not header.is_intact


def test_other_files_have_no_header() -> None:
    foreign = [
        "",
        "{ }\n",
        "\n" + managed("x"),
        managed("x").replace("sha256", "md5"),
        "# Managed by nixprov\n",
        "\ufeff" + managed("x"),
    ]
    assert [Header.read(text.encode()) for text in foreign] == [None] * len(foreign)
    assert Header.read(b"\xff\xfe\x00") is None
