"""`amopo data` in a workspace of its own with real git, DVC, a remote and MLflow: looking, forgetting, erasing.

The erasure is killed twice, before the first object goes and after the first batch changed, and completed by the same
command.
"""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from mlflow import MlflowClient

from amopo_core.data.batches import append_batch, batches_of, declared_batches
from amopo_core.data.decisions import rater_digest, read_decisions
from amopo_core.data.reading import Row
from amopo_core.data.tables import text_id
from amopo_core.params_file import override
from amopo_core.redaction import pseudonym
from tests.flow.conftest import DIMENSIONS, Workspace, clone

SOURCE = {
    "rows": "responses",
    "rater": "rater",
    "scores": {name: {"field": name, "scale": [1, 5]} for name in DIMENSIONS},
}
SECRET_PROMPT = "Where does Philomena Quillfeather live nowadays, and since when exactly does she live there?"
SECRET_ANSWER = "Philomena Quillfeather lives at 17 Marmalade Lane, with two parrots and a borrowed cello."
SECRET_REFUSED = "Her telephone number at 17 Marmalade Lane must not be told to anybody who merely asks."
SHARED_ANSWER = "That is nobody's business, so I would rather not say anything about it at all."
SECRETS = (SECRET_PROMPT, SECRET_ANSWER, SECRET_REFUSED)
UNFINISHED = "00/0102030405060708090a0b0c0d0e0f"
UNFINISHED_OBJECTS = (f".dvc/cache/files/md5/{UNFINISHED}", f"../remote/files/md5/{UNFINISHED}")
TOLD_BY = "Bartholomew Inkwell"
INKWELL = "Inkwell answers this in a way of his own, nobody else does."

PIPELINE = """
stages:
  normalize:
    cmd: >-
      exec python -m amopo_core.stages.normalize --feedback data/feedback --decisions data/decisions.jsonl
      --normalized data/normalized --quarantine data/quarantine --report reports/normalize.json
    deps: [data/feedback, data/decisions.jsonl]
    outs: [data/normalized, data/quarantine]
    metrics: [reports/normalize.json: {cache: false}]
  pairs:
    cmd: >-
      exec python -m amopo_core.stages.pairs --normalized data/normalized --pairs data/pairs
      --report reports/pairs.json
    deps: [data/normalized]
    outs: [data/pairs]
    metrics: [reports/pairs.json: {cache: false}]
  evaluate:
    cmd: python samples.py
    deps: [data/pairs]
    outs: [reports/evaluate/candidate.jsonl, reports/evaluate/report.md]
"""
SAMPLES = """
from pathlib import Path
from amopo_core.data.tables import SPLITS, read_pairs
from amopo_core.evaluation.markdown import cell
from amopo_core.evaluation.measurement import Answer, Measurement, write_measurement

pairs = [pair for split in SPLITS for pair in read_pairs(Path("data/pairs") / f"{split}.parquet")]
prompts = {pair.prompt_id: pair.prompt for pair in pairs}
answers = [Answer(name, prompt, "Hm.", 2, True, 0.0, None) for name, prompt in prompts.items()]
write_measurement(Path("reports/evaluate/candidate.jsonl"), Measurement([], answers))
lines = [f"| {turn['role']} | {cell(turn['content'])} |" for prompt in prompts.values() for turn in prompt]
Path("reports/evaluate/report.md").write_text("\\n".join(["# The candidate", "", *lines, ""]))
"""


@dataclass
class Site:
    """The workspace with everything beside it, and the first batch."""

    workspace: Workspace
    batch: str

    @property
    def around(self) -> Path:
        return self.workspace.path.parent

    def row(self, line: int) -> str:
        return f"ratings/{self.batch}:{line}"

    def holds(self, text: str) -> list[str]:
        """The files in the workspace and beside it, code apart, that hold a text; Parquet is unpacked."""
        files = (path for path in self.around.rglob("*") if path.is_file() and ".git" not in path.parts)
        mine = (path for path in files if path.suffix not in (".py", ".pyc"))
        return [str(path.relative_to(self.around)) for path in mine if text in unpacked(path)]


def unpacked(path: Path) -> str:
    content = path.read_bytes()
    if content.startswith(b"PAR1") and content.endswith(b"PAR1"):
        table = pl.read_parquet(io.BytesIO(content))
        return "\n".join(str(value) for column in table.iter_columns() for value in column.to_list())
    return content.decode(errors="replace")


def ratings() -> list[dict[str, Any]]:
    rows = []
    for number in range(40):
        for score, word in ((5, "better"), (1, "worse")):
            response = f"Answer {number} is the {word} one, and it says so at some length."
            rows.append(
                {"prompt": f"Question number {number}, which is about nothing in particular?", "response": response}
            )
            rows[-1] |= {"rater": "Mildred"} | dict.fromkeys(DIMENSIONS, score)
    rows[3]["response"] = SHARED_ANSWER
    secret = {"prompt": SECRET_PROMPT, "rater": "Mildred"}
    rows.append(secret | {"response": SECRET_ANSWER} | dict.fromkeys(DIMENSIONS, 5))
    rows.append(secret | {"response": SHARED_ANSWER} | dict.fromkeys(DIMENSIONS, 1))
    rows.append(secret | {"response": SECRET_REFUSED} | dict.fromkeys(DIMENSIONS, 77))
    told = {"prompt": "Question number 9, which is about nothing in particular?", "rater": TOLD_BY}
    rows.append(told | {"response": INKWELL} | dict.fromkeys(DIMENSIONS, 4))
    return rows


SECRET_LINES = (81, 82, 83)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    workspace = clone(tmp_path_factory.mktemp("data") / "workspace")
    override(workspace.path / "params.yaml", [f"sources={json.dumps({'ratings': SOURCE})}"])
    (workspace.path / "dvc.yaml").write_text(PIPELINE)
    (workspace.path / "samples.py").write_text(SAMPLES)
    feedback = workspace.path / "data/feedback"
    numbered = [Row(line, row) for line, row in enumerate(ratings(), start=1)]
    batch = append_batch(feedback, "ratings", numbered, file="support.jsonl")
    assert batch is not None
    (workspace.path / "data/unrelated").mkdir()
    (workspace.path / "data/unrelated/notes.txt").write_text("nobody's answer")
    run(workspace, "remote", "add", "--default", "store", "../remote")
    run(workspace, "add", "data/feedback", "data/unrelated")
    run(workspace, "repro")
    workspace.git("add", "--all")
    workspace.git("commit", "--quiet", "--message", "First feedback")
    register(workspace, workspace.git("rev-parse", "HEAD").strip())
    again = [Row(1, numbered[0].fields | {"rater": "Maud"}), Row(2, numbered[SECRET_LINES[0] - 1].fields)]
    append_batch(feedback, "ratings", again, file="later.jsonl")
    run(workspace, "add", "data/feedback")
    run(workspace, "repro")
    workspace.git("add", "--all")
    workspace.git("commit", "--quiet", "--message", "More feedback")
    run(workspace, "exp", "save", "--name", "retrain-1")
    run(workspace, "push", "--all-commits")
    yield Site(workspace, batch.name)
    assert not workspace.processes()


def run(workspace: Workspace, *arguments: str) -> str:
    path = f"{Path(sys.executable).parent}:{workspace.env['PATH']}"
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(
        command, cwd=workspace.path, env=workspace.env | {"PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def register(workspace: Workspace, commit: str) -> None:
    """A version with the artifacts that a run of the pipeline leaves, and one whose run has no manifest."""
    client, path = MlflowClient(workspace.store), workspace.path
    experiment = client.create_experiment("amopo", artifact_location=str(path / "mlruns"))
    client.create_registered_model("amopo")
    first, second = (client.create_run(experiment).info.run_id for _ in range(2))
    client.log_artifact(first, str(path / "data/pairs/manifest.parquet"), "data")
    for name in ("candidate.jsonl", "report.md"):
        client.log_artifact(first, str(path / "reports/evaluate" / name), "reports/evaluate")
    model = client.create_logged_model(experiment, name="policy", source_run_id=first)
    example = path.parent / "input_example.json"
    example.write_text(json.dumps([f"<s>user\n{SECRET_PROMPT}</s>"]))
    client.log_model_artifact(model.model_id, str(example))
    example.unlink()
    client.create_model_version("amopo", f"runs:/{first}/policy", first, tags={"commit": commit})
    client.create_model_version("amopo", f"runs:/{second}/policy", second)
    client.set_registered_model_alias("amopo", "champion", "1")


@pytest.fixture(scope="module")
def erased(site: Site) -> tuple[Site, Any]:
    """The site after an erasure that was killed and repeated, and what the repetition said."""
    rows = [argument for line in SECRET_LINES for argument in ("--row", site.row(line))]
    command = ["data", "forget", *rows, "--reason", "asked to", "--erase", "--yes", "--json"]
    batch = site.workspace.path / f"data/feedback/ratings/{site.batch}.parquet"
    before = batch.read_bytes()
    measurement = site.workspace.path / ".amopo/measurements/of-a-comparison.jsonl"
    measurement.parent.mkdir()
    shutil.copy(site.workspace.path / "reports/evaluate/candidate.jsonl", measurement)
    for place in ("workspace/data/normalized", "workspace/.amopo/segments", "workspace/.dvc/cache", "remote"):
        assert any(name.startswith(place) for name in site.holds(SECRET_ANSWER)), place
    showing = (
        "workspace/reports",
        "workspace/.amopo/measurements",
        "workspace/mlruns",
        "workspace/.dvc/cache",
        "remote",
    )
    for place in showing:
        assert any(name.startswith(place) for name in site.holds(SECRET_PROMPT)), place
    leave_unfinished(site)
    keep_a_reproduction(site)
    kill_when((site.workspace.path / ".amopo/erasing.json").exists, site.workspace.start(*command))
    assert batch.read_bytes() == before
    kill_when(lambda: batch.read_bytes() != before, site.workspace.start(*command))
    done = site.workspace.amopo(*command)
    assert done.code == 0, done.err
    return site, done.json


def leave_unfinished(site: Site) -> None:
    """What killed commands leave, and what `dvc add` once made of it."""
    for place in (
        "data/feedback/ratings/batch.parquet.new",
        "data/normalized.new/texts.parquet",
        "data/quarantine.new/rows.jsonl",
        "reports/evaluate/report.md.new",
        ".amopo/tmp0a1b2c3d/ratings/batch.parquet.new",
        *UNFINISHED_OBJECTS,
    ):
        path = site.workspace.path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"PAR1\x15\x04" + SECRET_ANSWER.encode())


def keep_a_reproduction(site: Site) -> None:
    """What `amopo reproduce` leaves where something differs: a worktree with the feedback checked out."""
    kept = site.workspace.path / ".amopo/reproduce/0a1b2c3d4e5f"
    site.workspace.git("worktree", "add", "--quiet", "--detach", str(kept), "HEAD")
    shutil.copytree(site.workspace.path / "data/feedback", kept / "data/feedback")
    assert any(name.startswith("workspace/.amopo/reproduce") for name in site.holds(SECRET_ANSWER))


def kill_when(is_time: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not is_time():
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_batches_are_listed_with_their_file_and_state(site: Site) -> None:
    found = site.workspace.amopo("data", "batches", "--json").json

    assert found["normalized"] is True
    assert [(one["rows"], one["file"], one["state"]) for one in found["batches"]] == [
        (84, "support.jsonl", "in use"),
        (2, "later.jsonl", "in use"),
    ]
    assert found["batches"][0]["refused"] == 1


def test_a_batch_in_use_cannot_be_released(site: Site) -> None:
    done = site.workspace.amopo("data", "release", f"ratings/{site.batch}")

    assert (done.code, done.out) == (2, "")
    assert f"ratings/{site.batch} is in use" in done.err


def test_a_pair_leads_to_file_line_rater_and_versions(site: Site) -> None:
    prompt = text_id([{"role": "user", "content": SECRET_PROMPT}])
    pair = text_id([prompt, *sorted(map(text_id, (SECRET_ANSWER, SHARED_ANSWER)))])

    found = site.workspace.amopo("data", "why", pair, "--json").json

    *of_first, again = found["statements"]
    assert [(said["row"], said["file"], said["rater"]) for said in of_first] == [
        (site.row(81), "support.jsonl", "Mildred"),
        (site.row(82), "support.jsonl", "Mildred"),
    ]
    assert (again["line"], again["file"]) == (2, "later.jsonl")
    first, second = found["versions"]
    assert (first["version"], first["aliases"], sum(first["splits"].values())) == ("1", ["champion"], 2)
    assert first["splits"][found["split"]] == 2
    assert (second["version"], second["splits"]) == ("2", None)
    shown = site.workspace.amopo("data", "why", pair).out
    assert f"{site.row(81)}, line 81 of support.jsonl, Mildred: chosen: helpfulness 5" in shown
    assert "version 2: not known" in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["why", "0123456789abcdef"], "no pair or response 0123456789abcdef"),
        (["release", "ratings/000009-0123456789ab"], "held are: none"),
        (["forget"], "nothing to forget"),
        (["forget", "--row", "ratings/000009-0123456789ab:1"], "there is no batch"),
        (["forget", "--source", "nobody"], "there is some of: ratings"),
        (["forget", "--rater", "Nobody"], "--future"),
        (["forget", "--rater", TOLD_BY, "--erase"], "add --yes"),
    ],
)
def test_what_cannot_be_done_is_said_and_decides_nothing(site: Site, arguments: list[str], said: str) -> None:
    decisions = site.workspace.path / "data/decisions.jsonl"
    before = decisions.read_bytes()

    done = site.workspace.amopo("data", *arguments, through=("setsid", "--wait"))

    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert decisions.read_bytes() == before


def test_an_erased_text_is_nowhere(erased: tuple[Site, Any]) -> None:
    site, _ = erased

    assert [place for text in SECRETS for place in site.holds(text)] == []
    assert len(site.workspace.git("worktree", "list").splitlines()) == 1


def test_neighbours_stay(erased: tuple[Site, Any]) -> None:
    site, _ = erased
    rows = {path: pl.read_parquet(path)["row"] for path in batches_of(site.workspace.path / "data/feedback", "ratings")}

    assert [row.null_count() for row in rows.values()] == [3, 1], "the same row goes from the later batch too"
    assert sum(SHARED_ANSWER in row for row in next(iter(rows.values())) if row) == 1
    assert [batch.rows for batch in declared_batches(site.workspace.path / "data/feedback", ["ratings"])] == [84, 2]
    for folder in ("workspace/data/feedback", "workspace/mlruns", "workspace/.dvc/cache"):
        assert any(name.startswith(folder) for name in site.holds("Question number 7, which")), folder


def test_an_unfinished_batch_is_not_put_into_the_cache(erased: tuple[Site, Any]) -> None:
    site, _ = erased
    pointer, left = (site.workspace.path / "data" / name for name in ("feedback.dvc", "feedback/ratings/x.parquet.new"))
    before = pointer.read_bytes()
    left.write_bytes(b"PAR1")

    run(site.workspace, "add", "data/feedback")
    left.unlink()

    assert pointer.read_bytes() == before


def test_what_is_erased_is_counted(erased: tuple[Site, Any]) -> None:
    site, answer = erased

    assert answer["rows"] == 4
    assert [one["erased"] for one in site.workspace.amopo("data", "batches", "--json").json["batches"]] == [3, 1]
    assert "2 rows, 1 forgotten, 1 erased  from later.jsonl" in site.workspace.amopo("data", "batches").out


def test_samples_keep_their_other_lines(erased: tuple[Site, Any]) -> None:
    site, answer = erased
    (samples,) = (site.workspace.path / "mlruns").rglob("candidate.jsonl")
    (report,) = (site.workspace.path / "mlruns").rglob("report.md")

    assert len(samples.read_text().splitlines()) == 40
    assert report.read_text().count("| user |") == 40
    assert all(name.endswith((".jsonl", ".md", "input_example.json")) for name in answer["erased"]["artifacts"])


def test_the_records_that_are_no_longer_complete_are_named(erased: tuple[Site, Any]) -> None:
    _, answer = erased
    records = answer["erased"]["records"]

    *branch, experiment = records["commits"].values()
    assert branch == ["More feedback", "First feedback"]
    assert experiment.startswith("dvc: commit experiment")
    assert records["versions"] == ["1"]


def test_other_data_are_as_they_were(erased: tuple[Site, Any]) -> None:
    site, _ = erased
    assert "up to date" in run(site.workspace, "status", "data/unrelated.dvc", "data/feedback.dvc")
    (cached,) = (site.workspace.path / ".dvc/cache/files").rglob(md5(site, "data/unrelated/notes.txt")[2:])
    cached.unlink()
    (site.workspace.path / "data/unrelated/notes.txt").unlink()

    run(site.workspace, "pull", "data/unrelated")

    assert (site.workspace.path / "data/unrelated/notes.txt").read_text() == "nobody's answer"


def test_the_pipeline_goes_on_and_a_rater_can_be_erased_too(erased: tuple[Site, Any]) -> None:
    site, _ = erased
    run(site.workspace, "repro")
    rows = json.loads((site.workspace.path / "reports/normalize.json").read_text())["rows"]
    assert rows == {"incoming": 86, "normalized": 82, "held": 0, "forgotten": 4, "quarantined": 0}
    run(site.workspace, "push")
    assert site.holds(TOLD_BY)
    cached = {
        path.parent.name + path.name: unpacked(path)
        for path in (site.workspace.path / ".dvc/cache/files/md5").rglob("??/*")
    }

    done = site.workspace.amopo("data", "forget", "--rater", TOLD_BY, "--erase", "--yes", "--json")

    assert done.code == 0, done.err
    assert done.json["rows"] == 1
    assert set(done.json["erased"]["objects"]) == {"the DVC cache", "the DVC remote store"}
    for name in done.json["erased"]["objects"]["the DVC cache"]:
        assert any(trace in cached[name] for trace in (INKWELL, TOLD_BY, str(int(text_id(INKWELL), 16))))
    assert site.holds(TOLD_BY) == site.holds(INKWELL) == []
    run(site.workspace, "repro")
    run(site.workspace, "push")
    assert site.holds("Question number 9, which")
    assert site.workspace.amopo("data", "forget", "--rater", TOLD_BY, "--erase", "--yes", "--json").json["rows"] == 0


def test_a_rater_whose_name_was_redacted_is_found_by_it(erased: tuple[Site, Any]) -> None:
    site, _ = erased
    rows = [
        Row(line, ratings()[line] | {"rater": name}) for line, name in ((1, pseudonym("mo@example.com")), (2, "Mo"))
    ]
    append_batch(site.workspace.path / "data/feedback", "ratings", rows)

    answer = site.workspace.amopo("data", "forget", "--rater", "mo@example.com", "--json").json

    assert answer["rows"] == 1
    decisions = read_decisions(site.workspace.path / "data/decisions.jsonl")
    assert {rater_digest("mo@example.com"), rater_digest(pseudonym("mo@example.com"))} <= decisions.raters


def test_the_only_source_can_be_erased(erased: tuple[Site, Any]) -> None:
    site, _ = erased

    done = site.workspace.amopo("data", "forget", "--source", "ratings", "--erase", "--yes", "--json")

    assert done.code == 0, done.err
    assert {one["state"] for one in site.workspace.amopo("data", "batches", "--json").json["batches"]} == {"erased"}
    assert site.holds("Question number 7, which") == []


def md5(site: Site, path: str) -> str:
    from hashlib import md5 as digest

    return digest((site.workspace.path / path).read_bytes()).hexdigest()
