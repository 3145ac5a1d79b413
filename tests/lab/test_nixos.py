"""The stand-in NixOS: that it refuses, builds, switches, fails and goes back as the real one does.

What the real one does: facts read in nixos-rebuild-ng and switch-to-configuration (nixpkgs 25.11) and in the NixOS
manual, chapters "Changing the Configuration" and "Unit handling".
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from nixprov_lab.running import Lab

HOST = "host2"
PROFILE = "/nix/var/nix/profiles/system"
SLEEPER = 'script = "exec sleep infinity"; wantedBy = [ "multi-user.target" ];'
REMOVED = "{ }"


@dataclass(frozen=True)
class NixOS:
    """One machine with a module of the test's own in its configuration."""

    lab: Lab

    def sh(self, script: str, *, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return self.lab.run(HOST, ["bash", "-c", script], stdin=stdin, check=False)

    def out(self, script: str) -> str:
        done = self.sh(script)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def configure(self, module: str) -> None:
        self.sh("cat > /etc/nixos/test.nix", stdin=f"{{ config, lib, pkgs, options, ... }}:\n{module}\n")

    def rebuild(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.lab.run(HOST, ["nixos-rebuild", *arguments], check=False)

    def switch(self, module: str, action: str = "switch") -> str:
        """What a switch to the module says; it must succeed."""
        self.configure(module)
        done = self.rebuild(action)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def generation(self) -> int:
        return int(self.out(f"readlink {PROFILE}").split("-")[1])

    def pid(self, unit: str) -> str:
        return self.out(f"systemctl show --property=MainPID --value {unit}")

    def is_active(self, unit: str) -> bool:
        return self.sh(f"systemctl is-active --quiet {unit}").returncode == 0


@pytest.fixture(scope="module")
def nixos(lab: Lab) -> Iterator[NixOS]:
    machine = NixOS(lab)
    machine.out(
        "cp -a /etc/nixos /root/etc-nixos && cd /etc/nixos && sed -i 's|./hardware-c|./test.nix &|' configuration.nix"
    )
    machine.switch("{ }")
    yield machine
    machine.sh("systemctl reset-failed")
    machine.out("rm -r /etc/nixos && mv /root/etc-nixos /etc/nixos && nixos-rebuild switch")


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("{ services.foo.enable = true; }", "The option `services.foo' does not exist. Definition values:"),
        ("{ systemd.services.a.nope = 1; }", "The option `systemd.services.a.nope' does not exist."),
        (
            "{ networking.hostName = 3; }",
            "A definition for option `networking.hostName' is not of type `string matching",
        ),
        (
            '{ imports = [ { nix.gc.options = "a"; } { nix.gc.options = "b"; } ]; }',
            "The option `nix.gc.options' has conflicting definition values:",
        ),
        (
            "{ options.a = lib.mkOption { type = lib.types.int; }; config.environment.etc.x.text = config.a; }",
            "The option `a' was accessed but has no value defined. Try setting the option.",
        ),
        ('{ assertions = [ { assertion = false; message = "no way"; } ]; }', "Failed assertions:\n       - no way"),
        ("{ options = { }; foo = 1; }", "has an unsupported attribute `foo'"),
        ("{ imports = [ ./missing.nix ]; }", "path '/etc/nixos/missing.nix' does not exist"),
        ("{ users.users.a.isSystemUser = true; }", "users.users.a.group is unset"),
        ("{ environment.systemPackages = [ pkgs.nginx ]; }", "attribute 'nginx' missing"),
        (
            '{ environment.etc.x.text = "${pkgs.dockerTools.x}"; }',
            "pkgs.dockerTools: not supported by the stand-in NixOS",
        ),
        ("{ nix.settings = lib.mkIf 1 { }; }", "called with a non-Boolean condition"),
        ("{", "syntax error, unexpected end of file"),
    ],
)
def test_a_broken_configuration_is_refused_and_changes_nothing(nixos: NixOS, module: str, message: str) -> None:
    before = nixos.out(f"readlink {PROFILE} /run/current-system")
    nixos.configure(module)
    done = nixos.rebuild("switch")
    assert done.returncode == 1
    assert message in done.stderr
    assert nixos.out(f"readlink {PROFILE} /run/current-system") == before
    nixos.configure("{ }")


def test_a_failing_build_is_nix_builds_own_status(nixos: NixOS) -> None:
    before = nixos.generation()
    nixos.configure('{ environment.etc.x.source = pkgs.runCommand "broken" { } "exit 3"; }')
    done = nixos.rebuild("switch")
    assert (done.returncode, nixos.generation()) == (100, before)
    assert "failed with exit code 3" in done.stderr


# Values of the module system: Nix code in SCOPE, where `m` merges modules over options of these types; what it must be.
EVALUATIONS = {
    "merge order": (
        "m [ { l = mkAfter [ 3 ]; } { l = [ 2 ]; } { l = mkBefore [ 1 ]; } ] { l = listOf int; }",
        {"l": [1, 2, 3]},
    ),
    "priorities": ("m [ { a = mkDefault 1; } { a = 2; } { a = mkForce 3; } ] { a = int; }", {"a": 3}),
    "conditions": (
        "m [ (mkIf false { a = 1; }) (mkMerge [ { a = 2; } (mkIf true { b = 3; }) ]) ] { a = int; b = int; }",
        {"a": 2, "b": 3},
    ),
    "submodules know their name": (
        "m [ { s.x = { }; } ] { s = attrsOf (submodule ({ name, ... }: { options.n = mkOption { default = name; }; })); }",
        {"s": {"x": {"n": "x"}}},
    ),
    "free form": (
        """m [ { s.a = 1; s.b = 2; } ]
             { s = submodule { freeformType = attrsOf int; options.a = mkOption { type = int; }; }; }""",
        {"s": {"a": 1, "b": 2}},
    ),
    "anything merges sets": ("m [ { a.b = 1; } { a.c = 2; } ] { a = anything; }", {"a": {"b": 1, "c": 2}}),
    "null or": ("m [ { } ] { a = nullOr int; }", {"a": None}),
    "lines": ('m [ { a = "x"; } { a = "y"; } ] { a = lines; }', {"a": "y\nx"}),
    "enum": ('(builtins.tryEval (m [ { a = "z"; } ] { a = enum [ "x" ]; }).a).success', False),
    "ports": ("(builtins.tryEval (m [ { a = 65536; } ] { a = port; }).a).success", False),
    "either": ('m [ { a = "t"; } ] { a = either int str; }', {"a": "t"}),
    "a file is imported once": (
        "m [ { imports = [ /tmp/once.nix /tmp/once.nix ]; } ] { l = listOf int; }",
        {"l": [1]},
    ),
    "a module is disabled": (
        "m [ { imports = [ /tmp/once.nix ]; disabledModules = [ /tmp/once.nix ]; } ] { l = listOf int; }",
        {"l": []},
    ),
    "extended": ("(e.extendModules { modules = [ { a = mkForce 5; b = 1; } ]; }).config", {"a": 5, "b": 1}),
    "is defined": ("with e.options; [ a.isDefined b.isDefined (e.options ? c) ]", [True, False, False]),
    "sub-options": ("attrNames ((attrsOf (submodule { options.q = mkOption { }; })).getSubOptions [ ])", ["q"]),
    "renamed": ('(m [ (mkRenamedOptionModule [ "old" ] [ "new" ]) { old = 4; } ] { new = int; }).new', 4),
    "shell words": ('escapeShellArgs [ "a b" "it\'s" "x" ]', "'a b' 'it'\\''s' x"),
    "versions": ('[ (versionAtLeast "2.26.3" "2.18") (versionOlder "2.18" "2.9") ]', [True, False]),
    "paths of programs": ('makeBinPath [ "/a" "/b" ]', "/a/bin:/b/bin"),
    "strings": (
        '[ (hasInfix "b.c" "ab.cd") (splitString "." "a.b") (removeSuffix ".x" "f.x") (toUpper "ab") ]',
        [True, ["a", "b"], "f", "AB"],
    ),
}
SCOPE = """
with import <nixpkgs/lib>; with types;
let
  eval = modules: set:
    evalModules { modules = [ { options = mapAttrs (_: type: mkOption { inherit type; }) set; } ] ++ modules; };
  m = modules: set: (eval modules set).config;
  e = eval [ { a = 1; } ] { a = int; b = int; };
in
"""


def test_the_library_evaluates_as_nixpkgs_does(nixos: NixOS) -> None:
    nixos.sh("echo '{ l = [ 1 ]; }' > /tmp/once.nix")
    fields = "".join(f"{json.dumps(name)} = {code};\n" for name, (code, _) in EVALUATIONS.items())
    done = nixos.sh("nix-instantiate --eval --strict --json -", stdin=f"{SCOPE} {{ {fields} }}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {name: value for name, (_, value) in EVALUATIONS.items()}


def test_what_a_module_asks_of_options_and_packages(nixos: NixOS) -> None:
    asked = """
    with import <nixpkgs/nixos> { };
    [ (options ? virtualisation.podman) (options ? virtualisation.nope)
      (options.services.gitlab-runner.services.type.getSubOptions [ ] ? authenticationTokenConfigFile)
      config.system.nixos.release pkgs.nix.version (config.nix.package == pkgs.nix) pkgs.git.pname ]
    """
    done = nixos.sh("nix-instantiate --eval --strict --json -", stdin=asked)
    nix = nixos.out("nix --version").split()[-1]
    assert json.loads(done.stdout) == [True, False, True, "25.11", nix, True, "git"]


def test_switch_makes_one_generation_of_one_system(nixos: NixOS) -> None:
    before = nixos.generation()
    said = nixos.switch(f'{{ systemd.services.demo = {{ {SLEEPER} }}; environment.etc."demo/a".text = "b"; }}')
    assert "the following new units were started: demo.service" in said
    pid = nixos.pid("demo")
    assert nixos.generation() == before + 1
    assert nixos.out("cat /etc/demo/a") == "b"
    assert nixos.rebuild("switch").returncode == 0
    assert (nixos.generation(), nixos.pid("demo")) == (before + 1, pid)
    listed = json.loads(nixos.rebuild("list-generations", "--json").stdout)
    assert [entry["generation"] for entry in listed if entry["current"]] == [before + 1]
    said = nixos.switch(REMOVED)
    assert "stopping the following units: demo.service" in said
    assert not nixos.is_active("demo")
    assert nixos.sh("ls /etc/demo/a /etc/systemd/system/demo.service").returncode != 0


STOPPED = "stopping the following units: demo.service"
RESTARTED = "restarting the following units: demo.service"
RELOADED = "reloading the following units: demo.service"
LEFT = "NOT restarting the following changed units: demo.service"
CHANGE = 'environment.A = "1";'


@pytest.mark.parametrize(
    ("old", "new", "said", "is_new_process"),
    [
        pytest.param("", CHANGE, STOPPED, True, id="stop and start"),
        pytest.param("", 'description = "other"; onFailure = [ "x.service" ];', "", False, id="ignored keys"),
        pytest.param('restartTriggers = [ "1" ];', 'restartTriggers = [ "2" ];', STOPPED, True, id="restartTriggers"),
        pytest.param('reloadTriggers = [ "1" ];', 'reloadTriggers = [ "2" ];', RELOADED, False, id="reloadTriggers"),
        pytest.param("reloadIfChanged = true;", CHANGE, RELOADED, False, id="reloadIfChanged"),
        pytest.param("restartIfChanged = false;", CHANGE, LEFT, False, id="restartIfChanged"),
        pytest.param("stopIfChanged = false;", CHANGE, RESTARTED, True, id="stopIfChanged"),
    ],
)
def test_a_changed_unit_is_handled_as_it_asks(
    nixos: NixOS, old: str, new: str, said: str, is_new_process: bool
) -> None:
    unit = f'{SLEEPER} reload = "true";'
    changed = new if "Triggers" in old else old + new
    nixos.switch(f"{{ systemd.services.demo = {{ {unit} {old} }}; }}")
    pid = nixos.pid("demo")
    message = nixos.switch(f"{{ systemd.services.demo = {{ {unit} {changed} }}; }}")
    assert said in message
    assert ("demo.service" in message) == bool(said)
    assert (nixos.pid("demo") != pid) == is_new_process
    assert nixos.is_active("demo")


def test_a_socket_is_started_for_a_changed_service_it_activates(nixos: NixOS) -> None:
    nixos.switch(REMOVED)

    def module(value: str) -> str:
        socket = 'systemd.sockets.demo = { wantedBy = [ "sockets.target" ]; listenStreams = [ "/run/demo.sock" ]; };'
        service = f'systemd.services.demo = {{ environment.A = "{value}"; script = "exec sleep infinity"; }};'
        return f"{{ {socket} {service} }}"

    assert "demo.socket" in nixos.switch(module("1"))
    assert not nixos.is_active("demo.service")
    nixos.out("systemctl start demo.service")
    message = nixos.switch(module("2"))
    assert "stopping the following units: demo.service, demo.socket" in message
    assert "starting the following units: demo.socket" in message
    assert (nixos.is_active("demo.socket"), nixos.is_active("demo.service")) == (True, False)
    nixos.switch(REMOVED)
    assert not nixos.is_active("demo.socket")


def test_a_unit_that_is_not_enabled_is_masked(nixos: NixOS) -> None:
    nixos.switch(f"{{ systemd.services.demo = {{ {SLEEPER} enable = false; }}; }}")
    assert nixos.out("readlink -f /etc/systemd/system/demo.service") == "/dev/null"
    assert nixos.sh("systemctl start demo").returncode != 0
    nixos.switch(REMOVED)


def test_unit_files_are_written_as_nixos_writes_them(nixos: NixOS) -> None:
    nixos.switch("""{
        systemd.services.demo = {
            script = "true"; path = [ pkgs.git ]; restartIfChanged = false; startAt = "daily";
            serviceConfig = { Type = "oneshot"; ExecStartPre = [ "/bin/true" "/bin/true 2" ]; PrivateTmp = true; };
            unitConfig.RequiresMountsFor = "/nix"; after = [ "x.service" "y.service" ];
        };
    }""")
    unit = nixos.out("cat /etc/systemd/system/demo.service").splitlines()
    expected = {"After=x.service y.service", "RequiresMountsFor=/nix", "X-RestartIfChanged=false", "PrivateTmp=true"}
    assert unit[0] == "[Unit]"
    assert expected <= set(unit)
    before = [line for line in unit if line.startswith("ExecStartPre=")]
    assert before == ["ExecStartPre=/bin/true", "ExecStartPre=/bin/true 2"]
    path = next(line for line in unit if line.startswith('Environment="PATH='))
    assert path.index("-git-") < path.index("-coreutils-")
    assert "OnCalendar=daily" in nixos.out("cat /etc/systemd/system/timers.target.wants/demo.timer")


def test_dry_activate_tells_and_does_nothing(nixos: NixOS) -> None:
    nixos.switch(f"{{ systemd.services.demo = {{ {SLEEPER} }}; }}")
    before = nixos.generation(), nixos.pid("demo"), nixos.out("readlink /run/current-system")
    nixos.configure(f'{{ systemd.services.demo = {{ {SLEEPER} environment.A = "1"; }}; }}')
    done = nixos.rebuild("dry-activate")
    assert done.returncode == 0
    assert "would stop the following units: demo.service" in done.stderr
    assert "would start the following units: demo.service" in done.stderr
    assert (nixos.generation(), nixos.pid("demo"), nixos.out("readlink /run/current-system")) == before


def test_test_activates_without_a_generation(nixos: NixOS) -> None:
    nixos.switch(REMOVED)
    before = nixos.generation()
    nixos.switch(f"{{ systemd.services.demo = {{ {SLEEPER} }}; }}", "test")
    pid = nixos.pid("demo")
    assert (nixos.generation(), pid != "0") == (before, True)
    assert nixos.rebuild("switch").returncode == 0
    assert (nixos.generation(), nixos.pid("demo")) == (before + 1, pid)
    nixos.switch(REMOVED)


def test_build_leaves_a_link_and_prints_the_path(nixos: NixOS) -> None:
    nixos.configure('{ environment.etc."nixprov-revision".text = "r1"; }')
    done = nixos.sh("cd /root && nixos-rebuild build")
    assert done.stdout.strip() == nixos.out("readlink /root/result")
    assert nixos.out("cat /root/result/etc/nixprov-revision; rm /root/result") == "r1"
    assert nixos.rebuild("dry-build").returncode == 0
    nixos.configure("{ }")


def test_a_failing_unit_is_status_4_and_rollback_goes_back(nixos: NixOS) -> None:
    nixos.switch(f"{{ systemd.services.demo = {{ {SLEEPER} }}; }}")
    before = nixos.generation()
    nixos.configure('{ systemd.services.demo = { script = "exit 7"; wantedBy = [ "multi-user.target" ]; }; }')
    done = nixos.rebuild("switch")
    assert done.returncode == 4
    assert "warning: the following units failed: demo.service" in done.stderr
    assert nixos.generation() == before + 1
    assert nixos.rebuild("switch", "--rollback").returncode == 0
    assert (nixos.generation(), nixos.is_active("demo")) == (before, True)
    nixos.switch(REMOVED)


def test_any_failed_unit_is_status_4_but_one_that_failed_before_is_forgotten(nixos: NixOS) -> None:
    nixos.sh("systemd-run --unit=stranger --quiet false; systemctl is-failed stranger")
    assert "stranger" not in nixos.switch('{ environment.etc.x.text = "1"; }')


def test_a_failing_activation_is_status_2(nixos: NixOS) -> None:
    nixos.configure('{ system.activationScripts.broken = "false"; }')
    done = nixos.rebuild("switch")
    assert done.returncode == 2
    assert "Activation script snippet 'broken' failed (1)" in done.stderr
    system = nixos.out(f"readlink -f {PROFILE}")
    assert nixos.out("readlink -f /run/current-system") == system


def test_a_second_switch_at_the_same_time_fails(nixos: NixOS) -> None:
    nixos.configure('{ system.activationScripts.slow = "while [ -e /run/test-slow ]; do sleep 0.1; done"; }')
    done = nixos.sh(
        "touch /run/test-slow; nixos-rebuild switch & "
        "until systemctl is-active -q nixos-rebuild-switch-to-configuration; do sleep 0.1; done; "
        "nixos-rebuild switch; code=$?; rm /run/test-slow; wait; exit $code"
    )
    assert done.returncode == 1
    assert "nixos-rebuild-switch-to-configuration.service" in done.stderr


HOLDS = "flock /run/nixos/switch-to-configuration.lock sleep 3600"
SWITCH = "/run/current-system/bin/switch-to-configuration"


@pytest.mark.parametrize("action", ["check", "dry-activate", "boot", "test", "switch"])
def test_a_switch_is_refused_at_once_while_the_lock_is_held(nixos: NixOS, action: str) -> None:
    """NixOS 25.05 and newer: LockExclusiveNonblock, and the errno as status."""
    with holding(nixos):
        done = nixos.sh(f"{SWITCH} {action}")
    assert (done.returncode, "Could not acquire lock" in done.stderr) == (11, True), done.stderr


def test_an_older_switch_waits_for_the_lock(nixos: NixOS) -> None:
    with holding(nixos):
        waits = "until [ $(pgrep -cx flock) = 2 ]; do sleep 0.1; done; pkill -xf 'sleep 3600'"
        done = nixos.sh(f"({waits}) & NIXPROV_LAB_OLD_SWITCH=1 {SWITCH} check")
    assert (done.returncode, done.stderr) == (0, "")


@contextmanager
def holding(nixos: NixOS) -> Iterator[None]:
    nixos.sh(f"mkdir -p /run/nixos; systemd-run --quiet --collect --unit=somebody {HOLDS}")
    nixos.sh("while flock --nonblock /run/nixos/switch-to-configuration.lock true; do sleep 0.1; done")
    try:
        yield
    finally:
        nixos.sh("systemctl stop somebody")


def test_a_pre_switch_check_has_the_new_system_and_the_action(nixos: NixOS) -> None:
    nixos.configure('{ system.preSwitchChecks.monday = "echo checks $#: $2 >&2; false"; }')
    before = nixos.out("readlink -f /run/current-system")
    done = nixos.rebuild("test")
    assert done.returncode == 1
    assert "checks 2: test" in done.stderr
    assert nixos.out("readlink -f /run/current-system") == before


def test_users_and_groups_come_and_go(nixos: NixOS) -> None:
    nixos.sh("userdel by-hand; useradd by-hand")
    module = '{ users.users.demo = { isSystemUser = true; group = "demo"; }; users.groups.demo = { }; }'
    nixos.switch(module)
    uid = nixos.out("id -u demo")
    assert int(uid) < 1000
    nixos.switch(REMOVED)
    assert nixos.sh("getent passwd demo || getent group demo || grep -q ^demo: /etc/shadow").returncode != 0
    nixos.switch(module)
    assert nixos.out("id -u demo") == uid
    nixos.switch(REMOVED)
    assert nixos.out("id -un by-hand && userdel by-hand") == "by-hand"


def test_files_with_a_mode_are_copies(nixos: NixOS) -> None:
    nixos.switch('{ environment.etc."demo.conf" = { text = "x"; mode = "0440"; group = "users"; }; }')
    assert nixos.out("stat -c '%F %a %G' /etc/demo.conf") == "regular file 440 users"
    nixos.switch(REMOVED)
    assert nixos.sh("test -e /etc/demo.conf").returncode == 1


def test_tmpfiles_are_made_at_once(nixos: NixOS) -> None:
    nixos.switch('{ systemd.tmpfiles.rules = [ "d /run/demo-dir 0750 root users -" ]; }')
    assert nixos.out("stat -c '%a %G' /run/demo-dir && rmdir /run/demo-dir") == "750 users"


CONTAINER = """
set -e
mkdir -p /tmp/image/bin && cp "$(readlink -f "$(command -v vim)")" /tmp/image/bin/sh
tar -C /tmp/image -c . | podman import -q - demo >&2
podman run --rm --network=none demo /bin/sh -c 'echo in a container'
podman rmi -f demo >&2
rm -r /tmp/image
"""


def test_podman_is_there_when_it_is_enabled(nixos: NixOS) -> None:
    assert nixos.sh("command -v podman || test -e /etc/containers/policy.json").returncode != 0
    nixos.switch("{ virtualisation.podman.enable = true; }")
    assert nixos.out(CONTAINER) == "in a container"


# A root with nothing but the store, /dev and /proc, as in a container that a job runs in.
BARE = """
set -e
tools=$(nix-build --no-out-link -E 'with import <nixpkgs> { }; buildEnv { name = "tools"; paths =
    [ bash coreutils git nix openssh curl gnutar gzip xz gnugrep gnused findutils gawk gitlab-runner ]; }')
mkdir -p /tmp/bare/nix/store /tmp/bare/tmp /tmp/bare/bin /tmp/bare/dev /tmp/bare/proc
ln -sfn $tools/bin/sh /tmp/bare/bin/sh
unshare --mount bash -c "
    mount --bind /nix/store /tmp/bare/nix/store; mount --bind /dev /tmp/bare/dev; mount -t proc proc /tmp/bare/proc
    chroot /tmp/bare $tools/bin/env -i PATH=$tools/bin HOME=/tmp sh -es"
rm -r /tmp/bare
"""
IN_BARE = r"""
cd /tmp
git init -q r
git -C r -c user.name=a -c user.email=a commit -q --allow-empty -m x
git clone -q file:///tmp/r c
git -C c log --format=%s
nix-instantiate --store dummy:// --eval -E 1+1
echo a | gzip | gunzip | xz | unxz | sed s/a/b/ | grep b
awk 'BEGIN { print 3 }'
for program in curl tar gitlab-runner nix nix-build; do $program --version > /dev/null; done
find . -name none
"""


def test_packages_of_jobs_work_where_only_the_store_is(nixos: NixOS) -> None:
    done = nixos.sh(BARE, stdin=IN_BARE)
    assert (done.stdout.split(), done.returncode) == (["x", "2", "b", "3"], 0), done.stderr


def test_a_build_of_the_daemon_is_sandboxed(nixos: NixOS) -> None:
    probe = 'runCommand "probe-${toString builtins.currentTime}" { } "[ ! -e /usr ]; id -un > $out"'
    build = f"NIX_REMOTE=daemon nix-build --no-out-link -E 'with import <nixpkgs> {{ }}; {probe}'"
    assert nixos.out(f"cat $({build})") == "nixbld"


def test_a_flake_is_built_and_taken_before_configuration_nix(nixos: NixOS) -> None:
    nixos.configure("{ }")
    flake = """{
      outputs = { self, nixpkgs }: { nixosConfigurations.host2 = nixpkgs.lib.nixosSystem {
        modules = [ ./configuration.nix { environment.etc.flake.text = "yes"; } ]; }; };
    }"""
    nixos.sh("cat > /etc/nixos/flake.nix", stdin=flake)
    assert nixos.out("cd /root && nixos-rebuild build && cat result/etc/flake").endswith("yes")
    assert nixos.out("cd /root && nixos-rebuild build --flake /etc/nixos#host2 && cat result/etc/flake").endswith("yes")
    assert nixos.sh("cd /root && nixos-rebuild build --no-flake && cat result/etc/flake").returncode == 1
    nixos.out("rm /etc/nixos/flake.* /root/result")


def test_nixos_config_beats_dash_i(nixos: NixOS) -> None:
    for name in ("a", "b"):
        wrapper = f'{{ imports = [ /etc/nixos/configuration.nix ]; environment.etc.which.text = "{name}"; }}'
        nixos.sh(f"cat > /tmp/{name}.nix", stdin=wrapper)
    build = "nixos-rebuild build -I nixos-config=/tmp/a.nix > /dev/null && cat result/etc/which && rm result"
    assert nixos.out(f"cd /root && {build}") == "a"
    assert nixos.out(f"cd /root && export NIXOS_CONFIG=/tmp/b.nix && {build}") == "b"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "the following arguments are required: action"),
        (["switch", "--nope"], 2, "unrecognized arguments: --nope"),
        (["build-vm"], 1, "build-vm: not supported by the stand-in NixOS"),
        (["switch", "--target-host", "x"], 1, "--target-host: not supported by the stand-in NixOS"),
    ],
)
def test_what_nixos_rebuild_does_not_know_fails_by_name(
    nixos: NixOS, arguments: list[str], code: int, message: str
) -> None:
    done = nixos.rebuild(*arguments)
    assert done.returncode == code
    assert message in done.stderr


def test_boot_waits_for_the_restart(nixos: NixOS) -> None:
    before = nixos.generation()
    nixos.switch(f"{{ systemd.services.demo = {{ {SLEEPER} }}; }}", "boot")
    assert (nixos.generation(), nixos.is_active("demo")) == (before + 1, False)
    nixos.lab.reboot(HOST)
    assert nixos.is_active("demo")
    assert nixos.out("readlink -f /run/current-system") == nixos.out(f"readlink -f {PROFILE}")
    assert nixos.out("systemctl is-system-running --wait") == "running"
