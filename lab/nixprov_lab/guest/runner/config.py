"""config.toml as gitlab-runner 19.4 documents it (docs/configuration/advanced-configuration), strictly.

gitlab-runner itself ignores unknown keys. Here a typo in our module's output must not stay hidden.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import ClassVar, Final

from .errors import ConfigError
from .fields import decode

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|s)")
_SECONDS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_SHORT_TOKEN: Final = re.compile(r"^(glrt-(t[123]_)?|t[123]_|glrtr-|glcbt-|GR[0-9A-Fa-f]{7})")
_NO_DATE: Final = 1
PULL_POLICIES: Final = ("always", "if-not-present", "never")


def seconds(text: str, where: str) -> float:
    """A Go duration such as `1h30m`, in seconds. Raises ConfigError."""
    if not text or _DURATION.sub("", text):
        raise ConfigError(f"{where}: {text!r} is no duration such as 90s or 1h30m")
    return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(text))


def short_token(token: str) -> str:
    """The first nine characters after the known prefix, as gitlab-runner shows a token."""
    return _SHORT_TOKEN.sub("", token)[:9]


@dataclass(frozen=True)
class DockerConfig:
    """[runners.docker]"""

    image: str = ""
    host: str = "unix:///var/run/docker.sock"
    helper_image: str = ""
    pull_policy: str | tuple[str, ...] = ()
    allowed_pull_policies: tuple[str, ...] = ()
    allowed_images: tuple[str, ...] = ()
    allowed_privileged_images: tuple[str, ...] = ()
    allowed_users: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    disable_cache: bool = False
    volume_keep: bool = False
    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    group_add: tuple[str, ...] = ()
    user: str = ""
    userns_mode: str = ""
    network_mode: str = ""
    pid_mode: str = ""
    ipcmode: str = ""
    hostname: str = ""
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    memory: str = ""
    memory_swap: str = ""
    memory_reservation: str = ""
    cpus: str = ""
    cpu_shares: int = 0
    cpuset_cpus: str = ""
    cgroup_parent: str = ""
    oom_score_adjust: int = 0
    shm_size: int = 0
    runtime: str = ""
    tmpfs: Mapping[str, str] = field(default_factory=dict)
    sysctls: Mapping[str, str] = field(default_factory=dict)
    ulimit: Mapping[str, str] = field(default_factory=dict)
    container_labels: Mapping[str, str] = field(default_factory=dict)
    disable_entrypoint_overwrite: bool = False

    IGNORED: ClassVar[frozenset[str]] = frozenset(
        # They limit or shape services, and a job with services is refused anyway.
        {"allowed_services", "allowed_privileged_services", "services_limit", "services_privileged"}
        | {
            "services_security_opt",
            "services_tmpfs",
            "wait_for_services_timeout",
            "service_memory",
            "service_memory_swap",
        }
        | {"service_cpus"}
        # Without effect for a local socket and a helper_image.
        | {"tls_verify", "helper_image_flavor", "oom_kill_disable", "network_mtu"}
    )
    DOCUMENTED: ClassVar[frozenset[str]] = frozenset(
        {"services", "cache_dir", "cpuset_mems", "devices", "device_cgroup_rules", "gpus", "enable_ipv6", "isolation"}
        | {"links", "log_options", "mac_address", "service_cgroup_parent", "service_cpu_shares", "service_cpuset_cpus"}
        | {"service_gpus", "service_memory_reservation", "service_slot_cgroup_template"}
        | {"services_devices", "tls_cert_path", "volume_driver", "volume_driver_ops", "volumes_from"}
    )

    @property
    def pull_policies(self) -> tuple[str, ...]:
        return (self.pull_policy,) if isinstance(self.pull_policy, str) else self.pull_policy


@dataclass(frozen=True)
class CustomBuildDir:
    enabled: bool = True

    IGNORED: ClassVar[frozenset[str]] = frozenset()
    DOCUMENTED: ClassVar[frozenset[str]] = frozenset()


@dataclass(frozen=True)
class CacheConfig:
    """[runners.cache]: `register` writes it empty; caches themselves are not supported."""

    IGNORED: ClassVar[frozenset[str]] = frozenset({"MaxUploadedArchiveSize"})
    DOCUMENTED: ClassVar[frozenset[str]] = frozenset({"Type", "Path", "Shared", "s3", "gcs", "azure"})


@dataclass(frozen=True)
class RunnerConfig:
    """One [[runners]]. `system_id` is added by the caller of `load`."""

    name: str
    url: str
    token: str = field(repr=False)
    executor: str
    docker: DockerConfig
    id: int = 0
    token_obtained_at: datetime | None = None
    token_expires_at: datetime | None = None
    tls_ca_file: str = field(default="", metadata={"key": "tls-ca-file"})
    limit: int = 0
    output_limit: int = 0
    request_concurrency: int = 1
    strict_check_interval: bool = False
    unhealthy_requests_limit: int = 3
    unhealthy_interval: str = "60m"
    job_status_final_update_retry_limit: int = 10
    builds_dir: str = "/builds"
    cache_dir: str = "/cache"
    clone_url: str = ""
    environment: tuple[str, ...] = field(default=(), repr=False)
    pre_get_sources_script: str = ""
    post_get_sources_script: str = ""
    pre_build_script: str = ""
    post_build_script: str = ""
    shell: str = "bash"
    debug_trace_disabled: bool = False
    custom_build_dir: CustomBuildDir = CustomBuildDir()
    cache: CacheConfig = CacheConfig()
    feature_flags: Mapping[str, bool] = field(default_factory=dict)

    IGNORED: ClassVar[frozenset[str]] = frozenset({"safe_directory_checkout", "clean_git_config"})
    DOCUMENTED: ClassVar[frozenset[str]] = frozenset(
        {"tls-cert-file", "tls-key-file", "labels", "proxy_exec", "prepare_timeout", "get_sources_timeout", "referees"}
        | {"artifact", "monitoring", "use_slot_cgroups", "slot_cgroup_template", "instance", "ssh", "parallels"}
        | {"virtualbox", "machine", "kubernetes", "custom", "autoscaler", "step_runner_image", "experimental"}
    )

    @property
    def short_token(self) -> str:
        return short_token(self.token)

    @property
    def unhealthy_seconds(self) -> float:
        return seconds(self.unhealthy_interval, "unhealthy_interval")

    @property
    def timestamps(self) -> bool:
        return self.feature_flags.get("FF_TIMESTAMPS", True)


@dataclass(frozen=True)
class SessionServer:
    IGNORED: ClassVar[frozenset[str]] = frozenset({"session_timeout"})
    DOCUMENTED: ClassVar[frozenset[str]] = frozenset({"listen_address", "advertise_address"})


@dataclass(frozen=True)
class Config:
    """The whole file; times in seconds."""

    concurrent: int = 1
    check_interval: int = 0
    shutdown_timeout: int = 0
    log_level: str = "info"
    log_format: str = "runner"
    runners: tuple[RunnerConfig, ...] = ()
    session_server: SessionServer = SessionServer()

    IGNORED: ClassVar[frozenset[str]] = frozenset({"user", "connection_max_age"})
    DOCUMENTED: ClassVar[frozenset[str]] = frozenset(
        {"listen_address", "labels", "sentry_dsn", "machine", "experimental"}
    )

    @property
    def interval(self) -> float:
        return float(self.check_interval) if self.check_interval > 0 else 3.0

    @property
    def shutdown_seconds(self) -> float:
        return float(self.shutdown_timeout) if self.shutdown_timeout > 0 else 30.0


def load(path: Path) -> tuple[Config, dict[str, object]]:
    """Read and check the file; the second value is the plain document. Raises ConfigError, never with a value in it."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: no valid TOML: {_place(error)}") from None
    _expand_credentials(document)
    config = decode(Config, document, str(path))
    for runner in config.runners:
        _check(runner, f"{path}: runner {runner.name}")
    if config.concurrent < 1:
        raise ConfigError(f"{path}: concurrent = {config.concurrent} means that no jobs will be processed")
    return config, document


def _place(error: Exception) -> str:
    found = re.search(r"at line \d+, column \d+|at end of document", str(error))
    return found[0] if found else type(error).__name__


def _expand_credentials(document: dict[str, object]) -> None:
    """A url and a token may name environment variables, as gitlab-runner allows."""
    entries = document.get("runners")
    for entry in entries if isinstance(entries, list) else []:
        for key in ("url", "token") if isinstance(entry, dict) else ():
            if isinstance(entry.get(key), str):
                entry[key] = os.path.expandvars(entry[key])


def _check(runner: RunnerConfig, where: str) -> None:
    if runner.executor != "docker":
        raise ConfigError(f"{where}: executor {runner.executor} is not supported by the lab's stand-in, only docker")
    if runner.shell not in {"bash", "sh"}:
        raise ConfigError(f"{where}: shell {runner.shell} is not supported by the lab's stand-in")
    if not runner.docker.host.startswith("unix://"):
        raise ConfigError(f"{where}: docker host must be a unix:// socket for the lab's stand-in")
    if runner.token_expires_at and runner.token_expires_at.year > _NO_DATE:
        raise ConfigError(f"{where}: token_expires_at: the lab's stand-in does not rotate tokens")
    seconds(runner.unhealthy_interval, f"{where}: unhealthy_interval")
    for policy in (*runner.docker.pull_policies, *runner.docker.allowed_pull_policies):
        if policy not in PULL_POLICIES:
            raise ConfigError(f"{where}: unsupported pull_policy config: {policy!r}")
    for flag in runner.feature_flags:
        if flag != "FF_TIMESTAMPS":
            raise ConfigError(f"{where}: feature flag {flag} is not supported by the lab's stand-in")
