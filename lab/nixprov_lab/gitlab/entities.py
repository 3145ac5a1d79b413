"""GitLab's records as JSON; a runner's token is in none of them."""

from __future__ import annotations

from nixprov_lab.gitlab.clock import iso, optional_iso
from nixprov_lab.gitlab.records import Group, Job, Pipeline, Project, Runner, RunnerManager, User, Variable
from nixprov_lab.gitlab.state import State
from nixprov_lab.gitlab.status import is_online, manager_status, runner_status
from provisioner.model import RunnerType

Json = dict[str, object]


def registration(runner: Runner, *, with_id: bool) -> Json:
    shown: Json = {"token": runner.token, "token_expires_at": None}
    return {"id": runner.id, **shown} if with_id else shown


def runner_in_list(runner: Runner, state: State) -> Json:
    now = state.clock.now()
    return {
        "id": runner.id,
        "description": runner.description,
        "ip_address": None,
        "active": runner.active,
        "paused": not runner.active,
        "is_shared": runner.type is RunnerType.INSTANCE,
        "runner_type": runner.type.value,
        "name": None,
        "online": is_online(runner, now),
        "created_at": iso(runner.created_at),
        "status": runner_status(runner, now).value,
        "job_execution_status": _execution(state, runner.id, None),
    }


def runner_details(runner: Runner, state: State, *, user_may_update: bool, with_projects: bool) -> Json:
    manager = runner.latest_manager()
    info = manager.info if manager else {}
    details = runner_in_list(runner, state) | {
        "tag_list": list(runner.tags),
        "run_untagged": runner.run_untagged,
        "locked": runner.locked,
        "maximum_timeout": runner.maximum_timeout_s,
        "access_level": runner.access_level.value,
        **{key: info.get(key) for key in ("version", "revision", "platform", "architecture")},
        "contacted_at": optional_iso(runner.contacted_at),
        "maintenance_note": runner.maintenance_note if user_may_update else None,
        "groups": [group_short(runner.group)] if runner.group else [],
    }
    return details | ({"projects": [project_short(project) for project in runner.projects]} if with_projects else {})


def manager(record: RunnerManager, runner: Runner, state: State) -> Json:
    return {
        "id": record.id,
        "system_id": record.system_id,
        **{key: record.info.get(key) for key in ("version", "revision", "platform", "architecture")},
        "created_at": iso(record.created_at),
        "contacted_at": iso(record.contacted_at),
        "ip_address": record.ip_address,
        "status": manager_status(record, state.clock.now()).value,
        "job_execution_status": _execution(state, runner.id, record.system_id),
    }


def _execution(state: State, runner_id: int, system_id: str | None) -> str:
    held = (job for job in state.jobs_of(runner_id) if job.status.is_held)
    return "active" if any(system_id in {None, job.system_id} for job in held) else "idle"


def job(record: Job) -> Json:
    seconds = None if record.started_s is None or record.finished_s is None else record.finished_s - record.started_s
    queued = (record.started_at or record.queued_at) - record.queued_at
    return {
        "id": record.id,
        "status": record.status.value,
        "stage": "test",
        "name": record.spec.name,
        "ref": "main",
        "tag": False,
        "coverage": None,
        "created_at": iso(record.queued_at),
        "started_at": optional_iso(record.started_at),
        "finished_at": optional_iso(record.finished_at),
        "duration": seconds,
        "queued_duration": queued,
        "user": None,
        "commit": None,
        "pipeline": {"id": record.id, "project_id": record.project.id, "ref": "main", "status": record.status.value},
        "project": project_short(record.project),
    }


def group_short(group: Group) -> Json:
    name = group.path.rpartition("/")[2]
    return {"id": group.id, "web_url": f"/groups/{group.path}", "name": name, "full_path": group.path, "path": name}


def project_short(project: Project) -> Json:
    namespace, _, name = project.path.rpartition("/")
    return {
        "id": project.id,
        "description": None,
        "name": name,
        "name_with_namespace": f"{namespace} / {name}",
        "path": name,
        "path_with_namespace": project.path,
    }


def project_details(project: Project) -> Json:
    """What a Maintainer sees of the settings of CI/CD."""
    return project_short(project) | {
        "shared_runners_enabled": project.instance_runners,
        "group_runners_enabled": project.group_runners,
        "ci_separated_caches": project.separated_caches,
        "ci_push_repository_for_job_token_allowed": project.job_token_pushes,
        "container_registry_access_level": project.registries,
        "package_registry_access_level": project.registries,
        "ci_config_path": project.ci_config_path,
        "ci_pipeline_variables_minimum_override_role": project.variables_override_role,
    }


def pipeline(record: Pipeline) -> Json:
    return {
        "id": record.id,
        "iid": record.id,
        "project_id": record.project.id,
        "sha": record.sha,
        "ref": record.ref,
        "status": record.status,
        "source": record.source,
        "created_at": iso(record.created_at),
        "updated_at": iso(record.updated_at),
        "web_url": f"/{record.project.path}/-/pipelines/{record.id}",
        "name": None,
    }


def variable(record: Variable) -> Json:
    return {
        "variable_type": "env_var",
        "key": record.key,
        "value": "",
        "hidden": False,
        "protected": record.protected,
        "masked": record.masked,
        "raw": False,
        "environment_scope": "*",
        "description": None,
    }


def user(record: User) -> Json:
    return {
        "id": record.id,
        "username": record.username,
        "name": record.username,
        "state": "active",
        "is_admin": record.admin,
    }
