import json

from amopo_core.data.tables import read_pairs, read_rated

SCORES = {"help": {"field": "help", "scale": [1, 5]}, "true": {"field": "true", "scale": [0, 10]}}
OUTPUTS = ("data/normalized", "data/quarantine", "data/pairs", "reports")


def outputs(workspace):
    return {name: content for name, content in workspace.files().items() if name.startswith(OUTPUTS)}


def test_feedback_becomes_pairs(workspace, feedback):
    """Help 2, 3, 4 stays, true 3, 2, 1 of 0..10 becomes 2.2, 1.8, 1.4: means 2.1, 2.4, 2.7, so later is better."""
    workspace.ingest(feedback)
    normalized, paired = workspace.run("normalize"), workspace.run("pairs")

    assert (normalized.returncode, paired.returncode) == (0, 0), normalized.stderr + paired.stderr
    assert normalized.stderr == "120 rows: 120 rated responses to 40 prompts\n"
    pairs = {
        split: read_pairs(workspace.folder / f"data/pairs/{split}.parquet") for split in ("train", "validation", "test")
    }
    assert sum(map(len, pairs.values())) == 120
    assert all(pair.chosen > pair.rejected for split in pairs.values() for pair in split)
    report = json.loads((workspace.folder / "reports/pairs.json").read_text())
    assert {split: report[split]["pairs"] for split in pairs} == {split: len(rows) for split, rows in pairs.items()}
    assert report["train"]["conflicting_share"] == 1.0
    prompts = [{pair.prompt_id for pair in split} for split in pairs.values()]
    assert sum(map(len, prompts)) == len(set.union(*prompts)) == 40


def test_scores_alone_order_a_rated_pair(workspace, feedback):
    """Whatever the row calls chosen: the first response, help 2 and true 2.2, stays below the third, 4 and 1.4."""
    workspace.write_params(sources={"web": {"rows": "pairs", "scores": SCORES}})
    prompts = [feedback[place : place + 3] for place in range(0, len(feedback), 3)]
    workspace.ingest([{"prompt": worst["prompt"], "chosen": worst, "rejected": best} for worst, _, best in prompts])
    normalized, paired = workspace.run("normalize"), workspace.run("pairs")

    assert (normalized.returncode, paired.returncode) == (0, 0), normalized.stderr + paired.stderr
    pairs = read_pairs(workspace.folder / "data/pairs/train.parquet")
    assert {(pair.chosen, pair.rejected) for pair in pairs} == {("response 2", "response 0")}


def test_outputs_are_the_same_bytes_when_repeated(workspace, feedback):
    workspace.ingest(feedback)
    runs = []
    for _ in range(2):
        workspace.run("normalize")
        workspace.run("pairs")
        runs.append(outputs(workspace))

    assert len(runs[0]) == 7
    assert runs[0] == runs[1]
    assert not any(str(workspace.folder).encode() in content for content in runs[0].values())


def test_the_report_tells_what_became_of_every_row(workspace, feedback):
    again = [feedback[0], feedback[0] | {"help": 4}]
    workspace.ingest([*feedback[:3], {"prompt": "no response", "help": 1}])
    workspace.ingest([*again, feedback[1] | {"help": "3", "true": None}])
    workspace.ingest(feedback, source="other")

    ran = workspace.run("normalize")

    assert ran.returncode == 0
    assert "1 rows refused, each with its reason in data/quarantine/rows.jsonl" in ran.stderr
    report = json.loads((workspace.folder / "reports/normalize.json").read_text())
    assert report["rows"] == {"incoming": 7, "normalized": 6, "quarantined": 1}
    assert report["sources"]["web"] == {
        "incoming": 7,
        "normalized": 6,
        "quarantined": {"no_response": 1},
        "duplicates": 1,
        "numeric_strings": 1,
        "unrated": 1,
    }
    assert report["undeclared_batches"] == {"other": 1}
    # Help of the first response: 2 and 4, each 1 from their mean 3, half the scale is 2: 0.5; true agrees: 1.
    assert report["agreement"] == {"responses": 2, "mean": (0.75 + 1.0) / 2}
    first = read_rated(workspace.folder / "data/normalized/responses.parquet")
    assert sorted(rated.scores["help"] for rated in first) == [3.0, 3.0, 4.0]


def test_a_dimension_that_no_row_has_is_said(workspace, feedback):
    workspace.ingest([{**row, "true": None} for row in feedback])

    ran = workspace.run("normalize")

    assert ran.returncode == 0
    assert "no response has a score for true; is its field in params.yaml, sources, spelt as in the rows?" in ran.stderr
