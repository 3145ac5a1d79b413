"""The small parts of the lab's stand-in runner: configuration, masks, stamps, names, counts."""

from __future__ import annotations

import io
import itertools
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nixprov_lab.guest.runner import config, toml, volumes
from nixprov_lab.guest.runner.build import go_duration
from nixprov_lab.guest.runner.errors import ConfigError, JobFailed
from nixprov_lab.guest.runner.hostconfig import size
from nixprov_lab.guest.runner.images import is_reference, matches
from nixprov_lab.guest.runner.job import Variable
from nixprov_lab.guest.runner.log import Log
from nixprov_lab.guest.runner.output import Masker, Stamper
from nixprov_lab.guest.runner.pool import Health
from nixprov_lab.guest.runner.trace import Buffer
from nixprov_lab.guest.runner.variables import Variables

TOKEN = "glrt-POISONpoisonPOISON12"
MINIMAL = f"""
concurrent = 1
[[runners]]
name = "host1"
url = "https://gitlab.example"
token = "{TOKEN}"
executor = "docker"
[runners.docker]
image = "localhost/job:1"
"""


def load(tmp_path: Path, text: str) -> config.Config:
    file = tmp_path / "config.toml"
    file.write_text(text, encoding="utf-8")
    return config.load(file)[0]


def test_what_register_writes_is_accepted(tmp_path: Path) -> None:
    top = "concurrent = 1\ncheck_interval = 0\nshutdown_timeout = 0\n[session_server]\n  session_timeout = 1800"
    text = MINIMAL.replace("concurrent = 1", top)
    text = text.replace(
        "[runners.docker]",
        "id = 7\ntoken_obtained_at = 2026-01-02T03:04:05Z\ntoken_expires_at = 0001-01-01T00:00:00Z\n[runners.cache]\n"
        'MaxUploadedArchiveSize = 0\n[runners.docker]\ntls_verify = false\nshm_size = 0\nvolumes = ["/cache"]\n'
        "disable_entrypoint_overwrite = false\noom_kill_disable = false\nnetwork_mtu = 0",
    )
    loaded = load(tmp_path, text)
    assert (loaded.interval, loaded.shutdown_seconds, loaded.runners[0].docker.volumes) == (3.0, 30.0, ("/cache",))


@pytest.mark.parametrize(
    ("place", "line", "told"),
    [
        ("concurrent = 1", "concurrency = 2", "unknown key concurrency"),
        ("concurrent = 1", 'listen_address = ":9252"', "listen_address is gitlab-runner's, but"),
        ('executor = "docker"', 'enviroment = ["A=1"]', "unknown key enviroment"),
        ('executor = "docker"', 'environment = "A=1"', "environment: must be a list, not str"),
        ('executor = "docker"', "limit = true", "limit: must be a whole number, not bool"),
        ('executor = "docker"', 'unhealthy_interval = "soon"', "is no duration"),
        ('executor = "docker"', "token_expires_at = 2030-01-01T00:00:00Z", "does not rotate tokens"),
        ('executor = "docker"', "feature_flags = { FF_CONCRETE = true }", "feature flag FF_CONCRETE is not supported"),
        ('image = "localhost/job:1"', "privilegd = true", "unknown key privilegd"),
        # Docker's command line has these options, and services do not. The real runner ignores them in silence.
        ('image = "localhost/job:1"', "pids_limit = 100", "unknown key pids_limit"),
        ('image = "localhost/job:1"', 'services_cap_drop = ["NET_RAW"]', "unknown key services_cap_drop"),
        ('image = "localhost/job:1"', "no_new_privileges = true", "unknown key no_new_privileges"),
        ('image = "localhost/job:1"', 'gpus = "all"', "gpus is gitlab-runner's, but"),
        ('image = "localhost/job:1"', 'pull_policy = "sometimes"', "unsupported pull_policy"),
        ('image = "localhost/job:1"', 'host = "tcp://127.0.0.1:2375"', "must be a unix:// socket"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, place: str, line: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, MINIMAL.replace(place, f"{place}\n{line}"))
    assert told in str(caught.value)
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('executor = "docker"', 'executor = "shell"', "executor shell is not supported"),
        (f'token = "{TOKEN}"', "", "token is missing"),
        (f'token = "{TOKEN}"', f'token = ["{TOKEN}"]', "token: must be a string"),
        (f'token = "{TOKEN}"', f'token = "{TOKEN}', "no valid TOML"),
        ("concurrent = 1", "concurrent = 0", "no jobs will be processed"),
    ],
)
def test_a_broken_file_is_refused_without_showing_the_token(tmp_path: Path, old: str, new: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, MINIMAL.replace(old, new))
    assert told in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file or directory"):
        config.load(tmp_path / "absent.toml")


def test_a_runner_does_not_show_its_token(tmp_path: Path) -> None:
    runner = load(tmp_path, MINIMAL).runners[0]
    assert TOKEN not in repr(runner)
    assert runner.short_token == "POISONpoi"


@pytest.mark.parametrize(
    "token", ["glrt-abcdefghijkl", "glrt-t1_abcdefghijkl", "t3_abcdefghijkl", "glrtr-abcdefghijkl"]
)
def test_the_short_token_has_no_prefix(token: str) -> None:
    assert config.short_token(token) == "abcdefghi"


def test_the_file_is_written_back_as_it_was_read(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    more = 'group_add = ["a\\"b", "ä"]\n[runners.docker.sysctls]\n"net.core.somaxconn" = "1024"\n'
    file.write_text(MINIMAL + more, encoding="utf-8")
    _config, document = config.load(file)
    toml.save(file, document)
    assert config.load(file)[1] == document
    assert file.stat().st_mode & 0o777 == 0o600


@given(st.text(alphabet="hunter2x\n", max_size=60), st.lists(st.integers(0, 60), max_size=8))
def test_a_secret_is_masked_however_it_is_cut(text: str, cuts: list[int]) -> None:
    masker = Masker(["hunter2", "xx"])
    places = sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    pieces = [text[start:end].encode() for start, end in itertools.pairwise(places)]
    masked = b"".join(masker.feed(piece) for piece in pieces) + masker.end()
    assert masked == re.sub("hunter2|xx", "[MASKED]", text).encode()


def test_what_cannot_become_a_secret_is_not_held_back() -> None:
    masker = Masker(["hunter2"])
    assert masker.feed(b"progress 10%\r") == b"progress 10%\r"
    assert masker.feed(b"a hunt") == b"a "
    assert masker.feed(b"er2 b") == b"[MASKED] b"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (b"glrt-abc.DEF_1 x", b"glrt-[MASKED] x"),
        (b"own-abc x", b"own-[MASKED] x"),
        (b"http://h/?private_token=abc&x=1 y", b"http://h/?private_token=[MASKED]&x=1 y"),
        (b"glrt- x", b"glrt- x"),
    ],
)
def test_tokens_are_masked_by_their_prefix(text: bytes, masked: bytes) -> None:
    masker = Masker([], ["own-"])
    assert b"".join(masker.feed(text[at : at + 1]) for at in range(len(text))) + masker.end() == masked


def test_stamps_tell_continued_lines() -> None:
    written: list[bytes] = []
    stamper = Stamper(written.append, 1, "E")
    for piece in (b"one\ntw", b"o\n", b"10%\r20%\r", b"done\n", b"rest"):
        stamper.feed(piece)
    stamper.end()
    assert re.sub(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z ", b"", b"".join(written)) == (
        b"01E one\n01E two\n01E 10%\r20%\r\n01E+done\n01E rest\n"
    )


def test_the_log_ends_at_its_limit_and_says_so() -> None:
    buffer = Buffer(limit=10)
    buffer.write("1234567ä".encode())
    buffer.write("89äb".encode())
    buffer.write(b"never")
    text = buffer.piece(0).decode()
    assert text.startswith("1234567ä8\n\033[33;1mJob's log exceeded limit of 10 bytes.\n")
    assert "never" not in text


def test_the_log_is_valid_utf_8() -> None:
    buffer = Buffer()
    for byte in (b"\xc3", b"\xa4", b"\xff"):
        buffer.write(byte)
    assert buffer.piece(0).decode() == "ä\N{REPLACEMENT CHARACTER}"


def test_variables_expand_once_and_the_last_one_wins() -> None:
    given_ = [
        Variable("A", "1"),
        Variable("B", "$A-${A}-$$x-$nope-$1"),
        Variable("C", "$A", raw=True),
        Variable("A", "2"),
    ]
    found = Variables(given_).expanded()
    assert (found.get("A"), found.get("B"), found.get("C")) == ("2", "2-2-$x--", "$A")


@pytest.mark.parametrize(
    ("text", "bind"),
    [
        ("/a:/b", "/a:/b"),
        ("/a:/b:ro", "/a:/b:ro"),
        ("/a:/b:ro,z", "/a:/b:ro,z"),
        ("name:/b", "name:/b"),
        ("/b", "/b"),
        ("/a:/$X/c", "/a:/x/c"),
    ],
)
def test_volumes(text: str, bind: str) -> None:
    assert volumes.parse(text, Variables([Variable("X", "x")]).expand, "/builds/g/p").bind == bind


@pytest.mark.parametrize("text", ["/a:/b:rx", "a:b", "/a:/", ""])
def test_what_is_no_volume(text: str) -> None:
    with pytest.raises(JobFailed):
        volumes.parse(text, str, "/builds/g/p")


@pytest.mark.parametrize(
    ("pattern", "name", "matching"),
    [
        ("localhost/**", "localhost/a/b:1", True),
        ("localhost/*", "localhost/a/b:1", False),
        ("localhost/*:1", "localhost/a:1", True),
        ("ruby:?.?", "ruby:3.4", True),
        ("ruby:*", "my/ruby:3", False),
    ],
)
def test_patterns_of_images(pattern: str, name: str, matching: bool) -> None:
    assert matches(pattern, name) is matching


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("alpine", True),
        ("localhost/nixprov-job:86b686a0f80d4953", True),
        ("Registry.example:5000/a-b/c__d:V1.2@sha256:" + "0f" * 32, True),
        ("[2001:db8::1]:5000/a", True),
        ("dir:/etc", False),
        ("docker-archive:/tmp/a.tar", False),
        ("containers-storage:[overlay@/var/lib/containers/storage]localhost/x", False),
        ("docker://alpine", False),
        ("Alpine", False),
        ("a:b:c", False),
        ("alpine\n", False),
    ],
)
def test_an_image_is_a_reference_and_no_transport(name: str, valid: bool) -> None:
    assert is_reference(name) is valid


@pytest.mark.parametrize(
    ("text", "number"), [("", 0), ("512m", 512 << 20), ("1.5g", 3 << 29), ("100", 100), ("2KB", 2048)]
)
def test_sizes(text: str, number: int) -> None:
    assert size(text, "memory") == number


@pytest.mark.parametrize(("total", "text"), [(59, "59s"), (120, "2m0s"), (3600, "1h0m0s"), (7325, "2h2m5s")])
def test_durations_as_go_prints_them(total: int, text: str) -> None:
    assert go_duration(total) == text


@pytest.mark.parametrize(("text", "number"), [("90s", 90.0), ("1h30m", 5400.0), ("500ms", 0.5)])
def test_durations_as_go_reads_them(text: str, number: float) -> None:
    assert config.seconds(text, "x") == number


def test_a_refused_runner_rests_for_an_hour(tmp_path: Path) -> None:
    runner = load(tmp_path, MINIMAL).runners[0]
    now = [1000.0]
    said = io.StringIO()
    health = Health(Log(said), lambda: now[0])
    for healthy in (False, False, True, False, False):
        health.note(runner, healthy=healthy)
        assert health.may_ask(runner)
    health.note(runner, healthy=False)
    now[0] += 3599.0
    assert not health.may_ask(runner)
    now[0] += 2.0
    assert health.may_ask(runner)
    assert "will be disabled for 3600 seconds" in said.getvalue()


def test_the_runners_log_masks_what_it_was_told() -> None:
    said = io.StringIO()
    own_log = Log(said)
    own_log.hide(TOKEN)
    own_log.error(f"a {TOKEN}", field=TOKEN)
    assert TOKEN not in said.getvalue()
    assert said.getvalue().split() == ["ERROR:", "a", "[MASKED]", "field=[MASKED]"]
