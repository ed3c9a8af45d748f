import subprocess
from pathlib import Path

import pytest

from tasks.git import untracked

RECORDED = {
    "amopo_core/new.py",
    "amopo_core/judges/new.py",
    "configs/accelerate/mine.yaml",
    "data/feedback.dvc",
    "dvc.lock",
    "flows/new.py",
    "models/champion.dvc",
    "my judge.py",
    "reports/base.json",
    "reports/evaluate/report.json",
    "tasks/new.py",
}
NOT_RECORDED = {"amopo_core/notes.txt", "data/my.csv", "models/mine/model.safetensors", "models/tmp1/x", "other.py"}


def test_only_what_a_run_needs_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "--quiet"], check=True)
    for path in map(Path, RECORDED | NOT_RECORDED):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()

    assert set(untracked(judge="my judge.py")) == RECORDED
