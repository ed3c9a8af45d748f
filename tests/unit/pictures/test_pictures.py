from pathlib import Path

import matplotlib
import pytest

from amopo_core.evaluation.bootstrap import Interval
from amopo_core.evaluation.comparison import JUDGE_SCORE, Comparison, Contrast
from amopo_core.pictures.comparison import draw_comparison
from amopo_core.pictures.training import draw_training

VIEWS = ("all_dimensions", "helpfulness", "instruction_following")


def history(steps: int, validation: bool = True) -> list[dict[str, float]]:
    rows = []
    for step in range(1, steps + 1):
        rows.append({"step": step, "loss": 1 / step, "grad_norm": 1.0, "learning_rate": 1e-4})
        for metric in ("rewards/margins", "rewards/accuracies", "weights"):
            rows[-1] |= {f"{metric}/{view}": step / (place + 2) for place, view in enumerate(VIEWS)}
        if validation:
            rows.append({"step": step} | {f"validation/rewards/accuracies/{view}": 0.5 for view in VIEWS})
    return rows


def comparison(*, measured: bool = True) -> Comparison:
    side = Interval(3.0, 2.8, 3.2)
    contrast = Contrast(side, side, Interval(0.1, -0.1, 0.3))
    return Comparison(JUDGE_SCORE, 9, {"helpfulness": contrast, "brevity": contrast if measured else None}, contrast)


def chunks(png: bytes) -> list[bytes]:
    """The names of a PNG file's chunks."""
    names, place = [], 8
    while place < len(png):
        names.append(png[place + 4 : place + 8])
        place += 12 + int.from_bytes(png[place : place + 4], "big")
    return names


def test_pictures_hold_nothing_but_the_picture(tmp_path: Path):
    draw_training(history(3), tmp_path / "new")
    draw_comparison(comparison(), "base", "candidate", tmp_path / "new" / "dimensions.png")

    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["curves.png", "dimensions.png", "weights.png"]
    for path in (tmp_path / "new").iterdir():
        assert set(chunks(path.read_bytes())) <= {b"IHDR", b"pHYs", b"IDAT", b"IEND"}


def test_the_same_numbers_give_the_same_bytes_whatever_matplotlibs_settings(tmp_path: Path):
    draw_training(history(3), tmp_path / "a")
    with matplotlib.rc_context({"lines.linewidth": 9, "savefig.dpi": 50, "font.size": 30}):
        draw_training(history(3), tmp_path / "b")
    draw_training(history(4), tmp_path / "c")

    for name in ("curves.png", "weights.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        assert (tmp_path / "a" / name).read_bytes() != (tmp_path / "c" / name).read_bytes()


@pytest.mark.parametrize("rows", [[], history(1), history(2, validation=False), [{"step": 1, "train_loss": 0.3}]])
def test_a_short_history_can_be_drawn(tmp_path: Path, rows):
    draw_training(rows, tmp_path)

    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_a_dimension_that_was_not_measured_is_left_out(tmp_path: Path):
    draw_comparison(comparison(), "base", "candidate", tmp_path / "both.png")
    draw_comparison(comparison(measured=False), "base", "candidate", tmp_path / "one.png")

    height = {path.name: int.from_bytes(path.read_bytes()[20:24], "big") for path in tmp_path.iterdir()}
    assert height["one.png"] < height["both.png"]


def test_nothing_measured_can_be_drawn(tmp_path: Path):
    draw_comparison(Comparison(JUDGE_SCORE, 0, {"brevity": None}, None), "base", "candidate", tmp_path / "none.png")

    assert (tmp_path / "none.png").is_file()
