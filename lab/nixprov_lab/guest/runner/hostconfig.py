"""[runners.docker] as the HostConfig of the Docker Engine API."""

from __future__ import annotations

import re
from typing import Final

from .build import Build
from .config import DockerConfig
from .errors import JobFailed, Reason
from .images import matches

_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", re.IGNORECASE)
_UNITS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def host_config(build: Build, binds: list[str], image: str, *, is_build: bool) -> dict[str, object]:
    """The HostConfig of the build container or of the helper, which differ in the pid namespace. Raises JobFailed."""
    config = build.config.docker
    privileged = config.privileged and _may_be_privileged(image, config)
    values: dict[str, object] = {
        "Binds": binds,
        "Privileged": privileged,
        "CapAdd": list(config.cap_add),
        "CapDrop": list(config.cap_drop),
        "SecurityOpt": list(config.security_opt),
        "GroupAdd": list(config.group_add),
        "UsernsMode": config.userns_mode,
        "NetworkMode": config.network_mode,
        "IpcMode": config.ipcmode,
        "PidMode": config.pid_mode if is_build else "",
        "Dns": list(config.dns),
        "DnsSearch": list(config.dns_search),
        "ExtraHosts": list(config.extra_hosts),
        "Runtime": config.runtime,
        "ShmSize": config.shm_size,
        "Tmpfs": dict(config.tmpfs),
        "Sysctls": dict(config.sysctls),
        "OomScoreAdj": config.oom_score_adjust,
        "RestartPolicy": {"Name": "no"},
        "LogConfig": {"Type": "json-file"},
        **_resources(config),
    }
    return {key: value for key, value in values.items() if value not in ("", 0, [], {}) or key == "Privileged"}


def _resources(config: DockerConfig) -> dict[str, object]:
    return {
        "Memory": size(config.memory, "memory"),
        "MemorySwap": size(config.memory_swap, "memory_swap"),
        "MemoryReservation": size(config.memory_reservation, "memory_reservation"),
        "CpuShares": config.cpu_shares,
        "CpusetCpus": config.cpuset_cpus,
        "NanoCpus": _nano_cpus(config.cpus),
        "CgroupParent": config.cgroup_parent,
        "Ulimits": [_ulimit(name, text) for name, text in config.ulimit.items()],
    }


def _may_be_privileged(image: str, config: DockerConfig) -> bool:
    patterns = config.allowed_privileged_images
    return not patterns or any(matches(pattern, image) for pattern in patterns)


def size(text: str, key: str) -> int:
    """Bytes of `512m` and the like; 0 for an empty text. Raises JobFailed."""
    if not text:
        return 0
    found = _SIZE.fullmatch(text.strip())
    if not found:
        raise JobFailed(f"{key}: invalid size {text!r}", Reason.CONFIGURATION)
    return int(float(found[1]) * 1024 ** _UNITS[found[2].lower()])


def _nano_cpus(text: str) -> int:
    if not text:
        return 0
    try:
        return int(float(text) * 1_000_000_000)
    except ValueError:
        raise JobFailed(f"failed to parse {text!r} as a number of cpus", Reason.CONFIGURATION) from None


def _ulimit(name: str, text: str) -> dict[str, object]:
    soft, _, hard = text.partition(":")
    try:
        return {"Name": name, "Soft": int(soft), "Hard": int(hard or soft)}
    except ValueError:
        raise JobFailed(f"invalid ulimit {name}: {text!r}", Reason.CONFIGURATION) from None
