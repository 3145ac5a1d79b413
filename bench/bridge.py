"""`nixprov bridge` and a repository with many open pull requests: calls of both APIs, time and memory of a pass.

    python -m bench.bridge [PULLS]     (300)

Both sides are the stand-ins of tests/contract/bridge on loopback, git is the real one. A third of the pull requests
are branches of the repository, a third are approved forks, a third wait. Passes: the first, one after all pipelines
have ended, and three in which nothing has changed.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

from tests.contract.bridge.rig import MAIN, Rig, rig

# Calls for a new head: two for its check (look, make), two for pipeline files (its own, the base's). Approval has a
# permission and a comment, which come twice if the push is more than ten seconds later.
MOST_FOR_NEW: int = 8
MOST_FOR_CHANGED: int = 1
MOST_BESIDE: int = 30


def main(count: int) -> int:
    with tempfile.TemporaryDirectory() as folder, rig(Path(folder)) as made:
        made.changed(limits={"branches": count, "write_interval_s": 0})
        fill(made, count)
        bridge = made.bridge()
        built = count - count // 3
        limits = {
            "first": count * MOST_FOR_NEW + MOST_BESIDE,
            "pipelines ended": built * MOST_FOR_CHANGED + MOST_BESIDE,
            **dict.fromkeys(("nothing new", "nothing new again", "nothing new once more"), MOST_BESIDE),
        }
        failed = False
        print(f"{'pass':24}{'GitHub':>8}{'GitLab':>8}{'limit':>8}{'seconds':>10}{'MiB':>8}")
        for name, limit in limits.items():
            if name == "pipelines ended":
                for pipeline in made.gitlab.lab.state.pipelines.values():
                    made.gitlab.lab.state.set_pipeline(pipeline, "success")
            calls, journal = len(made.github.calls), len(made.gitlab.lab.journal.entries)
            began = time.monotonic()
            bridge.settle()
            seconds = time.monotonic() - began
            github, gitlab = len(made.github.calls) - calls, len(made.gitlab.lab.journal.entries) - journal
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(f"{name:24}{github:>8}{gitlab:>8}{limit:>8}{seconds:>10.1f}{memory:>8.0f}")
            failed = failed or github + gitlab > limit
        pushed = len(made.came())
        print(f"{pushed} of {count} pull requests are on GitLab, {len(made.github.checks)} checks on GitHub")
        return int(failed or pushed != built)


def fill(made: Rig, count: int) -> None:
    base = made.source.refs()[MAIN]
    for number in range(count):
        is_own = number % 3 == 0
        author = made.owner if is_own else made.stranger(f"stranger{number % 40}")
        pull = made.github.open(author, made.commit(), base, fork=not is_own)
        if number % 3 == 1:
            made.github.say(made.owner, pull, f"/ci run {pull.head}")


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 300))
