"""The benches run for real, on sizes of which nothing about speed is asked."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from bench import train, train_gpu

ROOT = Path(__file__).parents[3]
VIEWS = 4
VARIANTS = ["published", *(["trl"] if find_spec("trl") else []), "ours"]


def bench(module, *options):
    command = [sys.executable, "-m", f"bench.{module}", *map(str, options)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def rounds(results, own_process=True):
    return {
        result["task"]["variant"]: result["rounds"][0] for result in results if result["own_process"] == own_process
    }


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """All parts once, with every variant that is installed: what was written and said."""
    out = tmp_path_factory.mktemp("bench") / "train.json"
    run = bench("train", "--quick", "--variants", ",".join(VARIANTS), "--out", out)
    assert run.returncode == 0, run.stderr
    return out, run.stdout


def test_train_measures_every_variant_on_the_same_pairs(measured):
    out, said = measured
    found = rounds(json.loads(out.read_text())["steps"])

    assert list(found) == list(VARIANTS)
    losses = {name: found[name]["loss"] for name in VARIANTS}
    losses["published"] *= VIEWS  # it divides by them
    assert losses == pytest.approx(dict.fromkeys(VARIANTS, losses["ours"]), rel=1e-3)
    assert len({found[name]["parameters"] for name in VARIANTS}) == 1
    assert all(len(found[name]["seconds"]) == 1 and found[name]["state_mb"] > 0 for name in VARIANTS)
    assert found["ours"]["objective_share"] > 0
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    assert "pairs/s" in said


def test_train_measures_head_ranks_and_memory(measured):
    numbers = json.loads(measured[0].read_text())
    head = rounds(numbers["head"], own_process=False)

    assert list(head) == ["ours", "products"]
    assert 0 < head["products"]["seconds"][0] < head["ours"]["seconds"][0]
    assert [result["task"]["micro_batch"] for result in numbers["memory"]] == [1000, 2000]
    one, _, two = numbers["ranks"]
    assert (one["task"]["ranks"], two["task"]["ranks"]) == (1, 2)
    assert two["rounds"][0]["loss"] == pytest.approx(one["rounds"][0]["loss"], rel=1e-5)


@pytest.mark.parametrize("options", [["--parts", "speed"], ["--variants", "ours,theirs"]])
def test_train_says_what_can_be_chosen(options, capsys):
    with pytest.raises(SystemExit) as ended:
        train.main(options)

    assert ended.value.code == 2
    assert "choose from" in capsys.readouterr().err


def test_gpu_bench_runs_a_tiny_shape_on_a_cpu(tmp_path):
    out = tmp_path / "gpu.json"

    run = bench("train_gpu", "--device", "cpu", "--quick", "--variants", "published,ours", "--peak", "1", "--out", out)

    assert run.returncode == 0, run.stderr
    rows = json.loads(out.read_text())["rows"]
    assert [row["variant"] for row in rows] == ["published", "ours"]
    assert all(0 < row["utilisation"] < 1 and row["longest_context"] == 64 for row in rows)


def test_gpu_bench_without_a_gpu_says_what_to_do(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    run = bench("train_gpu")

    assert run.returncode == 2
    assert "no GPU is here" in run.stderr
    assert "--quick" in run.stderr


def test_gpu_bench_measures_a_cpu_in_tiny_sizes_only(capsys):
    with pytest.raises(SystemExit) as ended:
        train_gpu.main(["--device", "cpu"])

    assert ended.value.code == 2
    assert "add --quick" in capsys.readouterr().err
