import shutil
from pathlib import Path

import pytest

from amopo_core.config import FolderBase
from amopo_core.errors import UserError
from amopo_core.params_file import read_params
from amopo_core.preflight import check_inputs

ROOT = Path(__file__).parents[2]


@pytest.fixture
def params(tmp_path, monkeypatch):
    """The tests' parameters in a folder that holds what they name."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    (tmp_path / "judge.py").write_text("JUDGE = None\n")
    (tmp_path / "redactor.py").write_text("REDACT = None\n")
    monkeypatch.chdir(tmp_path)
    Path("regression.jsonl").touch()
    monkeypatch.delenv("AMOPO_LAUNCH", raising=False)
    given = read_params(ROOT / "tests" / "params.yaml")
    sections = {
        "evaluation": given.evaluation.model_copy(update={"judge": "judge.py"}),
        "promotion": given.promotion.model_copy(update={"regression": "regression.jsonl"}),
        "ingestion": given.ingestion.model_copy(update={"redactor": "redactor.py"}),
    }
    return given.model_copy(update=sections)


def test_everything_is_there(params, tiny_policy_folder):
    check_inputs(params)
    check_inputs(params.model_copy(update={"base": FolderBase(kind="folder", path=str(tiny_policy_folder))}))


def test_a_judge_that_is_not_there(params):
    Path("judge.py").unlink()
    with pytest.raises(UserError, match=r"evaluation.judge: judge.py is no file"):
        check_inputs(params)


def test_a_regression_set_that_is_not_there_or_cannot_be_measured(params):
    Path("judge.py").write_text("JUDGE = None", encoding="utf-8")
    Path("regression.jsonl").write_text('{"prompt": "Why?"}', encoding="utf-8")
    with pytest.raises(UserError, match=r'regression.jsonl:1: has no "response"'):
        check_inputs(params)
    Path("regression.jsonl").unlink()
    with pytest.raises(UserError, match=r"regression.jsonl:1: cannot be read .*promotion.regression names a file"):
        check_inputs(params)


def test_a_redactor_that_is_not_there(params):
    Path("redactor.py").unlink()
    with pytest.raises(UserError, match=r"ingestion.redactor: redactor.py is no file"):
        check_inputs(params)


def test_a_starting_policy_that_is_none(params):
    Path("empty").mkdir()
    for path, said in (("nowhere", "found nothing"), ("empty", "has no config.json")):
        with pytest.raises(UserError, match=rf"params.yaml: base.path: {path}.*{said}; name a folder with config.json"):
            check_inputs(params.model_copy(update={"base": FolderBase(kind="folder", path=path)}))


def test_a_launch_file_that_is_not_there(params, monkeypatch):
    monkeypatch.setenv("AMOPO_LAUNCH", "nowhere.yaml")
    with pytest.raises(UserError, match=r"AMOPO_LAUNCH: nowhere.yaml is not here"):
        check_inputs(params)
