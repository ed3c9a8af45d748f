"""A copy of a workspace in which one version was promoted, and the commands that move the champion or show it.

Version 2 is the same policy with its weights turned to noise: whatever is compared with it wins. Commands that start no
flow run in this process, which has the libraries loaded.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file, save_file

from flows.cli import exit_status
from tests.flow.conftest import Finished, Workspace

MODEL = "amopo"


@dataclass
class Promotions:
    """The copied workspace, its registry, and its commands in this process."""

    workspace: Workspace
    client: MlflowClient
    capsys: pytest.CaptureFixture[str] | None = None

    def amopo(self, *arguments: str) -> Finished:
        assert self.capsys is not None
        self.capsys.readouterr()
        try:
            code = exit_status(list(arguments))
        except SystemExit as error:
            code = int(str(error.code))
        out, err = self.capsys.readouterr()
        return Finished(code, out, err)

    def served(self) -> str | None:
        """The number of the version that has the alias."""
        number = self.client.get_registered_model(MODEL).aliases.get("champion")
        return None if number is None else str(number)

    def champions(self) -> list[str | None]:
        """The versions of the ledger, one after another."""
        return [row["version"] for row in self.amopo("history", "--json").json["history"]]

    def tags(self, number: str) -> dict[str, str]:
        return dict(self.client.get_model_version(MODEL, number).tags)

    def registered(self, source: Path, **tags: str) -> str:
        """The number of a new version with the tags of version 1 and others."""
        of_first = self.client.get_model_version(MODEL, "1")
        made = self.client.create_model_version(
            MODEL, str(source), of_first.run_id, tags=dict(of_first.tags) | tags, description=of_first.description
        )
        return str(made.version)


@pytest.fixture(name="made", scope="module")
def made_fixture(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Promotions]:
    """A copy of the workspace with a version 2, whose folder lies apart from MLflow's."""
    folder = tmp_path_factory.mktemp("promotions")
    own = workspace.env | {"PREFECT_HOME": str(folder / "prefect")}
    here = Workspace(shutil.copytree(workspace.path, folder / "here"), own)
    here.git("config", "user.name", "Ann Example")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here.path)
        patch.setenv("MLFLOW_TRACKING_URI", here.store)
        mlflow.set_tracking_uri(here.store)
        promotions = Promotions(here, MlflowClient())
        noisy = Path(mlflow.artifacts.download_artifacts(f"models:/{MODEL}/1", dst_path=str(folder / "noisy")))
        weights = load_file(noisy / "model/model.safetensors")
        generator = torch.Generator().manual_seed(0)
        noise = {name: torch.randn(weight.shape, generator=generator) / 50 for name, weight in weights.items()}
        save_file(noise, noisy / "model/model.safetensors", metadata={"format": "pt"})
        promotions.registered(noisy, policy="noise", lock="noise", verdict="not promoted")
        yield promotions


@pytest.fixture(name="here")
def here_fixture(made: Promotions, capsys: pytest.CaptureFixture[str]) -> Promotions:
    """The copied workspace as it began: version 1 is champion by the ledger and by its alias."""
    made.capsys = capsys
    for key in made.client.get_registered_model(MODEL).tags:
        if not key.startswith("ledger.000001."):
            made.client.delete_registered_model_tag(MODEL, key)
    for version in made.client.search_model_versions(f"name = '{MODEL}' and tags.verdict = 'awaiting approval'"):
        made.client.set_model_version_tag(MODEL, version.version, "verdict", "rejected")
    made.client.set_registered_model_alias(MODEL, "champion", "1")
    return made
