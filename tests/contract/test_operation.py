"""docs/scheduling.md, prefect.yaml and the templates say what the code takes; no result knows operation.yaml."""

from __future__ import annotations

import json
import re
import subprocess
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tasks.deployment import ANY_WORKSPACE, EVENT
from tasks.operation import Operation

ROOT = Path(__file__).parents[2]
DOC = (ROOT / "docs/scheduling.md").read_text(encoding="utf-8")
POOL = json.loads((ROOT / "configs/kubernetes/work-pool.json").read_text(encoding="utf-8"))


def loaded(path: str) -> Any:
    return YAML(typ="safe").load(ROOT / path)


def test_the_documented_settings_are_all_there_are() -> None:
    [shown] = [YAML(typ="safe").load(block) for block in re.findall(r"```yaml\n(.*?)```", DOC, flags=re.DOTALL)]
    operation = Operation.model_validate(shown)

    assert operation.model_fields_set == set(Operation.model_fields)
    assert operation.servers.model_fields_set == set(type(operation.servers).model_fields)
    assert operation.watch.model_fields_set == set(type(operation.watch).model_fields)
    assert {key for each in operation.notifications for key in each.model_fields_set} == {
        "url_env",
        "secret_block",
        "events",
    }
    assert {key for each in operation.schedules for key in each.model_fields_set} == {"cron", "rrule", "timezone"}


def test_no_stage_and_no_module_of_the_library_knows_the_settings_of_the_operation() -> None:
    named = [
        path for path in (ROOT / "amopo_core").rglob("*.py") if "operation.yaml" in path.read_text(encoding="utf-8")
    ]

    assert "operation" not in (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    assert named == []


@pytest.mark.parametrize("path", ["prefect.yaml", "configs/kubernetes/prefect.yaml"])
def test_a_deployment_names_the_flow_and_its_parameters(path: str) -> None:
    [deployment] = loaded(path)["deployments"]
    module, name = deployment["entrypoint"].rsplit(".", 1)
    flow = getattr(import_module(module), name)
    given = [each.get("parameters", {}) for kind in ("schedules", "triggers") for each in deployment.get(kind, [])]

    assert all(set(parameters) <= set(flow.parameters.properties) for parameters in given)


@pytest.mark.parametrize("path", ["prefect.yaml", "configs/kubernetes/prefect.yaml"])
def test_a_deployment_has_a_schedule_and_hears_of_the_event(path: str) -> None:
    [deployment] = loaded(path)["deployments"]
    [trigger] = deployment["triggers"]

    assert deployment["schedules"]
    assert (trigger["expect"], trigger["match"]) == ([EVENT], {"prefect.resource.id": ANY_WORKSPACE})


def test_the_jobs_template_uses_all_its_variables_and_no_other() -> None:
    used = set(re.findall(r"{{ (\w+) }}", json.dumps(POOL["job_configuration"])))
    declared = set(POOL["variables"]["properties"])
    [deployment] = loaded("configs/kubernetes/prefect.yaml")["deployments"]

    assert used == declared
    assert set(deployment["work_pool"]["job_variables"]) <= declared


def test_the_slurm_worker_serves_the_pool_of_prefect_yaml() -> None:
    script = ROOT / "configs/slurm/worker.sbatch"
    [deployment] = loaded("prefect.yaml")["deployments"]

    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    assert f"AMOPO_POOL:-{deployment['work_pool']['name']}}}" in script.read_text(encoding="utf-8")
