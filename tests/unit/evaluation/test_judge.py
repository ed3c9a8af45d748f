from pathlib import Path

import pytest

from amopo_core.errors import UserError
from amopo_core.evaluation.judge import load_judge

JUDGE = """
from __future__ import annotations
from dataclasses import dataclass

@dataclass
class Length:
    longest: float
    def prompts(self, playground, n): return []
    def score(self, prompt, response): return {"length": min(5.0, 1 + len(response) / self.longest)}

JUDGE = Length(10)
"""


@pytest.fixture(autouse=True)
def project(tmp_path, monkeypatch):
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_the_judge_of_a_file_scores(project):
    (project / "mine.py").write_text(JUDGE)

    assert load_judge(Path("mine.py")).score([], "x" * 20) == {"length": 3.0}


def test_a_judge_may_be_none(project):
    (project / "none.py").write_text("JUDGE = None")

    assert load_judge(Path("none.py")) is None


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = 1", "defines no JUDGE"),
        ("JUDGE = 'strict'", "JUDGE of bad.py is str, which is no judge"),
        ("class J:\n    def score(self, prompt, response): return {}\nJUDGE = J()", "is J, which is no judge"),
        ("class J:\n    def score(self, p, r): ...\n    def prompts(self, p, n): ...\nJUDGE = J", "is the class J"),
        ("JUDGE = (", "bad.py does not load: SyntaxError"),
        ("import nothing_of_this_name", "bad.py does not load: ModuleNotFoundError"),
        ("JUDGE = 1 / 0", "bad.py does not load: ZeroDivisionError"),
    ],
)
def test_a_file_without_a_judge_is_refused(project, code, message):
    (project / "bad.py").write_text(code)

    with pytest.raises(UserError, match=message):
        load_judge(Path("bad.py"))


def test_a_missing_file_is_refused():
    with pytest.raises(UserError, match=r"evaluation\.judge: gone\.py is no file"):
        load_judge(Path("gone.py"))


def test_another_kind_of_file_is_refused(project):
    (project / "judge.txt").write_text(JUDGE)
    with pytest.raises(UserError, match="no Python file"):
        load_judge(Path("judge.txt"))


@pytest.mark.parametrize("absolute", [True, False])
def test_a_path_that_leaves_the_project_is_refused(project, absolute):
    outside = project.parent / "outside.py"
    outside.write_text(JUDGE)

    with pytest.raises(UserError, match="leaves the project's folder"):
        load_judge(outside if absolute else Path("../outside.py"))


def test_a_link_that_leaves_the_project_is_refused(project):
    (project.parent / "outside.py").write_text(JUDGE)
    (project / "link.py").symlink_to("../outside.py")

    with pytest.raises(UserError, match="leaves the project's folder"):
        load_judge(Path("link.py"))
