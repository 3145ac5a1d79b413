"""Whether a configuration describes a system: what a host's answer means, when it is asked, and what follows."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from provisioner.engine import origin
from provisioner.errors import BuildFailed, HookRefused, Locked, NotDescribed, RemoteFailed
from provisioner.events import Logged, OriginFound, Planned, Warned
from provisioner.machine import aside
from provisioner.machine.facts import Facts, digest
from provisioner.machine.journal import Baseline, Checked, Journal, Phase
from provisioner.machine.origin import Expected, Kind, Origin, read
from provisioner.machine.preview import Preview, UnitChange
from provisioner.outcome import HostResult, Outcome, exit_code
from provisioner.report.advice import Typed, next_commands
from provisioner.report.system import origin_lines
from provisioner.ssh.exec import Completed
from provisioner.verb import Verb
from provisioner.verbs import perform, plan
from tests.unit.engine_fakes import Stage, stage
from tests.unit.hosts import CONFIGURATION, HOOK, converged, new_host, runner
from tests.unit.runs import FOREIGN

RUNS, OTHER, THIRD = (f"/nix/store/{letter * 32}-nixos-system-a-25.11" for letter in "abc")
CLASSIC = "/etc/nixos/configuration.nix"
DESCRIBED = {
    "system": RUNS,
    "version": "25.11.1",
    "hostName": "a",
    "kernel": "6.12.1",
    "revision": None,
    "registry": "{}",
    "units": ["sshd.service"],
    "users": ["alice", "root"],
}
SAID = {
    "config": CLASSIC,
    "config-real": CLASSIC,
    "classic": CLASSIC,
    "running": RUNS,
    "boot": RUNS,
    "version": "25.11.1",
    "host-name": "a",
    "kernel": f"/nix/store/{'d' * 32}-linux-6.12.1/bzImage",
    "units": f"l sshd.service /nix/store/{'e' * 32}-unit-sshd.service/sshd.service",
    "users": "alice\nroot",
    "version-json": '{"nixosVersion":"25.11.1"}',
}


def answer(said: Mapping[str, str], described: Mapping[str, object] | None) -> bytes:
    records = {
        **SAID,
        **said,
        **({"described": json.dumps({**DESCRIBED, **described})} if described is not None else {}),
    }
    lines = [f"{name} {b64encode(text.encode()).decode()}" for name, text in records.items()]
    return "\n".join(["log evaluating", *lines, f"{aside.LAST} eWVzCg==", ""]).encode()


def told(said: Mapping[str, str], described: Mapping[str, object] | None, expected: Expected | None = None) -> Origin:
    return read("host1", answer(said, described), HOOK.configuration, expected or Expected(RUNS))


@pytest.mark.parametrize("described", ["{", "[]", '"text"', "7"])
def test_a_description_that_is_none_is_one_line(described: str) -> None:
    with pytest.raises(RemoteFailed, match="cannot be read"):
        read("host1", answer({"described": described}, None), HOOK.configuration, Expected(RUNS))


ELSEWHERE = {"config": "/home/me/a.nix", "config-real": "/home/me/a.nix"}
PINNED = '{"flakes":[{"to":{"path":"/nix/store/x-source","type":"path"}}]}'


@pytest.mark.parametrize(
    ("said", "described", "kind", "words"),
    [
        ({}, {}, Kind.DESCRIBED, ""),
        # What a classic host may have and a flake too says nothing while the two are the same.
        ({"flakes": "NH_FLAKE=/x", "pushed": "yes"}, {}, Kind.DESCRIBED, ""),
        (ELSEWHERE, {}, Kind.UNREAD, "builds /home/me/a.nix"),
        (ELSEWHERE | {"config-imports-ours": "yes"}, {}, Kind.DESCRIBED, ""),
        ({"config": "/x/link.nix"}, {}, Kind.DESCRIBED, ""),
        ({"boot": OTHER}, {}, Kind.TRIED, "only tried: nixos-system-a-25.11 boots next"),
        ({"boot": OTHER}, {"system": OTHER}, Kind.NEXT_BOOT, "waits for the next boot"),
        ({"boot": OTHER, "specialisation": "game"}, {"system": OTHER}, Kind.SPECIALISATION, "specialisation game"),
        ({"pushed": "yes"}, {"system": OTHER}, Kind.ELSEWHERE, "built on another machine"),
        ({"deployers": "deploy-rs-activate"}, {"system": OTHER}, Kind.ELSEWHERE, "deploy-rs"),
        ({"version-json": '{"configurationRevision":"abc"}'}, {"system": OTHER}, Kind.FLAKE, "revision abc"),
        (
            {"version-json": '{"configurationRevision":"abc"}', "newer": CLASSIC},
            {"system": OTHER, "revision": "abc"},
            Kind.EDITS,
            CLASSIC,
        ),
        ({"flakes": "--flake github:me/x"}, {"system": OTHER}, Kind.FLAKE, "--flake github:me/x"),
        ({"registry": PINNED}, {"system": OTHER}, Kind.FLAKE, "registry"),
        ({"registry": PINNED, "newer": CLASSIC}, {"system": OTHER, "registry": PINNED}, Kind.EDITS, CLASSIC),
        ({"registry": PINNED, "failed": "error: no x\n"}, None, Kind.BROKEN, "does not evaluate: no x"),
        (
            {"registry": PINNED, "failed": "error: file 'nixpkgs/nixos' was not found in the Nix search path"},
            None,
            Kind.FLAKE,
            "registry",
        ),
        ({"newer": CLASSIC}, {"system": OTHER, "version": "25.11.2"}, Kind.CHANNEL, "the channel has 25.11.2"),
        ({"newer": "\n".join(map(str, range(12)))}, {"system": OTHER}, Kind.EDITS, "0, 1, 2, 3, 4, 5, 6, 7 and 4 more"),
        ({}, {"system": OTHER}, Kind.OTHER_FILE, "another file"),
        ({"flake": "yes"}, {}, Kind.FLAKE, "flake.nix"),
        ({"cannot": "it is larger"}, None, Kind.UNKNOWN, "it is larger"),
        ({"version-json": "nonsense"}, {"system": OTHER}, Kind.OTHER_FILE, ""),
    ],
)
def test_what_an_answer_means(
    said: Mapping[str, str], described: Mapping[str, object] | None, kind: Kind, words: str
) -> None:
    found = told(said, described)
    assert (found.kind, words in found.why) == (kind, True), found
    assert "\n" not in found.why


@pytest.mark.parametrize(
    ("expected", "boot", "configured", "kind"),
    [
        (Expected(RUNS, {OTHER}), OTHER, RUNS, Kind.DESCRIBED),
        # Ours runs in any case: it is what boots that must be described.
        (Expected(None), OTHER, OTHER, Kind.DESCRIBED),
        (Expected(None), OTHER, RUNS, Kind.TRIED),
        # Ours runs, with other files than there are: what there would be without us is what there was.
        (Expected(THIRD, {OTHER}), OTHER, THIRD, Kind.DESCRIBED),
        (Expected(THIRD), RUNS, RUNS, Kind.NEXT_BOOT),
    ],
)
def test_what_it_is_compared_with(expected: Expected, boot: str, configured: str, kind: Kind) -> None:
    assert told({"boot": boot}, {"system": configured}, expected).kind is kind


def test_what_would_change_beside_our_module() -> None:
    units = (
        f"l sshd.service /nix/store/{'e' * 32}-unit-sshd.service/sshd.service\n"
        f"l web.service /nix/store/{'e' * 32}-unit-web.service/web.service\n"
        f"l basic.target /nix/store/{'e' * 32}-systemd-257/example/systemd/system/basic.target\n"
        "f mine.timer \nd user@.service.d \nd multi-user.target.wants "
    )
    said = {"units": units, "users": "alice mallory nixprov-runner root", "host-name": "web1.example"}
    described: dict[str, object] = {"system": OTHER, "hostName": "a", "kernel": "6.6.1", "version": "24.05.1"}
    more = {"units": ["sshd.service", "user@.service", "new.service"], "users": ["alice", "root"]}
    dry = "would stop the following units: web.service\n"
    found = told(said | {"dry-activate": dry}, described | more)
    assert found.changes == (
        "host name: web1 -> a",
        "NixOS: 25.11.1 -> 24.05.1",
        "kernel: 6.12.1 -> 6.6.1",
        "units that go: mine.timer, web.service",
        "units that come: new.service",
        "users that go: mallory",
    )
    assert (found.units, found.is_built) == ((UnitChange("stop", ("web.service",)),), True)
    assert told(said, {}).changes == ()


def test_an_answer_that_was_cut_short_says_nothing() -> None:
    with pytest.raises(RemoteFailed):
        read("host1", answer({}, {})[:-12], HOOK.configuration, Expected(RUNS))


def test_people_are_told_what_goes_and_that_more_may() -> None:
    assert list(origin_lines(FOREIGN)) == [
        "origin: it was built from another file",
        "  host name: a -> b",
        "  users that go: mallory<b>",
        "  stops production.service",
    ]
    unbuilt = list(origin_lines(replace(FOREIGN, units=(), is_built=False)))
    assert unbuilt[-1] == "  it is not built: more than this may change, and --build tells"


def running(facts: Facts, **records: str) -> Facts:
    told = {name.replace("_", "-"): text.encode() for name, text in records.items()}
    return Facts("host1", {**facts.records, "system": RUNS.encode(), "profile": RUNS.encode(), **told})


def answers(configured: str, **said: str) -> Callable[[str], Completed | None]:
    def reply(script: str) -> Completed | None:
        return Completed(0, answer(said, {"system": configured}), "") if "nixprov-origin-" in script else None

    return reply


def asked(it: Stage) -> str:
    """The question that was asked; empty when there was none."""
    return next((script for script in it.session.scripts if "nixprov-origin-" in script), "")


def edits(question: str) -> dict[str, bytes | None]:
    lines = question.partition("other_files() {")[2].partition("\n}")[0].splitlines()
    removed: dict[str, bytes | None] = {line.split()[-1]: None for line in lines if line.strip().startswith("rm -f ")}
    written = [line.split() for line in lines if "base64 -d >" in line]
    return removed | {words[-1]: b64decode(words[words.index("%s") + 1]) for words in written}


def of(it: Stage) -> Origin | None:
    it.plan()
    return look(it)


def look(it: Stage) -> Origin | None:
    if origin.is_asked(it.host):
        origin.look(it.host)
    return it.host.own


def test_a_new_host_is_asked_for_what_it_has_and_one_that_needs_nothing_is_not() -> None:
    it = stage(running(new_host()), None)
    it.session.answers = answers(RUNS)
    found = of(it)
    assert found is not None
    assert (found.kind, it.session.scripts.count(asked(it)), edits(asked(it))) == (Kind.DESCRIBED, 1, {})
    assert it.host.ledger.checked == Checked(RUNS, adopted=False)
    assert "evaluating" in it.texts(Logged)
    facts, journal = converged()
    calm = stage(running(facts), journal, runner())
    assert (of(calm), asked(calm), calm.host.ledger.checked) == (None, "", None)


def test_what_an_ended_run_has_left_counts_for_nothing() -> None:
    """Its files are there, and nothing of it runs: the configuration without them is what must be running."""
    facts, journal = converged()
    hook = replace(HOOK.record(new_host()), sha256_before=digest(CONFIGURATION))
    left = running(facts, revision="", revision_at_boot="", units="")
    it = stage(left, replace(journal, phase=Phase.WRITTEN, hook=hook), runner())
    it.session.answers = answers(RUNS)
    found = of(it)
    assert found is not None
    assert found.is_described
    changed = edits(asked(it))
    assert changed.pop("configuration.nix") == CONFIGURATION
    assert set(changed.values()) == {None}
    assert "nixprov/default.nix" in changed
    # A line that was the owner's from the start is a part of what runs.
    theirs = replace(hook, sha256_before=digest(left.records["configuration.data"]))
    it = stage(left, replace(journal, phase=Phase.WRITTEN, hook=theirs), runner())
    it.session.answers = answers(RUNS)
    of(it)
    assert "configuration.nix" not in edits(asked(it))


def test_a_system_of_ours_is_compared_with_the_files_that_it_was_built_with() -> None:
    facts, journal = converged()
    it = stage(running(facts), journal, runner(), new_tokens=True)
    it.session.answers = answers(OTHER, newer=CLASSIC)
    found = of(it)
    assert found is not None
    assert (found.kind, edits(asked(it))) == (Kind.EDITS, {})
    # Somebody was at our files: with those that are wanted it is what runs.
    name = "module/runner.nix.data"
    spoilt = running(Facts("host1", {**facts.records, name: facts.records[name] + b"# mine\n"}))
    it = stage(spoilt, journal, runner())
    it.session.answers = answers(RUNS)
    found = of(it)
    assert found is not None
    assert found.is_described
    assert edits(asked(it)) == {"nixprov/runner.nix": facts.records[name]}


def test_what_a_dead_run_has_looked_at_is_not_asked_for_again() -> None:
    """Its files are those of neither system; where a person made it so, what was there before us is asked for."""
    facts, journal = converged()
    mixed = running(facts, revision="of-before", revision_at_boot="of-before")
    dead = replace(journal, phase=Phase.WRITTEN, checked=Checked(RUNS, adopted=False))
    it = stage(mixed, dead, runner())
    assert (of(it), asked(it)) == (None, "")
    for confirmed in (replace(dead, phase=Phase.CONFIRMED), replace(dead, checked=Checked(OTHER, adopted=False))):
        it = stage(mixed, replace(confirmed, baseline=Baseline(1, THIRD)), runner())
        it.session.answers = answers(THIRD)
        found = of(it)
        assert found is not None
        assert found.is_described
        assert "nixprov/default.nix" in edits(asked(it))


def test_what_was_adopted_by_a_run_that_died_is_adopted_for_the_next() -> None:
    claimed = Journal("x", "host1", phase=Phase.CLAIMED, checked=Checked(RUNS, adopted=True))
    it = stage(running(new_host()), claimed)
    assert (of(it), asked(it)) == (None, "")
    for other in (replace(claimed, checked=Checked(OTHER, adopted=True)), replace(claimed, checked=None)):
        it = stage(running(new_host()), other)
        it.session.answers = answers(OTHER)
        found = of(it)
        assert found is not None
        assert found.kind is Kind.OTHER_FILE


def test_the_claim_says_what_was_looked_at() -> None:
    it = stage(running(new_host()), None)
    it.session.answers = answers(RUNS)
    of(it)
    origin.require(it.host)
    it.apply()
    claim = json.loads(it.session.journals[0])
    assert claim["checked"] == {"system": RUNS, "adopted": False}
    assert it.session.journal["checked"] == claim["checked"]
    read_again = Journal.read(Facts("host1", it.session.records))
    assert read_again.checked == Checked(RUNS, adopted=False)


def test_another_system_a_moment_later_is_another_operators() -> None:
    it = stage(running(new_host()), None)
    it.session.answers = answers(RUNS, running=OTHER)
    with pytest.raises(Locked, match="switched to a moment ago"):
        of(it)


def test_a_host_that_cannot_be_asked_is_left() -> None:
    it = stage(running(new_host()), None)
    it.session.answers = lambda script: Completed(1, b"", "no systemd-run\n") if "nixprov-origin-" in script else None
    with pytest.raises(RemoteFailed, match="no systemd-run"):
        of(it)


@pytest.mark.parametrize(
    ("kind", "adopts", "error", "hint"),
    [
        (Kind.EDITS, False, NotDescribed, "`nixos-rebuild switch` on the host"),
        (Kind.FLAKE, False, NotDescribed, "`nixprov plan --build host1`"),
        (Kind.OTHER_FILE, False, NotDescribed, "`nixprov up --adopt-configuration host1`"),
        (Kind.BROKEN, False, BuildFailed, "nixos-rebuild build"),
        (Kind.UNREAD, False, HookRefused, "/etc/nixos/nixprov/default.nix"),
        # Nobody can go on: what would be written is read by nobody.
        (Kind.UNREAD, True, HookRefused, "/etc/nixos/nixprov/default.nix"),
    ],
)
def test_refused_with_ways_on(kind: Kind, adopts: bool, error: type[Exception], hint: str) -> None:
    it = stage(running(new_host()), None, adopt_configuration=adopts)
    it.plan()
    it.events.clear()
    it.host.own = replace(FOREIGN, kind=kind)
    with pytest.raises(error) as caught:
        origin.require(it.host)
    assert hint in str(caught.value)
    # What would throw the owner's system away is no advice.
    assert ("nixos-rebuild switch" in str(caught.value)) == (kind is Kind.EDITS)
    assert [type(event) for event in it.events] == [OriginFound]


def test_up_says_its_plan_and_goes_no_further_where_another_system_runs() -> None:
    it = stage(running(new_host()), None)
    it.session.answers = answers(OTHER)
    with pytest.raises(NotDescribed):
        perform(it.host, lambda: True)
    kinds = [type(event) for event in it.events]
    assert kinds.index(Planned) < kinds.index(OriginFound)
    assert (it.session.journals, it.api.there) == ([], {})


def test_a_plan_that_would_fail_is_said_before_it_does() -> None:
    it = stage(new_host(), None, verb="plan")
    it.plan()
    it.host.preview = Preview(failed="no such option")
    with pytest.raises(BuildFailed, match="a switch would fail: no such option"):
        plan.tell(it.host)
    assert isinstance(it.events[-1], Planned)


def test_adopted_knowingly_and_said() -> None:
    it = stage(running(new_host()), None, adopt_configuration=True)
    it.plan()
    it.host.own = FOREIGN
    origin.require(it.host)
    (text,) = it.texts(Warned)
    assert "built from another file; it is replaced all the same" in text


def test_down_switches_nothing_where_nothing_of_ours_runs_or_boots() -> None:
    facts, journal = converged()
    units = "Id=nixprov-runner-default.service\nActiveState=failed\n\nId=nixprov-switch.service\nActiveState=active"
    it = stage(running(facts, revision="", revision_at_boot="", units=units), journal, runner(), verb="down")
    wanted = it.plan()
    assert (wanted.switch, look(it), asked(it)) == ("", None, "")
    assert any("nothing is switched" in text for text in it.texts(Warned))
    it.session.answers = gone(it)
    it.apply()
    said = "\n".join(it.session.scripts)
    assert "mv -f /etc/nixos/configuration.nix.nixprov-new /etc/nixos/configuration.nix" in said
    assert "rm -f /etc/nixos/nixprov/default.nix" in said
    assert ("systemd-run" in said, it.api.there, it.session.records.get("journal.data")) == (False, {}, None)


def gone(it: Stage) -> Callable[[str], Completed | None]:
    """The last probe finds a host without us."""

    def reply(script: str) -> Completed | None:
        if "nixprov-containers" in script and "touched=yes" in script:
            it.session.records = dict(running(new_host()).records)
        return None

    return reply


@pytest.mark.parametrize(
    ("runs", "boots", "profile", "configured", "kind"),
    [
        # Somebody tries a system of theirs while ours is what boots.
        ("", "ours", OTHER, RUNS, Kind.DESCRIBED),
        ("", "ours", OTHER, THIRD, Kind.OTHER_FILE),
        # Ours runs, and another one waits for the next boot.
        ("ours", "", OTHER, OTHER, Kind.DESCRIBED),
        ("ours", "", OTHER, THIRD, Kind.TRIED),
    ],
)
def test_down_asks_where_one_of_the_two_is_the_owners(
    runs: str, boots: str, profile: str, configured: str, kind: Kind
) -> None:
    facts, journal = converged()
    mixed = running(facts, revision=runs, revision_at_boot=boots, profile=profile)
    it = stage(mixed, journal, runner(), verb="down")
    it.session.answers = answers(configured, boot=profile)
    found = of(it)
    assert found is not None
    assert found.kind is kind
    assert "nixprov/default.nix" in edits(asked(it))
    if not found.is_described:
        with pytest.raises(NotDescribed, match="`nixprov down --adopt-configuration host1`"):
            origin.require(it.host)


def test_down_of_our_own_system_asks_nothing() -> None:
    facts, journal = converged()
    it = stage(running(facts), journal, runner(), verb="down")
    assert (of(it), asked(it)) == (None, "")


@pytest.mark.parametrize(
    ("before", "checked", "sha256", "words"),
    [
        (RUNS, None, digest(CONFIGURATION), None),
        (OTHER, Checked(OTHER, adopted=True), digest(CONFIGURATION), "(--adopt-configuration)"),
        (OTHER, Checked(OTHER, adopted=False), digest(b"{ }"), "was edited since"),
        (OTHER, None, digest(CONFIGURATION), "describes another one now"),
    ],
)
def test_down_says_when_it_is_not_the_system_from_before(
    before: str, checked: Checked | None, sha256: str, words: str | None
) -> None:
    facts, journal = converged()
    hook = replace(HOOK.record(new_host()), sha256_before=sha256)
    recorded = replace(journal, baseline=Baseline(4, before), checked=checked, hook=hook)
    it = stage(running(facts), recorded, runner(), verb="down")
    it.plan()
    it.session.answers = gone(it)
    it.apply()
    told = [text for text in it.texts(Warned) if "not the one from before nixprov" in text]
    assert [before in text and text.endswith(words or "?") for text in told] == ([True] if words else [])


def result(host: str, outcome: Outcome) -> HostResult:
    return HostResult(host, outcome, 1.0)


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([Outcome.NOT_DESCRIBED], 10),
        ([Outcome.NOT_DESCRIBED, Outcome.CHANGED], 10),
        ([Outcome.NOT_DESCRIBED, Outcome.FAILED], 5),
        ([Outcome.NOT_DESCRIBED, Outcome.ROLLBACK_FAILED], 8),
    ],
)
def test_its_own_exit_code(outcomes: list[Outcome], code: int) -> None:
    assert exit_code([result(f"host{number}", one) for number, one in enumerate(outcomes)]) == code


def test_what_to_type_next_leads_on() -> None:
    results = [result("a", Outcome.NOT_DESCRIBED), result("b", Outcome.FAILED)]
    options = ("-i", "inv")
    assert next_commands(Typed(Verb.UP, options, ("--serial", "1")), results) == (
        "nixprov up b -i inv --serial 1",
        "nixprov plan --build a -i inv",
        "nixprov up --adopt-configuration a -i inv --serial 1",
    )
    assert next_commands(Typed(Verb.PLAN, options, has_built=True), results[:1]) == (
        "nixprov up --adopt-configuration a -i inv",
    )
    assert (
        next_commands(Typed(Verb.PLAN_DOWN, options), results[:1])[-1] == "nixprov down --adopt-configuration a -i inv"
    )
