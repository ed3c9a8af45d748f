from pathlib import Path

import pytest

from amopo_core.errors import UserError
from amopo_core.params_file import read_params
from tasks.measurements import TEST, is_kept
from tasks.registry import Version

PARAMS = Path(__file__).parents[2] / "params.yaml"


def test_a_judge_that_is_not_there_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = read_params(PARAMS)
    monkeypatch.chdir(tmp_path)
    TEST.parent.mkdir(parents=True)
    TEST.touch()

    with pytest.raises(UserError, match=f"evaluation.judge: {params.evaluation.judge} is not here"):
        is_kept(Version("1", "a", {}), params)
