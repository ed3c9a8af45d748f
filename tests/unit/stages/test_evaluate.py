"""The stages evaluate, evaluate-champion and guardrails as real processes, on policies that know nothing."""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from amopo_core.data.tables import Pair, text_id, write_pairs
from amopo_core.errors import UserError
from amopo_core.evaluation.measurement import read_measurement
from amopo_core.stages import evaluate, evaluate_champion, guardrails

TESTS = Path(__file__).parents[2]
DIMENSIONS = {"help": {"description": "helps", "weight": 1.0}, "true": {"description": "is true", "weight": 1.0}}
JUDGE = """
class Judge:
    def prompts(self, playground, n):
        return [[{"role": "user", "content": f"Held out {place}?"}] for place in range(n)]

    def score(self, prompt, response):
        return {"help": 1 + min(4, len(response) / 5), "true": 1 + len(set(response)) % 5}

JUDGE = Judge()
"""
EVALUATE = {"pairs": "data/pairs", "base": "models/base", "policy": "models/policy"}
GUARDRAILS = {
    "answers": "evaluate/candidate.jsonl",
    "base": "models/base",
    "policy": "models/policy",
    "champion": "models/champion",
}
EVALUATE_CHAMPION = {"pairs": "data/pairs", "champion": "models/champion"}


@dataclass
class Workspace:
    """A folder with pairs, policies, a judge and params.yaml."""

    folder: Path

    def write_params(self, **evaluation: Any) -> None:
        params = YAML(typ="safe").load(TESTS / "params.yaml")
        params["dimensions"] = DIMENSIONS
        params["sources"] = {"web": {"rows": "responses", "scores": {"help": {"field": "help", "scale": [1, 5]}}}}
        params["runtime"] |= {"seed": 0, "threads": 1}
        params["promotion"] |= {"weights": {}, "tolerance": {}, "min_test_prompts": 1, "regression": "regression.jsonl"}
        params["objective"] |= {"weighting": "gaussian", "fixed_weights": {}}
        params["evaluation"] = {
            "judge": "judge.py",
            "prompt_view": "plain",
            "max_new_tokens": 12,
            "temperature": 1.0,
            "max_prompts": 10,
            "batch_size": 8,
            "bootstrap_draws": 200,
            "confidence": 0.9,
        } | evaluation
        with (self.folder / "params.yaml").open("w", encoding="utf-8") as file:
            YAML().dump(params, file)

    def run(self, stage: str, paths: dict[str, str], report: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", f"amopo_core.stages.{stage}", *arguments(paths, report)]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True)

    def files(self, report: str) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.folder / report).iterdir()}


def pair(number: int) -> Pair:
    prompt = [{"role": "user", "content": f"Question {number}?"}]
    better, worse = {"help": 5.0, "true": float(1 + number % 3)}, {"help": 1.0, "true": 2.0}
    return Pair(f"{number:016x}", text_id(prompt), prompt, "Of course. " * (number % 4 + 1), "No!", better, worse)


@pytest.fixture
def workspace(tmp_path: Path, tiny_policy_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path / "data" / "pairs" / "test.parquet", [pair(number) for number in range(20)], list(DIMENSIONS))
    for name in ("base", "policy", "champion"):
        shutil.copytree(tiny_policy_folder, tmp_path / "models" / name)
    (tmp_path / "judge.py").write_text(JUDGE, encoding="utf-8")
    disturb(tmp_path / "models" / "policy")
    workspace = Workspace(tmp_path)
    workspace.write_params()
    return workspace


def disturb(folder: Path) -> None:
    """Another policy: every weight of the final norm a tenth larger."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] * 1.1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def arguments(paths: dict[str, str], report: str) -> list[str]:
    return [part for name, path in (paths | {"report": report}).items() for part in (f"--{name}", path)]


def test_evaluate_writes_the_same_bytes_again(workspace: Workspace):
    first = workspace.run("evaluate", EVALUATE, "first")
    assert first.returncode == 0, first.stderr
    assert "generated 10 of 10 responses" in first.stderr
    assert "ranked 20 of 20 pairs" in first.stderr
    evaluate.main(arguments(EVALUATE, "again"))

    files = workspace.files("first")
    assert set(files) == {"base.jsonl", "candidate.jsonl", "report.json", "report.md", "dimensions.png"}
    assert files == workspace.files("again")
    assert str(workspace.folder).encode() not in b"".join(files.values())

    report = json.loads(files["report.json"])
    assert (report["prompts"], report["pairs"]) == (10, 20)
    assert report["judge/help/candidate"] - report["judge/help/base"] == pytest.approx(
        report["judge/help/difference"], abs=2e-6
    )
    assert files["base.jsonl"] != files["candidate.jsonl"]


def test_a_policy_against_itself_differs_in_nothing(workspace: Workspace):
    evaluate.main(arguments(EVALUATE | {"policy": "models/base"}, "report"))

    report = json.loads(Path("report/report.json").read_text(encoding="utf-8"))
    differences = {key: value for key, value in report.items() if key.endswith(("/difference", "/low", "/high"))}
    assert len(differences) == 3 * 3 * 3
    assert set(differences.values()) == {0}


def test_the_champion_is_measured_as_the_candidate_is(workspace: Workspace):
    evaluate.main(arguments(EVALUATE, "evaluate"))
    evaluate_champion.main(arguments(EVALUATE_CHAMPION | {"champion": "models/policy"}, "champion"))

    assert set(workspace.files("champion")) == {"champion.jsonl", "report.json"}
    assert Path("champion/champion.jsonl").read_bytes() == Path("evaluate/candidate.jsonl").read_bytes()
    compared = json.loads(Path("evaluate/report.json").read_text(encoding="utf-8"))
    alone = json.loads(Path("champion/report.json").read_text(encoding="utf-8"))
    assert alone["judge/help"] == compared["judge/help/candidate"]
    assert alone["accuracy/true"] == compared["accuracy/true/candidate"]


def test_without_a_champion_the_reason_is_written(workspace: Workspace):
    shutil.rmtree("models/champion")
    Path("models/champion").mkdir()
    Path("models/champion/no_champion.json").write_text('{"reason": "this is the first run"}', encoding="utf-8")
    ended = workspace.run("evaluate_champion", EVALUATE_CHAMPION, "report")

    assert ended.returncode == 0, ended.stderr
    assert json.loads(Path("report/report.json").read_text(encoding="utf-8")) == {"skipped": "this is the first run"}
    assert read_measurement(Path("report/champion.jsonl")).answers == []


def test_without_a_judge_the_test_splits_prompts_are_answered(workspace: Workspace):
    Path("judge.py").write_text("JUDGE = None", encoding="utf-8")
    evaluate.main(arguments(EVALUATE, "report"))

    assert "No judge: ranking only." in Path("report/report.md").read_text(encoding="utf-8")
    report = json.loads(Path("report/report.json").read_text(encoding="utf-8"))
    assert not [key for key in report if key.startswith("judge/")]
    assert report["prompts"] == 10


def regression_set(*rows: dict[str, Any]) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    Path("regression.jsonl").write_text(f"# what must not get worse\n{lines}", encoding="utf-8")


def guarded() -> dict[str, Any]:
    guardrails.main(arguments(GUARDRAILS, "guardrails"))
    return json.loads(Path("guardrails/report.json").read_text(encoding="utf-8"))


def test_the_guardrails_hold_the_candidate_against_base_and_champion(workspace: Workspace):
    evaluate.main(arguments(EVALUATE, "evaluate"))
    regression_set({"prompt": "Where is it?"}, {"prompt": [{"role": "user", "content": "Who said so?"}]})
    ended = workspace.run("guardrails", GUARDRAILS, "first")
    assert ended.returncode == 0, ended.stderr
    report = guarded()

    files = workspace.files("guardrails")
    assert files == workspace.files("first")
    assert report["incumbent"] == "champion"
    assert report["kl/base"] == report["kl/champion"] > 0.001
    assert report["regression/prompts"] == 2
    assert {"regression/help/mean", "regression/true/low", "regression/true/high"} <= set(report)
    rows = [json.loads(line) for line in files["divergence.jsonl"].splitlines()]
    tokens = sum(row["tokens"] for row in rows)
    assert report["kl/base"] == pytest.approx(sum(row["base"] for row in rows) / tokens, abs=1e-5)
    answers = read_measurement(Path("evaluate/candidate.jsonl")).answers
    assert [row["prompt_id"] for row in rows] == [answer.prompt_id for answer in answers]
    assert all(row["tokens"] > 0 < row["base"] for row in rows)
    asked = [json.loads(line) for line in files["regression.jsonl"].splitlines()]
    assert [row["prompt"][0]["content"] for row in asked] == ["Where is it?", "Who said so?"]
    assert asked[0]["candidate"]["scores"].keys() == DIMENSIONS.keys()


def test_a_candidate_that_is_its_base_has_not_moved(workspace: Workspace):
    shutil.rmtree("models/policy")
    shutil.copytree("models/base", "models/policy")
    evaluate.main(arguments(EVALUATE, "evaluate"))
    regression_set({"prompt": "Where is it?", "response": "There."})
    report = guarded()

    assert report["kl/base"] == report["kl/champion"] == 0
    assert {report[f"regression/{name}/{part}"] for name in DIMENSIONS for part in ("mean", "low", "high")} == {0}


def test_without_judge_and_champion_the_reference_responses_are_ranked(workspace: Workspace):
    Path("judge.py").write_text("JUDGE = None", encoding="utf-8")
    shutil.rmtree("models/champion")
    Path("models/champion").mkdir()
    Path("models/champion/no_champion.json").write_text('{"reason": "this is the first run"}', encoding="utf-8")
    evaluate.main(arguments(EVALUATE, "evaluate"))
    regression_set({"prompt": "Where is it?", "response": "There."}, {"prompt": "Who?", "response": "Nobody."})
    report = guarded()

    assert report["incumbent"] == "base"
    assert report["unmeasured"] == {"champion": "there is no champion yet"}
    assert report["regression/unit"] == "nats per token"
    rows = [json.loads(line) for line in Path("guardrails/regression.jsonl").read_text().splitlines()]
    gains = [row["candidate"]["reference_logp"] - row["incumbent"]["reference_logp"] for row in rows]
    assert report["regression/reference_responses/mean"] == pytest.approx(sum(gains) / 2, abs=2e-6)


def test_a_champion_of_other_tokens_is_no_measure(workspace: Workspace):
    path = Path("models/champion/tokenizer.json")
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    evaluate.main(arguments(EVALUATE, "evaluate"))
    regression_set()
    report = guarded()

    assert "kl/champion" not in report
    assert report["unmeasured"] == {"champion": "the champion has other tokens than the candidate"}
    assert report["kl/base"] > 0
    assert "regression/prompts" not in report
    assert Path("guardrails/regression.jsonl").read_text() == ""


def missing_policy(workspace: Workspace) -> None:
    shutil.rmtree("models/policy")


def missing_pairs(workspace: Workspace) -> None:
    Path("data/pairs/test.parquet").unlink()


def missing_judge(workspace: Workspace) -> None:
    workspace.write_params(judge="judges/mine.py")


def judge_of_other_dimensions(workspace: Workspace) -> None:
    Path("judge.py").write_text(JUDGE.replace('"true"', '"false"'), encoding="utf-8")


def unknown_prompt_view(workspace: Workspace) -> None:
    workspace.write_params(prompt_view="brevity@5")


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        (missing_policy, "models/policy: expected a folder"),
        (missing_pairs, "data/pairs/test.parquet is not here"),
        (missing_judge, "evaluation.judge: judges/mine.py is no file"),
        (judge_of_other_dimensions, "the judge gives no score for true (it scores help, false)"),
        (unknown_prompt_view, "evaluation.prompt_view: 'brevity@5' is none of"),
    ],
)
def test_a_mistake_is_named_and_nothing_is_written(workspace: Workspace, mistake, said):
    mistake(workspace)
    with pytest.raises(UserError) as refusal:
        evaluate.main(arguments(EVALUATE, "report"))

    assert said in str(refusal.value)
    assert not Path("report").exists()


def test_a_mistake_ends_the_process_with_2_and_no_traceback(workspace: Workspace):
    missing_judge(workspace)
    ended = workspace.run("evaluate", EVALUATE, "report")

    assert ended.returncode == 2
    assert "evaluation.judge: judges/mine.py is no file" in ended.stderr
    assert "Traceback" not in ended.stderr
