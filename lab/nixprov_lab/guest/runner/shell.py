"""The scripts of a job's stages, for bash and POSIX sh on standard input (gitlab-runner's shells/abstract.go, bash.go).

A stage is one string. It is evaluated in a subshell without standard input, under errexit, and under pipefail if the
shell has it.
"""

from __future__ import annotations

import posixpath
import shlex
from typing import Final

from .build import Build, GitStrategy
from .errors import JobFailed, Reason
from .job import AFTER_SCRIPT, Step
from .variables import Variables

_GREEN: Final = "\033[32;1m"
_RESET: Final = "\033[0;m"
_LOCKS: Final = ("index.lock", "shallow.lock", "HEAD.lock", "hooks/post-checkout", "config.lock")
_GITLAB_ENV: Final = "gitlab_runner_env"
_GIT_CONFIG: Final = ".gitlab-runner.ext.conf"
_SHELLS: Final = " ".join(
    f"{place}/{name}" for name in ("bash", "sh") for place in ("/usr/local/bin", "/usr/bin", "/bin")
)

DETECT: Final = (
    "sh",
    "-c",
    f"for at in {_SHELLS} /busybox/sh; do if [ -x $at ]; then exec $at; fi; done; echo shell not found; exit 1",
)
# Most shells pass no signal on to their children, so every process but the first gets it.
TERMINATE: Final = (
    "sh",
    "-c",
    "cd /proc; for pid in [0-9]*; do case $pid in 1|$$) ;; *) kill -TERM $pid 2>/dev/null ;; esac; done; true",
)


def finish(lines: list[str], *, debug: bool) -> bytes:
    """The whole script for the container."""
    on_term = "trap 'exit 1' TERM"
    parts = [
        on_term,
        *(["set -o xtrace"] if debug else []),
        "if (set -o pipefail) 2>/dev/null; then set -o pipefail; fi",
        "set -o errexit",
        "set +o noclobber",
        f"({on_term}; eval {shlex.quote(chr(10).join(lines))}) < /dev/null",
        "exit 0",
    ]
    return ("\n".join(parts) + "\n").encode()


def prepare(build: Build) -> list[str]:
    kept = [posixpath.join(build.temporary_dir, name) for name in (_GITLAB_ENV, "masking.db")]
    greeting = f'echo "Running on $(hostname) via {_in_double_quotes(build.hostname)}..."'
    return [greeting, *(f"rm -f {shlex.quote(path)}" for path in kept)]


def get_sources(build: Build) -> list[str]:
    """The commands that fetch the sources. Raises JobFailed for submodules, which the stand-in does not fetch."""
    lines = [*_exports(build, build.variables), "export GIT_TERMINAL_PROMPT=0"]
    if build.strategy.has_sources:
        lines += _commands(_hook(build, "pre_get_sources_script", build.config.pre_get_sources_script))
        lines += _fetch(build) + (_check_out(build) if build.checkout else [])
    else:
        lines += _no_sources(build)
    if not build.checkout:
        lines.append(_notice("Skipping Git checkout"))
    lines += _submodules(build)
    if build.strategy.has_sources:
        lines += _commands(_hook(build, "post_get_sources_script", build.config.post_get_sources_script))
    return lines


def _hook(build: Build, name: str, configured: str) -> list[str]:
    """The runner's own script is the outer one: first before, last after."""
    own = [configured] if configured else []
    asked = list(build.job.hooks.get(name, ()))
    return own + asked if name.startswith("pre") else asked + own


def _no_sources(build: Build) -> list[str]:
    path = shlex.quote(build.project_dir)
    if build.strategy is GitStrategy.NONE:
        return [_notice("Skipping Git repository setup"), f"mkdir -p {path}"]
    text = "Skipping Git repository setup and creating an empty build directory"
    return [_notice(text), f"rm -rf {path}", f"mkdir -p {path}"]


def _fetch(build: Build) -> list[str]:
    git = build.job.git
    path = shlex.quote(build.project_dir)
    depth = f" --depth {git.depth}" if git.depth > 0 else ""
    told = f" with git depth set to {git.depth}" if depth else ""
    config = posixpath.join(build.temporary_dir, _GIT_CONFIG)
    template = posixpath.join(build.temporary_dir, "git-template")
    fetch = ["git", "fetch", "origin", "--no-recurse-submodules", *git.refspecs]
    return [
        *_clean_git(build),
        *([f"rm -rf {path}"] if build.strategy is GitStrategy.CLONE else []),
        f"git config --global --add safe.directory {path}",
        *_write_file(config, _git_config(build)),
        _notice(f"Fetching changes{told}..."),
        f"mkdir -p {shlex.quote(template)}",
        f"git -c init.defaultBranch=none init {path} --template {shlex.quote(template)}",
        f"cd {path}",
        f"git config --replace-all include.path {shlex.quote(config)}",
        f"if git remote add origin {shlex.quote(build.remote_url_without_token)} >/dev/null 2>&1; then",
        _notice("Created fresh repository."),
        f"else git remote set-url origin {shlex.quote(build.remote_url_without_token)}; fi",
        f"{shlex.join(fetch)}{depth} --prune --quiet",
    ]


def _git_config(build: Build) -> str:
    """The git configuration with the job's token: a file beside the sources, never in them or in a command line."""
    return f'[url "{build.remote_url}"]\n\tinsteadOf = {build.remote_url_without_token}\n'


def _check_out(build: Build) -> list[str]:
    git = build.job.git
    clean = Variables(build.job.variables).text("GIT_CLEAN_FLAGS") or "-ffdx"
    return [
        _notice(f"Checking out {git.sha[:8]} as detached HEAD (ref is {git.ref})..."),
        f"git -c submodule.recurse=false checkout -f -q {shlex.quote(git.sha)}",
        *([] if clean == "none" else [f"git clean {shlex.join(clean.split())}"]),
    ]


def _submodules(build: Build) -> list[str]:
    wanted = Variables(build.job.variables).text("GIT_SUBMODULE_STRATEGY")
    if build.strategy.has_sources and wanted not in {"", "none"}:
        raise JobFailed("Git submodules are not supported by the lab's stand-in", Reason.SYSTEM)
    return [_notice("Skipping Git submodules setup")]


def user_script(build: Build, step: Step, variables: Variables) -> list[str]:
    lines = [*_exports(build, variables), f"cd {shlex.quote(build.project_dir)}"]
    if step.name == AFTER_SCRIPT:
        return [*lines, _notice("Running after script..."), *_commands(list(step.script))]
    before, after = build.config.pre_build_script, build.config.post_build_script
    return lines + _commands([*([before] if before else []), *step.script, *([after] if after else [])])


def clean_up(build: Build) -> list[str]:
    files = [_GITLAB_ENV, "masking.db", _GIT_CONFIG, *(item.key for item in build.variables if item.file)]
    removals = [f"rm -f {shlex.quote(posixpath.join(build.temporary_dir, name))}" for name in files]
    return removals + _clean_git(build)


def _clean_git(build: Build) -> list[str]:
    directory = posixpath.join(build.project_dir, ".git")
    return [f"rm -f {shlex.quote(posixpath.join(directory, name))}" for name in _LOCKS]


def _exports(build: Build, variables: Variables) -> list[str]:
    environment = posixpath.join(build.temporary_dir, _GITLAB_ENV)
    lines = []
    for item in variables:
        if item.file:
            lines += _write_file(variables.get(item.key), item.value)
        value = variables.get(item.key) if item.file else item.value
        lines.append(f"export {_name(item.key)}={shlex.quote(value)}")
    return [
        *lines,
        f"export GITLAB_ENV={shlex.quote(environment)}",
        f"mkdir -p {shlex.quote(build.temporary_dir)}",
        f"touch {shlex.quote(environment)}",
        f'while read -r line; do export "$line"; done < {shlex.quote(environment)}',
    ]


def _name(key: str) -> str:
    """A variable's name. An invalid one fails in the shell, as with gitlab-runner, and has no other effect."""
    return key if key.isidentifier() and key.isascii() else shlex.quote(key)


def _write_file(path: str, text: str) -> list[str]:
    # printf is built into the shell, so the text is in no process' arguments.
    folder = shlex.quote(posixpath.dirname(path))
    return [f"mkdir -p {folder}", f"printf '%s' {shlex.quote(text)} > {shlex.quote(path)}"]


def _commands(commands: list[str]) -> list[str]:
    lines = []
    for text in commands:
        command = text.strip()
        first, _, more = command.partition("\n")
        shown = f"$ {first} # collapsed multi-line command" if more else f"$ {first}"
        lines += [_notice(shown) if command else "echo", command]
    return lines


def _notice(text: str) -> str:
    return f"echo {shlex.quote(_GREEN + text + _RESET)}"


def _in_double_quotes(text: str) -> str:
    return "".join(f"\\{letter}" if letter in '\\"$`' else letter for letter in text)
