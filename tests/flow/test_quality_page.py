"""The quality report in a real browser: it is seen, it asks nobody for anything, it fits a narrow window and paper."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from amopo_core.config import Quality
from amopo_core.quality.inputs import open_inputs
from amopo_core.quality.measure import measure
from amopo_core.stages.quality import write_report
from tests.flow.browser import CHROMIUM, NOBODY, QUIET, needs_chromium
from tests.unit.quality.generated import Feedback, write

QUALITY = Quality(sample_rows=1000, similarity=0.8, amber_drift=0.1, red_drift=0.25)

pytestmark = needs_chromium


def browse(page: Path, folder: Path, *options: str) -> str:
    """What a fresh browser prints of the page."""
    assert CHROMIUM is not None, "CI needs chromium: apt-get install chromium"
    command = [CHROMIUM, *QUIET, NOBODY, f"--user-data-dir={folder / 'browser'}", *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    write(Feedback(), folder)
    inputs = open_inputs(folder / "data/normalized", folder / "data/pairs", folder / "reports/normalize.json")
    write_report(measure(inputs, QUALITY), QUALITY, folder / "reports/quality")
    return folder / "reports/quality/report.html"


def test_the_browser_reads_the_whole_page(page: Path, tmp_path: Path) -> None:
    dom = browse(page, tmp_path, "--dump-dom")
    assert dom.count("<h2>") == 10
    assert dom.count("<img") == 6
    assert "<script" not in dom


@pytest.mark.parametrize(("width", "height"), [(1200, 1600), (400, 1600)])
def test_the_page_is_seen(page: Path, tmp_path: Path, width: int, height: int) -> None:
    """The verdict's lights are there in their colours, and much of the page is neither blank nor one colour."""
    picture = tmp_path / "seen.png"
    browse(page, tmp_path, f"--window-size={width},{height}", f"--screenshot={picture}")
    seen = np.rint(imread(picture)[:, :, :3] * 255).astype(int)
    assert seen.shape[:2] == (height, width)
    for light in ((211, 239, 226), (255, 231, 176), (251, 208, 200)):
        assert (seen == light).all(axis=2).sum() > 500
    assert len(np.unique(seen.reshape(-1, 3), axis=0)) > 50
    inked = (seen < 240).any(axis=(1, 2)).reshape(-1, 100).any(axis=1)
    assert inked.all()


def asked(page: Path, folder: Path) -> set[str]:
    """The addresses that the page asked for; what the browser itself wants to know has no origin."""
    log = folder / "net.json"
    browse(page, folder, f"--log-net-log={log}", "--dump-dom")
    said = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    urls = {params["url"] for params in said if "url" in params and params.get("initiator", _NONE) != _NONE}
    return {url for url in urls if not url.startswith(("file:", "data:"))}


_NONE = "not an origin"


def test_the_page_asks_nobody_for_anything(page: Path, tmp_path: Path) -> None:
    talkative = tmp_path / "talkative.html"
    talkative.write_text("<img src='http://pictures.example/x.png'>")
    assert asked(talkative, tmp_path) == {"http://pictures.example/x.png"}
    assert asked(page, tmp_path) == set()


def test_it_can_be_printed(page: Path, tmp_path: Path) -> None:
    paper = tmp_path / "paper.pdf"
    browse(page, tmp_path, f"--print-to-pdf={paper}")
    assert paper.read_bytes().startswith(b"%PDF") and paper.stat().st_size > 50_000
