"""Where GitLab's URL and token come from, in which order, and what is said when they are missing or wrong."""

from __future__ import annotations

from pathlib import Path

import gitlab.config
import pytest

from provisioner.ci.gitlab.access import TokenKind
from provisioner.ci.gitlab.settings import load
from provisioner.errors import ConfigError

URL = "https://gitlab.example.org"
POISON = "glpat-poison-4711"


@pytest.fixture(autouse=True)
def _no_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """python-gitlab looks up the home directory when it is imported, which may have been before the test's own."""
    monkeypatch.setattr(gitlab.config, "_DEFAULT_FILES", [])


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    return written(tmp_path / "token", POISON + "\n")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """python-gitlab's configuration with two sections; the default one has another server."""
    text = (
        "[global]\ndefault = work\nssl_verify = false\ntimeout = 7\n"
        "[work]\nurl = https://work.example.org/\nprivate_token = glpat-work\n"
        f"[other]\nurl = {URL}\noauth_token = bearer-other\n"
        "[job]\nurl = https://job.example.org\njob_token = x\n"
    )
    path = written(tmp_path / "python-gitlab.cfg", text)
    monkeypatch.setenv("PYTHON_GITLAB_CFG", str(path))
    return path


def written(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_options_win_over_variables(token_file: Path, tmp_path: Path) -> None:
    other = written(tmp_path / "other", "glpat-other")
    environ = {"NIXPROV_GITLAB_URL": "https://x.example.org", "NIXPROV_GITLAB_TOKEN_FILE": str(other)}
    found = load(environ, url=URL + "/", token_file=token_file)
    assert (found.url, found.token.reveal()) == (URL, POISON)
    assert found.origin == "url from --gitlab-url, token from --gitlab-token-file"
    assert (found.verify, found.timeout_s, found.warnings) == (True, 30.0, ())


def test_a_token_file_wins_over_a_token_in_a_variable(token_file: Path) -> None:
    environ = {"NIXPROV_GITLAB_URL": URL, "NIXPROV_GITLAB_TOKEN": "glpat-variable"}
    assert load(environ).token.reveal() == "glpat-variable"
    assert load({**environ, "NIXPROV_GITLAB_TOKEN_FILE": str(token_file)}).token.reveal() == POISON


@pytest.mark.usefixtures("config")
def test_variables_win_over_python_gitlabs_files() -> None:
    found = load({"NIXPROV_GITLAB_URL": URL, "NIXPROV_GITLAB_TOKEN": POISON})
    assert (found.url, found.token.reveal(), found.verify) == (URL, POISON, True)


@pytest.mark.usefixtures("config")
def test_python_gitlabs_files_are_the_last_resort() -> None:
    found = load({})
    assert (found.url, found.token.reveal(), found.token_kind) == (
        "https://work.example.org",
        "glpat-work",
        TokenKind.PRIVATE,
    )
    assert (found.verify, found.timeout_s) == (False, 7.0)
    other = load({"NIXPROV_GITLAB_CONFIG": "other"})
    assert (other.url, other.token.reveal(), other.token_kind) == (URL, "bearer-other", TokenKind.OAUTH)


@pytest.mark.usefixtures("config")
def test_a_named_token_goes_to_the_configured_server() -> None:
    found = load({"NIXPROV_GITLAB_TOKEN": POISON})
    assert (found.url, found.token.reveal()) == ("https://work.example.org", POISON)


@pytest.mark.usefixtures("config")
def test_a_configured_token_never_goes_to_another_server() -> None:
    with pytest.raises(ConfigError, match=r"no token for https://gitlab\.example\.org") as caught:
        load({}, url=URL)
    assert "work.example.org" in str(caught.value)
    assert load({}, url="https://work.example.org").token.reveal() == "glpat-work"


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({}, "no GitLab is named; give --gitlab-url"),
        ({"NIXPROV_GITLAB_TOKEN": POISON}, "no GitLab is named"),
        ({"NIXPROV_GITLAB_URL": URL}, "there is no token for https://gitlab.example.org; give --gitlab-token-file"),
        ({"NIXPROV_GITLAB_URL": "gitlab.example.org", "NIXPROV_GITLAB_TOKEN": "x"}, "is not a URL"),
        ({"NIXPROV_GITLAB_URL": "ftp://gitlab.example.org", "NIXPROV_GITLAB_TOKEN": "x"}, "is not a URL"),
        ({"NIXPROV_GITLAB_URL": f"https://u:{POISON}@g.example.org"}, "holds more than a server"),
        ({"NIXPROV_GITLAB_URL": URL, "NIXPROV_GITLAB_TOKEN": f"{POISON}\u00fc"}, "not one word of plain characters"),
        ({"NIXPROV_GITLAB_URL": URL, "NIXPROV_GITLAB_TOKEN": f"two {POISON}"}, "not one word of plain characters"),
        ({"NIXPROV_GITLAB_URL": URL, "NIXPROV_GITLAB_TOKEN": " "}, "is empty"),
        ({"NIXPROV_GITLAB_URL": URL, "NIXPROV_GITLAB_TOKEN_FILE": "/nowhere/token"}, "No such file"),
        ({"NIXPROV_GITLAB_URL": URL, "NIXPROV_GITLAB_TOKEN": "x", "NIXPROV_GITLAB_CA": "/nowhere/ca"}, "/nowhere/ca"),
        ({"NIXPROV_GITLAB_URL": URL, "NIXPROV_GITLAB_TOKEN": "x", "NIXPROV_GITLAB_TIMEOUT": "0"}, "more than 0"),
        ({"NIXPROV_GITLAB_URL": URL, "NIXPROV_GITLAB_TOKEN": "x", "NIXPROV_GITLAB_TIMEOUT": "1e9"}, "at most 86400"),
        ({"NIXPROV_GITLAB_URL": URL, "NIXPROV_GITLAB_TOKEN": "x", "NIXPROV_GITLAB_TIMEOUT": "soon"}, "not a number"),
        ({"NIXPROV_GITLAB_URL": URL, "NIXPROV_GITLAB_TOKEN": "x", "NIXPROV_GITLAB_SSL_VERIFY": "so"}, "neither yes"),
    ],
)
def test_what_is_missing_or_wrong_is_said_in_one_line(environ: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(environ)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert POISON not in str(caught.value)


@pytest.mark.usefixtures("config")
@pytest.mark.parametrize(
    ("section", "said"), [("nosuch", "no config section found"), ("job", "has no token that can manage runners")]
)
def test_a_section_that_does_not_do(section: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load({"NIXPROV_GITLAB_CONFIG": section})


@pytest.mark.parametrize("text", ["", "[global]\n", "[global]\ndefault = x\n", "nonsense", "[x]\nurl=%(y)s\n"])
def test_a_broken_configuration_is_a_config_error(config: Path, text: str) -> None:
    config.write_text(text)
    with pytest.raises(ConfigError, match="python-gitlab's configuration"):
        load({})


def test_an_unreadable_configuration_is_a_config_error(config: Path) -> None:
    config.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="python-gitlab's configuration"):
        load({})


def test_a_token_file_that_others_read_is_taken_with_a_warning(tmp_path: Path) -> None:
    loose = written(tmp_path / "loose", POISON, 0o644)
    found = load({}, url=URL, token_file=loose)
    assert found.token.reveal() == POISON
    assert found.warnings == (f"{loose} can be read by others on this computer; chmod 600 {loose}",)


def test_tls_verification_from_variables(tmp_path: Path) -> None:
    bundle = written(tmp_path / "ca.pem", "x")
    base = {"NIXPROV_GITLAB_URL": URL, "NIXPROV_GITLAB_TOKEN": POISON}
    assert load({**base, "NIXPROV_GITLAB_CA": str(bundle)}).verify == str(bundle)
    unchecked = load({**base, "NIXPROV_GITLAB_SSL_VERIFY": "no"})
    assert (unchecked.verify, unchecked.warnings) == (False, (f"the certificate of {URL} is not checked",))


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("http://gitlab.example.org", True),
        ("http://93.184.215.14", True),
        ("https://gitlab.example.org", False),
        ("http://localhost:8080", False),
        ("http://[::1]:8080", False),
        ("http://10.60.1.1:8080", False),
    ],
)
def test_a_token_in_the_clear_is_said(url: str, warned: bool) -> None:
    found = load({"NIXPROV_GITLAB_TOKEN": POISON}, url=url)
    assert found.warnings == ((f"the token goes to {url} unencrypted; name it with https",) if warned else ())


def test_a_url_may_be_copied_from_anywhere() -> None:
    spelled = ("HTTPS://GitLab.Example.org", f"{URL}:443", f"{URL}:443/", f"{URL}:")
    for text in (f"{URL}/", f"{URL}/api/v4", f"{URL}/api/v4/", f" {URL} ", *spelled):
        assert load({"NIXPROV_GITLAB_TOKEN": POISON}, url=text).url == URL
    assert load({"NIXPROV_GITLAB_TOKEN": POISON}, url=f"{URL}/GitLab/").url == f"{URL}/GitLab"
    for other in (f"{URL}:80", f"{URL}:8443", "http://[fe80::443]", "http://[fe80::1]:443"):
        assert load({"NIXPROV_GITLAB_TOKEN": POISON}, url=other).url == other
    assert load({"NIXPROV_GITLAB_TOKEN": POISON}, url="http://[FE80::80]:80").url == "http://[fe80::80]"


def test_settings_never_show_the_token() -> None:
    assert POISON not in repr(load({"NIXPROV_GITLAB_TOKEN": POISON}, url=URL))
