"""Where an export may be put together."""

from pathlib import Path

import pytest

from amopo_core.errors import UserError
from tasks.export import _beside


def test_it_is_put_together_beside_and_nothing_stays(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "policy"
    with _beside(folder) as scratch:
        assert Path(scratch).parent == folder.parent

    assert list(folder.parent.iterdir()) == []


def test_a_place_that_keeps_no_folders_is_refused() -> None:
    with pytest.raises(UserError, match=r"/proc/policy cannot be made \(No such file or directory\)"):
        _beside(Path("/proc/policy"))
