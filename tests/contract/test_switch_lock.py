"""switch.sh where somebody else holds the lock of switch-to-configuration: a machine of folders, in a real sh.

A system is a folder with a revision and a switch-to-configuration that refuses with 11, as since NixOS 25.05: always, or
as often as the folder's file says. What it does is in the order of `did`.
"""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import pytest

from provisioner.machine import switch
from provisioner.machine.switch import BUSY, SwitchResult
from tests.contract.test_switch_script import Host, ends

PROGRAM = files("provisioner.machine").joinpath("switch.sh").read_bytes()
# Whatever the hook says that builds a system, and not nixos-rebuild by itself.
OWNERS_BUILD = "owners-build"
SLEEP = "#!/bin/sh\n"
# Refuses while the real lock is held, and COUNT more times; does what it is told to otherwise.
SWITCH = """\
#!/bin/sh
flock --nonblock ROOT/run/nixos/switch-to-configuration.lock true || { echo Could not acquire lock >&2; exit 11; }
count=$(cat ROOT/refusals 2>/dev/null || echo 0)
if [ "$count" -gt 0 ]; then
  echo $((count - 1)) > ROOT/refusals
  if [ -e ROOT/meanwhile ]; then sh ROOT/meanwhile; rm ROOT/meanwhile; fi
  exit 11
fi
echo "NAME $1" >> ROOT/did
case $1 in test | switch) ln -sfn ROOT/NAME ROOT/run/current-system ;; esac
exit "$(cat ROOT/NAME/status 2>/dev/null || echo 0)"
"""
NIX_ENV = """\
#!/bin/sh
profile=ROOT/nix/var/nix/profiles/system
case $3 in
  --switch-generation) ln -sfn "system-$4-link" "$profile" ;;
  --set) ln -sfn "$4" "$profile-5-link"; ln -sfn system-5-link "$profile" ;;
esac
"""
BUILD = "#!/bin/sh\nln -sfn ROOT/new result\n"
QUERY = "#!/bin/sh\necho 0\n"


class Machine(Host):
    """Runs and boots the system `old`; what is built from its files is `new`, with the revision `wanted`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        (folder / "run/nixos").mkdir(parents=True)
        self.lock = folder / "run/nixos/switch-to-configuration.lock"
        self.lock.touch()
        for name, revision in (("old", ""), ("new", "wanted"), ("theirs", ""), ("theirs-with-ours", "wanted")):
            self.system(name, revision)
        self.links = folder / "nix/var/nix/profiles"
        (self.links / "system-4-link").symlink_to(folder / "old")
        (folder / "run/current-system").symlink_to(folder / "old")
        for name, text in (("nix-env", NIX_ENV), (OWNERS_BUILD, BUILD), ("nix-store", QUERY), ("sleep", SLEEP)):
            self.program(f"bin/{name}", text.replace("ROOT", str(folder)))
        self.state.joinpath("undo.sh").write_text(f"readlink {folder}/run/current-system > {folder}/given-back\n")

    def system(self, name: str, revision: str) -> None:
        self.program(
            f"{name}/bin/switch-to-configuration", SWITCH.replace("NAME", name).replace("ROOT", str(self.folder))
        )
        (self.folder / name / "etc").mkdir()
        if revision:
            (self.folder / name / "etc/nixprov-revision").write_text(f"{revision}\n")

    def refuses(self, times: int) -> None:
        (self.folder / "refusals").write_text(f"{times}\n")

    def meanwhile(self, script: str) -> None:
        """What somebody else's switch does that comes between our look at the lock and our call."""
        (self.folder / "meanwhile").write_text(f"cd {self.folder}\n{script}\n")

    def with_patience(self, *arguments: str, seconds: int = 4) -> subprocess.CompletedProcess[str]:
        program = PROGRAM.replace(b"NIXPROV_PATIENCE-600", b"NIXPROV_PATIENCE-%d" % seconds)
        return self.run(program, *arguments, *((OWNERS_BUILD, "build") if arguments[0] == "switch" else ()))

    def tried(self, verdict: str) -> None:
        """As it is when the new system runs and `verdict` was given."""
        (self.folder / "run/current-system").unlink()
        (self.folder / "run/current-system").symlink_to(self.folder / "new")
        (self.state / "build").mkdir()
        (self.state / "build/result").symlink_to(self.folder / "new")
        (self.state / "old").write_text(f"4 {self.folder}/old\n")
        (self.state / "result").write_text("activate 0 4 \n")
        (self.state / verdict).touch()

    @contextmanager
    def held(self) -> Iterator[None]:
        with self.lock.open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @property
    def runs(self) -> str:
        return (self.folder / "run/current-system").resolve().name

    @property
    def boots(self) -> str:
        return (self.links / "system").resolve().name

    @property
    def did(self) -> list[str]:
        path = self.folder / "did"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def result(self) -> str:
        return (self.state / "result").read_text()

    @property
    def given_back(self) -> str:
        """The system that ran as the files were given back; empty when they were not."""
        path = self.folder / "given-back"
        return Path(path.read_text().strip()).name if path.exists() else ""

    @property
    def verdicts(self) -> list[str]:
        names = ("open", "confirmed", "aborted", "expired", "undo.sh")
        return [name for name in names if (self.state / name).exists()]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("times", [1, 3])
def test_who_is_refused_while_it_begins_tries_again(machine: Machine, times: int) -> None:
    machine.refuses(times)
    done = machine.with_patience("switch", "wanted", "0", seconds=600)
    assert (done.returncode, machine.result, machine.runs) == (0, "activate 0 5 \n", "new")
    assert machine.did == ["new switch"]


def test_who_cannot_begin_leaves_the_machine_as_it_was(machine: Machine) -> None:
    with machine.held():
        done = machine.with_patience("switch", "wanted", "180")
    assert (done.returncode, machine.result) == (0, f"activate {BUSY} 4 \n")
    assert "holds the lock: waiting for its end" in done.stdout
    assert (machine.did, machine.runs, machine.boots, machine.given_back, machine.verdicts) == (
        [],
        "old",
        "old",
        "old",
        [],
    )
    assert "somebody else's switch holds the lock" in SwitchResult("activate", BUSY, 4).explain()


def test_who_cannot_begin_and_asks_nobody_sets_the_profile_back(machine: Machine) -> None:
    with machine.held():
        done = machine.with_patience("switch", "wanted", "0")
    assert (done.returncode, machine.result, machine.boots) == (0, f"activate {BUSY} 4 \n", "old")


def test_who_waits_is_told_who_holds_the_lock(machine: Machine) -> None:
    with machine.held():
        done = machine.with_patience("switch", "wanted", "180")
    assert re.search(rf"somebody else's switch \(process {os.getpid()}( of \S+)?\) holds the lock", done.stdout), (
        done.stdout
    )


def test_a_run_that_is_given_up_while_it_waits_to_begin_ends(machine: Machine) -> None:
    machine.program("bin/flock", f"#!/bin/sh\nmv {machine.state}/open {machine.state}/aborted 2>/dev/null\nexit 1\n")
    done = machine.with_patience("switch", "wanted", "180", seconds=10**6)
    assert (done.returncode, machine.result, machine.given_back) == (0, f"activate {BUSY} 4 \n", "old")


def test_who_is_refused_at_the_end_tries_again(machine: Machine) -> None:
    machine.tried("confirmed")
    machine.refuses(2)
    done = machine.with_patience("settle", seconds=600)
    assert (done.returncode, machine.result, machine.verdicts) == (0, "commit 0 5 \n", [])
    assert (machine.runs, machine.boots, machine.did, machine.given_back) == ("new", "new", ["new boot"], "")


def releases_after(machine: Machine, waits: int) -> None:
    """flock finds the lock held, until somebody has waited for it so often."""
    machine.program("bin/flock-real", '#!/bin/sh\nexec /usr/bin/env -i PATH=/usr/bin:/bin flock "$@"\n')
    count = machine.folder / "waits"
    count.write_text(f"{waits}\n")
    text = f"""#!/bin/sh
left=$(cat {count})
[ "$left" -gt 0 ] || exec "$0-real" "$@"
case $* in *--timeout*) echo $((left - 1)) > {count} ;; esac
exit 1
"""
    machine.program("bin/flock", text)


def test_a_lock_that_is_held_for_longer_than_who_confirms_waits_takes_the_system_back(machine: Machine) -> None:
    machine.tried("confirmed")
    releases_after(machine, 4)
    done = machine.with_patience("settle", seconds=4)
    assert (done.returncode, machine.result, machine.verdicts) == (0, "back 0 4 busy\n", [])
    assert (machine.runs, machine.boots, machine.given_back) == ("old", "old", "old")


@pytest.mark.parametrize("verdict", ["confirmed", "expired"])
def test_a_system_of_somebody_else_without_ours_stays(machine: Machine, verdict: str) -> None:
    machine.tried(verdict)
    machine.refuses(1)
    machine.meanwhile("nix-env --profile x --set $PWD/theirs; ln -sfn $PWD/theirs run/current-system")
    machine.with_patience("settle", seconds=600)
    assert machine.result == f"back 0 5 {'overtaken' if verdict == 'confirmed' else 'expired'}\n"
    assert (machine.runs, machine.boots, machine.given_back) == ("theirs", "theirs", "theirs")


def test_a_system_of_somebody_else_with_what_was_confirmed_is_kept_as_it_is(machine: Machine) -> None:
    machine.tried("confirmed")
    machine.refuses(1)
    machine.meanwhile(
        "nix-env --profile x --set $PWD/theirs-with-ours; ln -sfn $PWD/theirs-with-ours run/current-system"
    )
    machine.with_patience("settle", seconds=600)
    assert (machine.result, machine.given_back) == ("commit 0 5 \n", "")
    assert (machine.runs, machine.boots) == ("theirs-with-ours", "theirs-with-ours")


def test_a_system_of_somebody_else_with_what_was_given_up_goes_with_its_profile(machine: Machine) -> None:
    """Their switch took the files that were only tried for the owner's."""
    machine.tried("aborted")
    subprocess.run(["ln", "-sfn", machine.folder / "theirs-with-ours", machine.links / "system-5-link"], check=True)
    subprocess.run(["ln", "-sfn", "system-5-link", machine.links / "system"], check=True)
    machine.with_patience("settle")
    assert (machine.result, machine.given_back) == ("back 0 4 ended\n", "old")
    assert (machine.runs, machine.boots, machine.did) == ("old", "old", ["old test", "old boot"])


@pytest.mark.parametrize(("verdict", "why"), [("expired", "expired"), ("aborted", "ended"), ("open", "ended")])
def test_nothing_is_given_back_before_the_old_system_runs(machine: Machine, verdict: str, why: str) -> None:
    machine.tried(verdict)
    releases_after(machine, 5)
    seen = machine.folder / "seen"
    machine.program("bin/sleep", f"#!/bin/sh\ncat {machine.state}/result >> {seen}; ls {machine.state} >> {seen}\n")
    done = machine.with_patience("settle")
    assert (done.returncode, machine.result, machine.verdicts) == (0, f"back 0 4 {why}\n", [])
    assert (machine.runs, machine.given_back) == ("old", "old")
    assert f"back tries:{BUSY} 4 {why}" in seen.read_text()
    assert "undo.sh" in seen.read_text()


def test_an_old_system_that_fails_is_tried_again_too(machine: Machine) -> None:
    """The status alone is not looked at, but what runs."""
    machine.tried("expired")
    broken = machine.folder / "old/bin/switch-to-configuration"
    works = broken.read_text()
    machine.program("works", works)
    broken.write_text(f"#!/bin/sh\ncp {machine.folder}/works $0-next; mv $0-next $0\nexit 2\n")
    machine.with_patience("settle")
    assert (machine.result, machine.runs, machine.given_back) == ("back 0 4 expired\n", "old", "old")


@pytest.mark.parametrize("verb", ["settle", "rollback"])
@pytest.mark.parametrize("end", ["another run", "shutdown"])
def test_a_way_back_that_never_comes_ends_with_another_run_or_the_machine(
    machine: Machine, end: str, verb: str
) -> None:
    machine.tried("expired")
    if end == "shutdown":
        machine.program("bin/systemctl", "#!/bin/sh\n[ $1 != is-system-running ] || echo stopping\n")
    else:
        machine.program("bin/sleep", f"#!/bin/sh\n: > {machine.state}/leave\n")
    with machine.held():
        done = machine.with_patience(*([verb, "4", "0"] if verb == "rollback" else [verb]))
    assert (done.returncode, machine.given_back, machine.verdicts) == (0, "", ["expired", "undo.sh"])
    assert machine.result.startswith(f"{'rollback' if verb == 'rollback' else 'back'} tries:{BUSY} 4 ")
    again = machine.with_patience("settle") if end == "another run" else None
    assert again is None or (again.returncode, machine.given_back) == (0, "")


@pytest.mark.parametrize("refusals", [0, 2])
def test_the_recorded_generation_is_gone_back_to_when_the_lock_is_free(machine: Machine, refusals: int) -> None:
    machine.tried("expired")
    machine.refuses(refusals)
    releases_after(machine, 1)
    done = machine.with_patience("rollback", "4", "0", seconds=600)
    assert (done.returncode, machine.result) == (0, "activate 0 4 \n")
    assert (machine.runs, machine.boots, machine.did) == ("old", "old", ["old test", "old boot"])


def test_what_was_killed_with_its_settlement_goes_back_when_systemd_starts_it_again(machine: Machine) -> None:
    machine.tried("open")
    done = machine.with_patience("switch", "wanted", "180")
    assert (done.returncode, machine.result, machine.runs) == (0, "back 0 4 ended\n", "old")
    again = machine.with_patience("switch", "wanted", "180")
    assert (again.returncode, machine.did) == (0, ["old test"]), "it switched again"


def test_a_unit_that_was_killed_is_started_again(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.program("bin/systemd-run", f'#!/bin/sh\necho "$@" > {tmp_path}/started\n')
    host.program("bin/fail", "#!/bin/sh\n")
    part = switch.start("switch", "wanted", confirm_s=180)
    assert host.run(part.text.encode()).returncode == 0  # type: ignore[union-attr]
    assert "--property=Restart=on-abnormal --property=RestartSec=3" in (tmp_path / "started").read_text()


@pytest.mark.parametrize(("build", "status"), [("exit 1", 20), ("ln -sfn ROOT/old result", 21)])
def test_a_run_that_was_taken_back_leaves_no_failed_unit(machine: Machine, build: str, status: int) -> None:
    machine.program(f"bin/{OWNERS_BUILD}", f"#!/bin/sh\n{build.replace('ROOT', str(machine.folder))}\n")
    done = machine.with_patience("switch", "wanted", "180")
    assert (done.returncode, machine.result.split()[1]) == (0, str(status))


def test_a_run_that_went_back_over_failing_units_leaves_no_failed_unit(machine: Machine) -> None:
    (machine.folder / "old/status").write_text("4\n")
    machine.tried("expired")
    done = machine.with_patience("settle")
    assert (done.returncode, machine.result) == (0, "back 4 4 expired\n")


def boots_again(machine: Machine, runs: str) -> None:
    machine.tried("open")
    (machine.folder / "run/current-system").unlink()
    (machine.folder / "run/current-system").symlink_to(machine.folder / runs)
    (machine.state / "boot").write_text("another boot\n")
    machine.with_patience("boot")


@pytest.mark.parametrize(("runs", "given_back"), [("old", "old"), ("theirs", "theirs"), ("theirs-with-ours", "")])
def test_the_next_boot_gives_files_back_to_a_system_without_ours(machine: Machine, runs: str, given_back: str) -> None:
    boots_again(machine, runs)
    assert machine.given_back == given_back


def guard(machine: Machine, result: str, *substates: str) -> subprocess.CompletedProcess[str]:
    (machine.folder / "answers").write_text("".join(f"{one}\n" for one in substates))
    (machine.state / "result").write_text(f"{result}\n")
    fail = 'fail() { echo "$2" >&2; exit $1; }\n'
    return machine.run(f"{fail}{switch.confirm((), 0)}".encode())


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ("back 0 4 busy", "did not end, so the new system is not kept"),
        (f"back tries:{BUSY} 4 busy process 7 of nixos-upgrade.service", "did not end, so the new system is not kept"),
        ("back 0 4 overtaken", "replaced the new system before it was kept"),
        ("back 0 4 ended", "before it was told to keep"),
    ],
)
def test_who_confirms_is_told_why_the_system_was_not_kept(machine: Machine, result: str, words: str) -> None:
    """A host that tries on for hours is not waited for under the transaction's lock."""
    done = guard(machine, result, "running" if "tries:" in result else "exited")
    assert (done.returncode, words in done.stderr) == (switch.UNCONFIRMED_STATUS, True), done.stderr


@pytest.mark.parametrize("script", [switch.follow(""), switch.abort()])
def test_who_follows_or_gives_up_does_not_wait_for_a_host_that_tries_on(machine: Machine, script: bytes) -> None:
    (machine.folder / "answers").write_text("running\n")
    (machine.state / "result").write_text(f"back tries:{BUSY} 4 expired process 7 of nixos-upgrade.service\n")
    found = ends(machine.run(script))
    assert len(found) == (1 if b"AFTER" in script or b"cursor" in script else 0)
    for result in found:
        assert (result.tries_on, result.is_busy, result.is_done) == (True, True, False)
        assert "somebody else's switch (process 7 of nixos-upgrade.service) holds" in result.explain()


def test_a_unit_between_two_starts_has_not_ended(machine: Machine) -> None:
    (machine.folder / "answers").write_text("auto-restart\nauto-restart\nexited\n")
    (machine.state / "result").write_text("back 0 4 ended\n")
    assert ends(machine.run(switch.follow(""))) == [SwitchResult("back", 0, 4, why="ended")]
    assert (machine.folder / "answers").read_text() == "exited\n"


def test_a_system_that_waits_to_be_activated_is_not_one_that_waits_to_be_confirmed(machine: Machine) -> None:
    (machine.folder / "answers").write_text("running\nexited\n")
    (machine.state / "open").touch()
    (machine.state / "result").write_text("activate waiting 4 - process 7 of nixos-upgrade.service\n")
    (found,) = ends(machine.run(switch.follow("")))
    assert not found.waits


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (
            "back waiting 4 expired process 7 of a.service",
            "it goes back to the old system: somebody else's switch (process",
        ),
        (
            "activate waiting 4 - process 7 of a.service",
            "it activates the new system: somebody else's switch (process 7",
        ),
        ("commit waiting 4 -", "made the one that boots: somebody else's switch has to end first"),
        (
            "back tries:24 4 expired",
            "still going back to the old system and tries again by itself: somebody else's switch",
        ),
        ("back tries:2 4 expired", "tries again by itself: switch-to-configuration ended with status 2"),
    ],
)
def test_a_stage_names_who_is_waited_for(result: str, words: str) -> None:
    assert words in switch.stage(result)


def writes_menu(machine: Machine) -> subprocess.CompletedProcess[str]:
    fail = 'set -eu\nfail() { echo "$2" >&2; exit $1; }\nprofile=/nix/var/nix/profiles/system\n'
    machine.program("bin/flock", "#!/bin/sh\ncase $* in *--timeout*) exit 1 ;; esac\nexit 0\n")
    return machine.run(f"{fail}{switch.BOOT_MENU}".encode())


def test_the_boot_menu_is_written_again_once_nobody_switches(machine: Machine) -> None:
    machine.refuses(3)
    assert (writes_menu(machine).returncode, machine.did) == (0, ["old boot"])


def test_a_boot_menu_that_cannot_be_written_says_who_is_in_the_way(machine: Machine) -> None:
    machine.refuses(10**6)
    done = writes_menu(machine)
    assert (done.returncode, "somebody else's switch holds" in done.stderr) == (11, True), done.stderr
