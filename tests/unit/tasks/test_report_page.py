from pathlib import Path

import pytest

from amopo_core.promotion import Verdict
from tasks.registry import Version
from tasks.report_page import report_page

VERSION = Version("2", "0a1b2c", {})
NO = Verdict(False, ("correctness -0.120 [-0.300, +0.010]: worse than its tolerance of 0",))
PICTURE = b"\x89PNG of a picture"
INLINE = "data:image/png;base64,iVBORyBvZiBhIHBpY3R1cmU="


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("evaluate/dimensions.png", "train/curves.png"):
        (tmp_path / "reports" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "reports" / name).write_bytes(PICTURE)
    report = tmp_path / "reports/evaluate/report.md"
    report.write_text("# Report\n\n![bars](dimensions.png)\n![lost](lost.png)\n")
    return report


def test_the_page_has_verdict_reasons_report_and_every_picture_in_it(
    report: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hunter2@127.0.0.1:5000/")
    page = report_page(report, VERSION, NO)

    assert page.startswith("# models:/amopo/2: the verdict is no\n\n- correctness -0.120")
    assert "[version 2](http://127.0.0.1:5000/#/models/amopo/versions/2), run 0a1b2c." in page
    assert f"# Report\n\n![bars]({INLINE})\n![lost](lost.png)\n" in page
    assert page.endswith(f"## Training\n\n![curves]({INLINE})\n")


def test_without_a_server_there_is_nothing_to_link_to(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")

    assert "In MLflow: model amopo, version 2, run 0a1b2c." in report_page(report, VERSION, NO)
