import shutil
from pathlib import Path

import pytest

from amopo_core.config import FolderBase
from amopo_core.errors import UserError
from amopo_core.params_file import override, read_params

TESTS = Path(__file__).parents[1]


@pytest.fixture
def params_file(tmp_path):
    return Path(shutil.copy(TESTS / "params.yaml", tmp_path))


def refused(path, *assignments):
    before = path.read_bytes()
    with pytest.raises(UserError) as caught:
        override(path, assignments)
    assert path.read_bytes() == before
    return str(caught.value)


def line_of(path, text):
    return next(number for number, line in enumerate(path.read_text().splitlines(), 1) if text in line)


def test_an_override_is_written_and_the_rest_of_the_file_stays(params_file):
    before = params_file.read_text().splitlines()
    params = override(params_file, ["train.learning_rate=0.25", "objective.weighting=uniform"])
    after = params_file.read_text().splitlines()

    assert (params.train.learning_rate, params.objective.weighting) == (0.25, "uniform")
    assert read_params(params_file) == params
    assert len([1 for old, new in zip(before, after, strict=True) if old != new]) == 2


def test_windows_line_ends_are_read_and_stay(params_file):
    params_file.write_bytes(params_file.read_bytes().replace(b"\n", b"\r\n"))
    params = override(params_file, ["train.epochs=7"])
    written = params_file.read_bytes()

    assert read_params(params_file) == params
    assert b"\r\n  epochs: 7\r\n" in written
    assert written.count(b"\n") == written.count(b"\r\n") == (TESTS / "params.yaml").read_bytes().count(b"\n")


def test_without_assignments_the_file_stays_as_it_is_laid_out(params_file):
    """The bytes and the file itself: another spacing, a folded text, no line end at the end."""
    text = params_file.read_text().replace("  epochs: 1\n", "  epochs:    1  \n").rstrip("\n")
    text = text.replace("description: states the facts as they are", "description: states the\n      facts as they are")
    params_file.write_text(text)
    before = params_file.stat()

    assert override(params_file, []).dimensions["correctness"].description == "states the facts as they are"
    assert (params_file.read_text(), params_file.stat().st_ino) == (text, before.st_ino)


def test_without_assignments_the_file_is_still_checked(params_file):
    params_file.write_text(params_file.read_text().replace("  epochs: 1\n", "  epochs: many\n"))

    assert "train.epochs: Input should be a valid integer" in refused(params_file)


def test_what_a_check_refuses_is_not_written(params_file):
    def check(params):
        raise UserError(f"{params.evaluation.judge} is no file")

    before = params_file.read_bytes()
    for assignments in ([], ["evaluation.judge=no/such.py"]):
        with pytest.raises(UserError, match=r"\.py is no file"):
            override(params_file, assignments, check)
    assert params_file.read_bytes() == before


def test_an_override_leaves_long_lines_long(params_file):
    long = "gives " + "very " * 40 + "much help"
    text = params_file.read_text().replace("gives the extra help that the asker can use", long)
    params_file.write_text(text)
    override(params_file, ["train.epochs=2"])

    assert params_file.read_text() == text.replace("  epochs: 1\n", "  epochs: 2\n")


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
        ("train.epochs=many", "train.epochs: Input should be a valid integer"),
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
        (
            "train.learning_rat=1",
            "--set train.learning_rat=1: train.learning_rat: no such key; did you mean learning_rate?",
        ),
        ("train.adapter.rank=0", "--set train.adapter.rank=0: train.adapter.rank: Input should be greater than"),
        ("train.adapter={rank: 4, alpa: 3}", "train.adapter.alpa: no such key; did you mean alpha?"),
        ("nowhere.key=1", "there is no `nowhere` in the parameter file"),
        ("objektive.beta=1", "there is no `objektive` in the parameter file; did you mean objective?"),
        ("epochs=3", "epochs: no such key; did you mean train.epochs?"),
        ("train.epochs.more=1", "holds a value, not keys"),
        ("train.epochs", "expected section.key=value"),
        ("objective=3", "--set objective=3: objective: a section with keys of its own belongs here, and 3 stands here"),
        ("train.epochs=[1", "the value is not YAML"),
        ("train.epochs=\x07", "the value is not YAML: the control character U+0007"),
        ("train.epochs=2020-13-45", "the value is not YAML: a value cannot be read: month must be in 1..12"),
        ("train.epochs=" + "[" * 2000, "the value is not YAML: a value cannot be read"),
        ("train.epochs=2020-01-01", "train.epochs: Input should be a valid integer"),
        ("train.epochs=!!binary aGk=", "train.epochs: Input should be a valid integer"),
        ("train.epochs=!mine 1", "train.epochs: Input should be a valid integer"),
        ("train.epochs=&a [*a]", "train.epochs: Input should be a valid integer"),
        ("promotion.tolerance=!!set {a, b}", "promotion.tolerance: Input should be a valid dictionary"),
        ("promotion.tolerance={1: 2}", "promotion.tolerance.1: Input should be a valid string"),
        ("dimensions.1st={description: x, weight: 1}", "dimensions.1st: String should match pattern"),
        ("train.learning_rate=.inf", "train.learning_rate: Input should be a finite number"),
        ("objective.beta=.nan", "objective.beta: Input should be a finite number"),
        ("dimensions.correctness.weight=1e999", "dimensions.correctness.weight: Input should be a finite number"),
        ("sources.playground.scores.helpfulness.scale=[0, .inf]", "helpfulness.scale.1: Input should be a finite"),
        ("sources.playground.rows=lines", "sources.playground.rows: Input should be 'responses', 'pairs', "),
        ("base={kind: folder}", "base.path: this key is missing"),
        ("base={kind: playground, path: x}", "base.path: no such key"),
        ("pairs.order_by=1", "pairs.order_by: Input should be 'dimensions' or 'overall'"),
    ],
)
def test_what_is_wrong_is_refused_by_name_and_nothing_is_written(params_file, assignment, said):
    assert said in refused(params_file, assignment)


def test_a_section_that_is_empty_takes_a_key(params_file):
    assert override(params_file, ["train.adapter.rank=4"]).train.adapter.rank == 4
    assert override(params_file, ["train.adapter.dropout=0.5", "train.epochs=1"]).train.adapter.rank == 4


def test_what_an_assignment_spoils_elsewhere_is_named_with_the_file(params_file):
    assert refused(params_file, "train.epochs=1", "objective.weighting=fixed").startswith(f"{params_file}")


def test_a_weight_for_each_view_must_leave_something_to_weigh(params_file):
    weights = "{all_dimensions: 0, helpfulness: 0, correctness: 0.0, instruction_following: 0}"
    said = refused(params_file, f"objective.fixed_weights={weights}", "objective.weighting=fixed")

    assert "objective.fixed_weights: every weight is 0; at least one must be above" in said


def test_all_assignments_or_none(params_file):
    assert "train.epochs" in refused(params_file, "train.learning_rate=0.5", "train.epochs=many")


def test_a_file_that_is_none(tmp_path):
    path = tmp_path / "params.yaml"
    with pytest.raises(UserError, match="is not here"):
        read_params(path)
    path.write_text("a: [1\n")
    with pytest.raises(UserError, match=r"params.yaml:\d+: not YAML"):
        read_params(path)
    path.write_text("a: 1\nb:\n  c: 1\n  c: 2\n")
    with pytest.raises(UserError, match=r'params.yaml:4: not YAML: found duplicate key "c"'):
        read_params(path)
    path.write_bytes(b"a: 1\r\nb: \x07\r\n")
    with pytest.raises(UserError, match=r"params.yaml:2: not YAML: the control character U\+0007; remove it"):
        read_params(path)
    path.write_bytes(b"a: \xff\n")
    with pytest.raises(UserError, match="not UTF-8"):
        read_params(path)
    path.write_text("- 1\n")
    with pytest.raises(UserError, match="holds no sections"):
        read_params(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match="is a folder"):
        read_params(path)
