import json
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from prefect.logging import disable_run_logger

from tasks.champion import bring_champion
from tasks.registry import MODEL, Version


@pytest.mark.parametrize(
    ("tags", "identity"), [({"policy": "1.dir"}, "1.dir"), ({}, "models:/amopo/1 of run 0a")], ids=["ours", "by hand"]
)
def test_a_clone_without_any_model_gets_the_servers_champion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tags: dict[str, str], identity: str
) -> None:
    registered, clone = tmp_path / "registered", tmp_path / "clone"
    for file in ("model/model.safetensors", "components/tokenizer/tokenizer.json"):
        (registered / file).parent.mkdir(parents=True)
        (registered / file).write_text(file)
    clone.mkdir()
    monkeypatch.chdir(clone)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    client = MlflowClient()
    client.create_registered_model(MODEL)
    number = str(client.create_model_version(MODEL, str(registered)).version)

    with disable_run_logger():
        bring_champion.fn(Version(number, "0a", tags))

    brought = {path.name: path.read_text() for path in (clone / "models/champion").iterdir()}
    assert json.loads(brought.pop("champion.json")) == {"policy": identity}
    assert brought == {
        "model.safetensors": "model/model.safetensors",
        "tokenizer.json": "components/tokenizer/tokenizer.json",
    }
    assert list((clone / ".amopo").iterdir()) == []
