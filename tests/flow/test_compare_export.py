"""`amopo compare` and `amopo export`: versions side by side, and one as a checkpoint for other programs."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, AutoTokenizer

from amopo_core.chat import ChatEncoder
from tests.flow.promotions import MODEL, Promotions, here_fixture, made_fixture  # noqa: F401 (fixtures)

pytestmark = pytest.mark.flow

SEVERAL_TURNS = [
    {"role": "user", "content": "Where does it stand?"},
    {"role": "assistant", "content": "Behind the house."},
    {"role": "user", "content": "And since when?"},
]


def test_two_versions_side_by_side_and_measured_once(here: Promotions) -> None:
    first = here.amopo("compare", "2", "champion")
    again = here.amopo("compare", "2", "champion", "--json")

    assert first.code == 0, first.err
    assert [line for line in first.err.splitlines() if line.startswith("measuring")] == [
        "measuring version 2 ...",
        "measuring version 1 ...",
    ]
    assert "version 2" in first.out
    assert again.code == 0, again.err
    assert "measuring" not in again.err
    found = again.json
    assert (found["baseline"], found["candidate"]) == ("2", "1")
    assert set(found["dimensions"]) == {"all_dimensions", "helpfulness", "correctness", "instruction_following"}
    assert found["dimensions"]["all_dimensions"]["difference"]["low"] > 0
    assert found["prompts"] > 0
    picture = here.workspace.path / found["picture"]
    assert picture == here.workspace.path / "reports/compare/2-1.png"
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_champion_measured_for_a_comparison_is_what_its_stage_measured(here: Promotions) -> None:
    """The same numbers as those of the report on version 1, which the run itself wrote."""
    found = here.amopo("compare", "2", "1", "--json").json
    report = json.loads((here.workspace.path / "reports/evaluate/report.json").read_text())

    for name, contrast in found["dimensions"].items():
        assert contrast["candidate"]["mean"] == pytest.approx(report[f"accuracy/{name}/candidate"], abs=1e-6)


def test_an_export_is_loaded_by_transformers_alone_and_is_the_registered_policy(
    here: Promotions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "served" / "policy"
    exported = here.amopo("export", "champion", str(folder), "--json")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    served = mlflow.transformers.load_model(f"models:/{MODEL}/1", return_type="components")

    assert exported.code == 0, exported.err
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "README.md"} <= set(
        exported.json["files"]
    )
    ids = tokenizer.apply_chat_template(SEVERAL_TURNS, add_generation_prompt=True, return_dict=False)
    parts = ChatEncoder(served["tokenizer"]).parts(SEVERAL_TURNS)
    assert ids == parts.fit(parts.text).ids
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    row = torch.tensor([ids])
    assert_close(model(row).logits, served["model"](row).logits, rtol=0, atol=0)
    answers = [each.generate(row, max_new_tokens=12, do_sample=False).tolist() for each in (model, served["model"])]
    assert answers[0] == answers[1]
    tags, card = here.tags("1"), (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert "# AMoPO policy" in card
    assert "Version 1 of the registered model `amopo`" in card
    assert all(f"`{tags[name]}`" in card for name in ("run", "commit", "policy", "data/pairs"))


def test_an_export_takes_a_folder_that_is_empty_and_no_other(here: Promotions, tmp_path: Path) -> None:
    full, empty, file = tmp_path / "full", tmp_path / "empty", tmp_path / "file"
    full.mkdir()
    (full / "mine").write_text("mine")
    empty.mkdir()
    file.write_text("mine")
    for name in ("empty.new", "empty.new.bring"):  # nobody's but the user's
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("mine")
    refused = [here.amopo("export", "1", str(path)) for path in (full, file)]
    taken = here.amopo("export", "1", str(empty))

    assert [each.code for each in refused] == [2, 2]
    assert "is not empty" in refused[0].err
    assert "is a file" in refused[1].err
    assert [path.name for path in full.iterdir()] == ["mine"]
    assert taken.code == 0, taken.err
    assert (empty / "model.safetensors").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "empty.new", "empty.new.bring", "file", "full"]
    assert (tmp_path / "empty.new/mine").read_text() == (tmp_path / "empty.new.bring/mine").read_text() == "mine"
