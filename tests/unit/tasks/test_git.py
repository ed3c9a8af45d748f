import subprocess
from pathlib import Path

import pytest

from amopo_core.errors import UserError
from tasks.git import require_known_sources, require_workspace, untracked

SOURCES = {
    "amopo_core/new.py",
    "amopo_core/judges/new.py",
    "configs/accelerate/mine.yaml",
    "flows/new.py",
    "my judge.py",
    "tasks/new.py",
}
RECORDED = {
    "data/feedback.dvc",
    "dvc.lock",
    "models/champion.dvc",
    "reports/base.json",
    "reports/evaluate/report.json",
}
NOT_RECORDED = {"amopo_core/notes.txt", "data/my.csv", "models/mine/model.safetensors", "models/tmp1/x", "other.py"}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "--quiet"], check=True)
    for path in map(Path, RECORDED | NOT_RECORDED):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


@pytest.mark.usefixtures("repository")
def test_only_what_a_run_makes_is_taken_into_its_record() -> None:
    assert set(untracked()) == RECORDED


def test_each_source_that_git_does_not_know_is_refused_until_it_is_added(repository: Path) -> None:
    require_known_sources("my judge.py")
    for path in map(Path, SOURCES):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    with pytest.raises(UserError) as refused:
        require_known_sources("my judge.py")
    subprocess.run(["git", "add", "--all"], cwd=repository, check=True)

    assert all(path in str(refused.value) for path in SOURCES)
    assert not any(path in str(refused.value) for path in NOT_RECORDED | RECORDED)
    require_known_sources("my judge.py")


@pytest.mark.parametrize("name", ["data/inbox", "data/feedback", "reports"])
def test_a_file_where_a_folder_must_be_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for place in ("dvc.yaml", "params.yaml", "amopo_core", name):
        Path(place).parent.mkdir(exist_ok=True)
        Path(place).touch()

    with pytest.raises(UserError, match=f"^{name} is a file where a folder must be: move it away$"):
        require_workspace()
