"""Templates, the header of what we write, and where both are found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from provisioner import __version__, resources
from provisioner.errors import ConfigError
from provisioner.model import Secret
from provisioner.nix.header import Header, managed
from provisioner.nix.render import Renderer


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    folder = tmp_path / "templates"
    folder.mkdir()
    return folder


def write(folder: Path, text: str, name: str = "x.nix") -> Renderer:
    (folder / f"{name}.j2").write_text(text)
    return Renderer(folder)


def test_values_are_written_as_nix(templates: Path) -> None:
    text = "{\n  a = {{ a | nix(2) }};\n  {{ name | nix }} = 1;\n}\n"
    assert write(templates, text).render("x.nix", a={"b": [-1]}, name="${x}") == (
        '{\n  a = {\n    b = [ (-1) ];\n  };\n  "\\${x}" = 1;\n}\n'
    )


def test_blocks_leave_no_blank_lines_and_the_last_newline_stays(templates: Path) -> None:
    text = "[\n  {% for item in items %}\n  {{ item | nix(2) }}\n  {% endfor %}\n]\n"
    assert write(templates, text).render("x.nix", items=[1, "b"]) == '[\n  1\n  "b"\n]\n'


def test_a_template_may_include_another(templates: Path) -> None:
    write(templates, "{{ a | nix }}", "inner.nix")
    assert write(templates, "[ {% include 'inner.nix.j2' %} ]").render("x.nix", a=-1) == "[ (-1) ]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n{{ a }}", "templates/x.nix.j2:2: a value is put into the text as it is"),
        ("{{ 'literal' }}", "a value is put into the text as it is"),
        ("\n{{ (a | nix) ~ a }}", "templates/x.nix.j2:2: a value is put into the text as it is"),
        ("\n{{ a | nix | upper }}", "templates/x.nix.j2:2: a value is put into the text as it is"),
        ("\n\n{{ missing | nix }}", "templates/x.nix.j2:3: 'missing' is undefined"),
        ("{{ missing }}", "templates/x.nix.j2:1: 'missing' is undefined"),
        ("{{ b.missing | nix }}", "templates/x.nix.j2:1: 'dict object' has no attribute 'missing'"),
        ("\n{% if a %}", "templates/x.nix.j2:2: Unexpected end of template"),
        ("\n{{ a | nonsense }}", "templates/x.nix.j2:2: No filter named 'nonsense'"),
        ("\n{{ a.__class__.__mro__ | nix }}", "templates/x.nix.j2:2: access to attribute '__class__'"),
        ("{{ c.append(1) | nix }}", "templates/x.nix.j2:1: access to attribute 'append' of 'list' object is unsafe"),
        ("\n{{ big | nix }}", "templates/x.nix.j2:2: a[0] is an integer beyond 64 bits"),
        ("{% include 'nope.j2' %}", "there is no template nope.j2"),
        ("{% include '../secret.j2' %}", "there is no template ../secret.j2"),
    ],
)
def test_errors_name_file_and_line(templates: Path, text: str, message: str) -> None:
    (templates.parent / "secret.j2").write_text("out of reach")
    with pytest.raises(ConfigError) as wrong:
        write(templates, text).render("x.nix", a="v", b={}, c=[], big={"a": [2**70]})
    assert wrong.value.message.startswith(message) or message in wrong.value.message
    assert "\n" not in str(wrong.value)


def test_a_value_is_never_a_template(templates: Path) -> None:
    assert write(templates, "{{ a | nix }}").render("x.nix", a="{{ 7 * 7 }}{% raw %}") == '"{{ 7 * 7 }}{% raw %}"'


def test_a_secret_stops_the_rendering(templates: Path) -> None:
    with pytest.raises(TypeError, match="never written as Nix"):
        write(templates, "{{ a | nix }}").render("x.nix", a={"token": Secret("poison")})


def test_a_name_may_be_a_value_too(templates: Path) -> None:
    assert write(templates, "{{ name | nix }}").render("x.nix", name="n") == '"n"'


def test_shipped_folders_are_found() -> None:
    assert (resources.templates() / "settings.nix.j2").is_file()
    assert resources.playbooks().name == "playbooks"


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
