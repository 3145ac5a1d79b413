"""The docker executor: a job's volumes and its two containers (gitlab-runner's executors/docker).

`predefined` (helper image) prepares and cleans up, `build` (the job's image) runs the scripts. Both are made once and
started anew for every stage, with the stage's script as standard input. A killed runner leaves running containers and
volumes behind. As with gitlab-runner, the next one does not remove them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from enum import Enum
from typing import Final

from . import shell, volumes
from .build import Build, GitStrategy
from .config import DockerConfig
from .docker import NOT_FOUND, Docker, ImageInfo
from .errors import Cancelled, DockerError, JobFailed, PreparationFailed, Reason
from .hostconfig import host_config
from .identity import VERSION, architecture
from .images import Images, check_allowed
from .job import Image
from .log import Log
from .output import JobLog
from .scope import Scope

_HELPER: Final = "registry.gitlab.com/gitlab-org/gitlab-runner/gitlab-runner-helper"
_HELPER_COMMAND: Final = ["gitlab-runner-build"]
_CACHE_INIT: Final = "/gitlab-runner-cache-init"
_BAD_REQUEST: Final = 400
_EXITED_S: Final = 1.0
_TERMINATED_S: Final = 10.0


class Kind(Enum):
    PREDEFINED = "predefined"
    BUILD = "build"


class Executor:
    """The executor of one job. `clean` has to be called in any case."""

    def __init__(self, build: Build, job_log: JobLog, own_log: Log) -> None:
        self.build = build
        self._config: DockerConfig = build.config.docker
        self._docker = Docker(self._config.host)
        self._log = job_log
        self._own_log = own_log
        self._images = Images(self._docker, self._config, job_log)
        self._expand = build.variables.expand
        self._binds: list[str] = []
        self._targets: set[str] = set()
        self._temporary_volumes: list[str] = []
        self._containers: dict[Kind, str] = {}
        self._began = False

    def prepare(self) -> None:
        """Prepare the containers. Raises PreparationFailed (to be tried again) or JobFailed."""
        try:
            self._docker.info()
            self._docker.version()
            self.build.check_clone_path()
            image = self._image_name()
            self._log.line(f"Using Docker executor with image {image} ...")
            self._began = True
            helper = self._helper_image()
            self._make_volumes(helper)
            self._helper_image()
            self._images.get(self._image_name(), self.build.job.image.pull_policy)
        except DockerError as error:
            raise PreparationFailed(str(error)) from error

    def _image_name(self) -> str:
        default = self._expand(self._config.image)
        asked = self._expand(self.build.job.image.name)
        if asked:
            check_allowed(asked, self._config, default, self._log)
            return asked
        if not default:
            raise PreparationFailed("no Docker image specified to run the build in")
        self._log.info("Using default image")
        return default

    def _helper_image(self) -> ImageInfo:
        arch = {"amd64": "x86_64"}.get(architecture(), architecture())
        default = f"{_HELPER}:{arch}-v{VERSION.partition('-')[0]}"
        name = self._expand(self._config.helper_image)
        if name:
            self._log.line(f"Using helper image:  {name}  (overridden, default would be  {default} )")
            return self._images.get(name)
        try:
            return self._docker.image(default)
        except DockerError:
            self._log.line(f"Using helper image:  {default}")
            return self._images.get(default)

    def _make_volumes(self, helper: ImageInfo) -> None:
        for text in self._config.volumes:
            volume = volumes.parse(text, self._expand, self.build.project_dir)
            if volume.target in self._targets:
                raise PreparationFailed(f'volume for container path "{volume.target}" is already defined')
            if volume.source:
                self._targets.add(volume.target)
                self._binds.append(volume.bind)
            else:
                self._make_cache(volume.target, helper, kept=not self._config.disable_cache)
        root = self.build.config.builds_dir
        if root not in self._targets:
            kept = self.build.strategy is GitStrategy.FETCH and not self._config.disable_cache
            self._make_cache(root, helper, kept=kept)

    def _make_cache(self, target: str, helper: ImageInfo, *, kept: bool) -> None:
        """Make a volume. A container sets its permissions, so that every user may write."""
        build = self.build
        self._targets.add(target)
        name = volumes.cache_name(build.real_name if kept else build.job_name, target, protected=build.protected)
        labels = build.labels_of(
            destination=target, protected=_word(build.protected), reusable=_word(kept), type="cache"
        )
        self._docker.create_volume(name, labels)
        try:
            self._allow_all(name, helper)
        except DockerError as error:
            raise PreparationFailed(f"creating cache volume: set volume permissions: {error}") from error
        # Only now: gitlab-runner leaves the volume behind when its permissions cannot be set.
        if not kept:
            self._temporary_volumes.append(name)
        self._binds.append(f"{name}:{target}")

    def _allow_all(self, volume: str, helper: ImageInfo) -> None:
        body = {
            "Image": helper.id,
            "Cmd": ["gitlab-runner-helper", "cache-init", _CACHE_INIT],
            "Labels": self.build.labels_of(type="cache-init"),
            "HostConfig": {"Binds": [f"{volume}:{_CACHE_INIT}"], "LogConfig": {"Type": "json-file"}},
        }
        container = self._docker.create_container(f"{volume}-set-permission-{self.build.suffix}", body)
        try:
            self._docker.start(container)
            status = self._docker.wait(container)
        finally:
            self._docker.remove(container, volumes=False)
        if status:
            raise DockerError(f"exit code {status}")

    def run(self, kind: Kind, script: bytes, scope: Scope) -> None:
        """Run a script to its end. Raises JobFailed (its status), Cancelled, DockerError or PreparationFailed."""
        container = self._container(kind)
        stdout, stderr = self._log.stdout(), self._log.stderr()
        attached = self._docker.attach(container)
        try:
            self._docker.start(container)
            attached.send(script)
            attached.copy(stdout.write, stderr.write, scope)
            status = self._stopped(container)
        except Cancelled:
            self._terminate(kind, container)
            with contextlib.suppress(Cancelled, DockerError):
                attached.copy(stdout.write, stderr.write, Scope(_TERMINATED_S))
            self._forget(kind, container)
            raise
        finally:
            attached.close()
            stdout.close()
            stderr.close()
        if status:
            raise JobFailed(f"exit code {status}", Reason.SCRIPT, status)

    def _stopped(self, container: str) -> int:
        """The exit status. Processes that outlive the script's output are stopped."""
        status = self._docker.wait(container, _EXITED_S)
        while status is None:
            self._docker.stop(container)
            status = self._docker.wait(container, _TERMINATED_S)
        return status

    def _terminate(self, kind: Kind, container: str) -> None:
        """Ask the script's processes to end, then the container."""
        if kind is Kind.BUILD:
            with contextlib.suppress(DockerError):
                self._docker.execute(container, list(shell.TERMINATE))
                if self._docker.wait(container, _EXITED_S) is not None:
                    return
        with contextlib.suppress(DockerError):
            self._docker.stop(container)

    def _forget(self, kind: Kind, container: str) -> None:
        self._containers.pop(kind, None)
        self._remove(container)

    def _container(self, kind: Kind) -> str:
        known = self._containers.get(kind)
        if known and self._docker.exists(known):
            return known
        if kind is Kind.PREDEFINED:
            image = self._images.get(self._helper_image().id)
            return self._create(kind, image, Image(), _HELPER_COMMAND)
        job_image = self.build.job.image
        image = self._images.get(self._image_name(), job_image.pull_policy)
        return self._create(kind, image, job_image, list(shell.DETECT))

    def _create(self, kind: Kind, image: ImageInfo, wanted: Image, command: list[str]) -> str:
        build = self.build
        name = f"{build.job_name}-{kind.value}"
        body: dict[str, object] = {
            "Image": image.reference,
            "Hostname": self._config.hostname or build.unique_name,
            "Cmd": command,
            "Env": build.variables.environment(),
            "Labels": self._container_labels(kind),
            "AttachStdin": True,
            "AttachStdout": True,
            "AttachStderr": True,
            "OpenStdin": True,
            "StdinOnce": True,
            "HostConfig": host_config(build, self._binds, wanted.name, is_build=kind is Kind.BUILD),
        }
        if wanted.entrypoint:
            self._entrypoint(body, wanted)
        if kind is Kind.BUILD and (user := self._user(wanted)):
            body["User"] = user
        self._docker.remove(name)
        self._containers[kind] = self._try_create(name, body)
        return self._containers[kind]

    def _try_create(self, name: str, body: dict[str, object]) -> str:
        try:
            return self._docker.create_container(name, body)
        except DockerError as error:
            if error.status == _BAD_REQUEST:
                raise JobFailed(str(error), Reason.CONFIGURATION) from error
            raise

    def _container_labels(self, kind: Kind) -> dict[str, str]:
        own = {key: self._expand(value) for key, value in self._config.container_labels.items()}
        return self.build.labels_of(type=kind.value) | own

    def _entrypoint(self, body: dict[str, object], wanted: Image) -> None:
        if self._config.disable_entrypoint_overwrite:
            self._log.warning("Entrypoint override disabled")
        else:
            body["Entrypoint"] = list(wanted.entrypoint)

    def _user(self, wanted: Image) -> str:
        user = self._config.user or self._expand(wanted.user)
        if user and self._config.allowed_users and user not in self._config.allowed_users:
            allowed = " ".join(self._config.allowed_users)
            raise PreparationFailed(f'user "{user}" is not an allowed user: [{allowed}]')
        return user

    def clean(self) -> None:
        """Remove this job's containers and volumes. A failure is reported in the runner's own log."""
        for container in self._containers.values():
            self._remove(container)
        self._containers.clear()
        if not self._config.volume_keep:
            for volume in self._temporary_volumes:
                self._attempt(functools.partial(self._docker.remove_volume, volume), f"volume {volume}")
        self._temporary_volumes.clear()
        if not self._began:
            # gitlab-runner logs this whenever it has not reached the step of its networks.
            self._log.error("Failed to remove network for build")

    def _remove(self, container: str) -> None:
        self._attempt(lambda: self._docker.remove(container, volumes=not self._config.volume_keep), container)

    def _attempt(self, action: Callable[[], None], what: str) -> None:
        try:
            action()
        except DockerError as error:
            if error.status != NOT_FOUND:
                self._own_log.error(f"Failed to remove {what}: {error}", job=self.build.job.key.id)


def on_shared_mount(build: Build) -> Build:
    """The build, with host paths in its names if `volumes` mounts a host directory on its builds directory."""
    for text in build.config.docker.volumes:
        volume = volumes.parse(text, build.variables.expand, build.project_dir)
        if volume.source and volumes.contains(volume.target, build.config.builds_dir):
            return dataclasses.replace(build, shared=True)
    return build


def _word(flag: bool) -> str:
    return "true" if flag else "false"
