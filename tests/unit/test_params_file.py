import shutil
from pathlib import Path

import pytest

from amopo_core.config import FolderBase
from amopo_core.errors import UserError
from amopo_core.params_file import override, read_params

ROOT = Path(__file__).parents[2]


@pytest.fixture
def params_file(tmp_path):
    return Path(shutil.copy(ROOT / "params.yaml", tmp_path))


def refused(path, *assignments):
    before = path.read_bytes()
    with pytest.raises(UserError) as caught:
        override(path, assignments)
    assert path.read_bytes() == before
    return str(caught.value)


def line_of(path, text):
    return next(number for number, line in enumerate(path.read_text().splitlines(), 1) if text in line)


def test_the_shipped_file_is_valid():
    params = read_params(ROOT / "params.yaml")

    assert params.view_names == ("all_dimensions", "helpfulness", "correctness", "instruction_following")


def test_an_override_is_written_and_the_rest_of_the_file_stays(params_file):
    before = params_file.read_text().splitlines()
    params = override(params_file, ["train.learning_rate=0.25", "objective.weighting=uniform"])
    after = params_file.read_text().splitlines()

    assert (params.train.learning_rate, params.objective.weighting) == (0.25, "uniform")
    assert read_params(params_file) == params
    assert len([1 for old, new in zip(before, after, strict=True) if old != new]) == 2


def test_an_override_may_choose_another_base(params_file):
    params = override(params_file, ["base={kind: folder, path: models/mine}"])

    assert params.base == FolderBase(kind="folder", path="models/mine")


def test_a_misspelt_key_is_named_with_file_line_and_content(params_file):
    text = params_file.read_text().replace("learning_rate: ", "learning_rat: ", 1)
    params_file.write_text(text)
    with pytest.raises(UserError) as caught:
        read_params(params_file)
    lines = str(caught.value).splitlines()

    number = line_of(params_file, "learning_rat:")
    assert any(
        line.startswith(f"{params_file}:{number}: ") and "learning_rat: no such key; did you mean" in line
        and f"(line: {text.splitlines()[number - 1].strip()})" in line
        for line in lines
    )  # fmt: skip
    assert any("learning_rate: this key is missing" in line for line in lines)


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("train.epochs=many", "train.epochs: Input should be a valid integer   (line: epochs: many)"),
        ("train.epochs=1.5", "train.epochs"),
        ("train.epochs=true", "train.epochs"),
        ("train.warmup_fraction=10", "train.warmup_fraction: Input should be less than 1"),
        (
            "objective.weighting=softmax",
            "objective.weighting: Input should be 'gaussian', 'mean', 'uniform' or 'fixed'",
        ),
        ("objective.weighting=fixed", "weighting `fixed` needs one for each of all_dimensions, helpfulness"),
        (
            "promotion.tolerance.honesty=1",
            "promotion.tolerance.honesty: not among the declared dimensions: helpfulness",
        ),
        ("sources.playground.scores.honesty={field: x, scale: [1, 5]}", "sources.playground.scores.honesty: not among"),
        ("sources.playground.scores.helpfulness.scale=[5, 1]", "expected [lowest, highest] with lowest < highest"),
        ("evaluation.prompt_view=honesty@5", "evaluation.prompt_view: 'honesty@5' is none of"),
        ("evaluation.prompt_view=correctness@6", "evaluation.prompt_view"),
        ("dimensions.all_dimensions={description: x, weight: 1}", "the name belongs to the generic view"),
        ("base={kind: hub, id: a/b, revision: main}", "base.revision"),
        ("base.kind=magic", "base"),
        ("pairs.test_share=0.99", "leave nothing to train on"),
        ("nowhere.key=1", "there is no `nowhere`"),
        ("train.epochs.more=1", "holds a value, not keys"),
        ("train.epochs", "expected section.key=value"),
        ("train.epochs=[1", "the value is not YAML"),
    ],
)
def test_what_is_wrong_is_refused_by_name_and_nothing_is_written(params_file, assignment, said):
    assert said in refused(params_file, assignment)


def test_all_assignments_or_none(params_file):
    assert "train.epochs" in refused(params_file, "train.learning_rate=0.5", "train.epochs=many")


def test_a_file_that_is_none(tmp_path):
    path = tmp_path / "params.yaml"
    with pytest.raises(UserError, match="is not here"):
        read_params(path)
    path.write_text("a: [1\n")
    with pytest.raises(UserError, match=r"params.yaml:\d+: not YAML"):
        read_params(path)
    path.write_bytes(b"a: \xff\n")
    with pytest.raises(UserError, match="not UTF-8"):
        read_params(path)
    path.write_text("- 1\n")
    with pytest.raises(UserError, match="holds no sections"):
        read_params(path)
