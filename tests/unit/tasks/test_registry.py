"""Both kinds of policy, registered in a real store, loaded back, and brought as champion."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
import torch
from mlflow import MlflowClient
from prefect.logging import disable_run_logger
from torch.testing import assert_close

from amopo_core.adapter import with_adapter, write_pointer
from amopo_core.config import Adapter
from amopo_core.data.tables import Pair, write_pairs
from amopo_core.evaluation.comparison import Comparison, compare
from amopo_core.evaluation.measurement import Measurement, RankedPair
from amopo_core.params_file import read_params
from amopo_core.policy import load_policy, save_policy
from tasks.champion import bring_champion
from tasks.export import whole_card
from tasks.registry import ADAPTER, BASE, CHAMPION, MODEL, POLICY, register
from tasks.tracking import tracked_run

PARAMS = read_params(Path(__file__).parents[2] / "params.yaml")
BASE_FOLDER = Path("models/base")
IDS = torch.tensor([[5, 9, 30, 7]])


@pytest.fixture
def project(tiny_policy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(tiny_policy_folder, tmp_path / BASE_FOLDER)
    scores = [dict.fromkeys(PARAMS.dimensions, score) for score in (5.0, 2.0)]
    pair = Pair("a", "p", [{"role": "user", "content": "why?"}], "yes", "no", *scores)
    write_pairs(tmp_path / "data/pairs/test.parquet", [pair], list(PARAMS.dimensions))
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    return tmp_path


def test_what_registering_needs_is_imported_in_the_background(tmp_path: Path) -> None:
    """In a process of its own, which has imported nothing of it yet; what fails is said where it is used."""
    (tmp_path / "broken.py").write_text("raise RuntimeError")
    look = "import sys; from tasks import registry; needed = ('torch', 'mlflow.transformers'); "
    told = "print([name in sys.modules for name in needed]); "
    script = f"{look}{told}registry._TO_REGISTER += ('broken',); registry.import_ahead().join(); {told}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)

    assert done.stdout.splitlines() == ["[False, False]", "[True, True]"]
    assert "Traceback" not in done.stderr


def publish_plain() -> None:
    """With a chat template as long as those of some models: more than MLflow's database takes in a description."""
    policy = load_policy(BASE_FOLDER)
    policy.tokenizer.chat_template += f"{{# {'x' * 6000} #}}"
    with torch.no_grad():
        policy.model.model.norm.weight.mul_(1.5)
    save_policy(policy, POLICY)


def publish_adapter() -> None:
    policy = load_policy(BASE_FOLDER)
    model = with_adapter(policy.model, Adapter(rank=4), seed=0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    model.save_pretrained(POLICY)
    policy.tokenizer.save_pretrained(POLICY)
    write_pointer(POLICY, BASE_FOLDER)


def comparison() -> Comparison:
    gaps = dict.fromkeys(PARAMS.dimensions, 3.0)
    measured = Measurement([RankedPair("a", "p", -1.0, -2.0, gaps, 0)], [])
    return compare(measured, measured, PARAMS)


def generated(policy) -> list[int]:
    return policy.generate(IDS, max_new_tokens=12, do_sample=False)[0].tolist()


@pytest.mark.parametrize("publish", [publish_plain, publish_adapter])
def test_a_registered_policy_answers_as_the_published_one(project: Path, publish) -> None:
    publish()
    published = load_policy(POLICY).model
    with tracked_run() as run, disable_run_logger():
        version = register.fn(run, PARAMS, comparison(), {"lock": "l", "policy": "1.dir", "data/pairs": "2.dir"})
    MlflowClient().set_registered_model_alias(MODEL, CHAMPION, version.number)
    if publish is publish_plain:
        description = MlflowClient().get_model_version(MODEL, version.number).description
        assert len(description) <= 5000
        assert "Left out here: Use; the whole card is the artifact model_card.md." in description
        assert "x" * 6000 in whole_card(version)
    shutil.rmtree(BASE_FOLDER)  # whatever becomes of today's base, the champion stays what it was
    shutil.rmtree(POLICY)

    served = mlflow.transformers.load_model(f"models:/{MODEL}@{CHAMPION}", return_type="components")["model"]
    assert_close(served(IDS).logits, published(IDS).logits, rtol=0, atol=0)
    assert generated(served) == generated(published)
    with disable_run_logger():
        bring_champion.fn(version)
    champion = load_policy(Path("models/champion")).model
    assert_close(champion(IDS).logits, published(IDS).logits, rtol=0, atol=0)


def test_a_version_of_adapters_says_which_base_it_is_pinned_to(project: Path) -> None:
    publish_adapter()
    files = {path.name: path.read_bytes() for path in POLICY.iterdir()}
    pointer = json.loads(files["base.json"])
    with tracked_run() as run, disable_run_logger():
        version = register.fn(run, PARAMS, comparison(), {"lock": "l", "policy": "1.dir", "data/pairs": "2.dir"})

    assert mlflow.models.get_model_info(version.uri).metadata[BASE] == pointer
    kept = Path(mlflow.artifacts.download_artifacts(run_id=run, artifact_path=ADAPTER))
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == files
