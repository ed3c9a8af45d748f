"""What is said of a run while it goes on, and what is left of its times."""

import json
import time
from types import SimpleNamespace

import pytest
import torch
from transformers import TrainerControl, TrainerState

from amopo_core.engine.batches import separate_rows
from amopo_core.training.progress import (
    BatchSize,
    Progress,
    StepClock,
    peak_memory,
    progress_line,
    summary_table,
    time_summary,
)
from amopo_core.units import duration, in_bytes


def batch(lengths=(5, 3), pairs=("a",), pairs_in_step=2):
    rows = separate_rows([[1, 2]] * len(lengths), [list(range(3, 3 + length)) for length in lengths])
    return SimpleNamespace(rows=rows, pair_ids=pairs, pairs_in_step=pairs_in_step)


def state(step, **row):
    found = TrainerState(global_step=step, max_steps=10, is_world_process_zero=True)
    found.log_history.append({"step": step} | row)
    return found


ARGS, CONTROL = SimpleNamespace(world_size=2), TrainerControl()


def test_a_part_is_the_sum_of_its_blocks():
    clock = StepClock()
    for _ in range(2):
        with clock.part("forward"):
            time.sleep(0.01)
    clock.start("optimiser")
    clock.stop("optimiser")
    clock.stop("optimiser")  # a log between two steps: it has not begun again

    assert list(clock.seconds()) == ["forward", "optimiser"]
    assert clock.seconds()["forward"] >= 0.02 > clock.seconds()["optimiser"] > 0


def test_a_step_counts_the_tokens_of_this_rank_and_the_pairs_of_all():
    """Prompts of 2 tokens with responses of 5 and 3, the last token unread: two rows of 6, and one of 4."""
    clock = StepClock()
    clock.count([batch(), batch(lengths=(3,))])

    assert (clock.steps, clock.tokens, clock.pairs) == (1, 12 + 4, 2)
    assert clock.largest == BatchSize(tokens=12, pairs=1, longest=6)


def test_the_line_says_step_loss_speed_memory_and_time_left():
    row = {"step": 40, "loss": 0.69314, "rewards/accuracies/a": 0.5, "rewards/accuracies/b": 0.74}
    speed = {"tokens_per_second": 12345.4, "pairs_per_second": 3.14, "memory_bytes": 1.2e9, "seconds_left": 121}

    assert progress_line(row, 100, speed) == (
        "train: step 40/100, loss 0.6931, reward accuracy 0.62, 12,345 tokens/s, 3.1 pairs/s, 1.2 GB, 2 min left\n"
    )


def test_where_the_time_went_adds_up_to_the_whole():
    """10 s, of which 4 s forward and 5 s backward: 1 s is other; 2 ranks of 300 tokens in 10 s: 60 a second."""
    clock = StepClock()
    clock._seconds |= {"backward": 5.0, "forward": 4.0}
    clock.steps, clock.tokens, clock.pairs = 3, 300, 24
    summary = time_summary(clock, 10.0, ranks=2)

    assert summary["seconds"] == {"forward": 4.0, "backward": 5.0, "other": 1.0}
    assert (summary["tokens"], summary["pairs"], summary["steps"]) == (600, 24, 3)
    assert (summary["tokens_per_second"], summary["pairs_per_second"]) == (60.0, 2.4)
    assert summary_table(summary | {"peak_memory_bytes": 2_500_000}) == (
        "train: 3 steps in 10 s, 60 tokens/s, 2.4 pairs/s, at most 2.5 MB\n"
        "train:   forward          4.0 s  40.0%\n"
        "train:   backward         5.0 s  50.0%\n"
        "train:   other            1.0 s  10.0%\n"
    )


def test_a_run_leaves_its_speed_at_each_log_and_its_times_at_the_end(tmp_path, capsys):
    clock = StepClock()
    progress = Progress(clock, tmp_path)
    progress.on_train_begin(ARGS, state(0), CONTROL)
    clock.count([batch()])
    progress.on_log(ARGS, state(1, loss=0.5), CONTROL)
    progress.on_log(ARGS, state(1, **{"validation/loss": 0.5}), CONTROL)
    clock.count([batch()])
    progress.on_log(ARGS, state(2, loss=0.4), CONTROL)
    progress.on_train_end(ARGS, state(2), CONTROL)
    rows = [json.loads(line) for line in (tmp_path / "speed.jsonl").open()]
    said = capsys.readouterr().err.splitlines()

    assert [row["step"] for row in rows] == [1, 2]
    assert set(rows[0]) == {"step", "tokens_per_second", "pairs_per_second", "seconds_left", "memory_bytes"}
    for row in rows:  # 12 tokens in each of 2 ranks and 2 pairs in all
        assert row["tokens_per_second"] == pytest.approx(12 * row["pairs_per_second"], rel=1e-3)
    assert json.loads((tmp_path / "summary.json").read_text())["tokens"] == 48
    assert [line[:12] for line in said[:3]] == ["train: step ", "train: step ", "train: 2 ste"]


def test_a_resumed_run_goes_on_behind_its_checkpoint_and_a_fresh_one_anew(tmp_path):
    lines = ['{"step": 2}\n', '{"step": 4}\n', '{"step": 6}\n', '{"st']
    (tmp_path / "speed.jsonl").write_text("".join(lines))
    Progress(StepClock(), tmp_path).on_train_begin(ARGS, state(4), CONTROL)
    resumed = (tmp_path / "speed.jsonl").read_text()
    Progress(StepClock(), tmp_path).on_train_begin(ARGS, state(0), CONTROL)

    assert resumed == '{"step": 2}\n{"step": 4}\n'
    assert (tmp_path / "speed.jsonl").read_text() == ""


def test_a_finished_run_that_is_read_again_keeps_its_times(tmp_path, capsys):
    (tmp_path / "summary.json").write_text("{}")
    progress = Progress(StepClock(), tmp_path)
    progress.on_train_begin(ARGS, state(10), CONTROL)
    progress.on_train_end(ARGS, state(10), CONTROL)

    assert (tmp_path / "summary.json").read_text() == "{}"
    assert capsys.readouterr().err == ""


def test_only_the_first_rank_speaks(tmp_path, capsys):
    clock = StepClock()
    other = state(1, loss=0.5)
    other.is_world_process_zero = False
    progress = Progress(clock, tmp_path)
    progress.on_train_begin(ARGS, other, CONTROL)
    clock.count([batch()])
    progress.on_log(ARGS, other, CONTROL)
    progress.on_train_end(ARGS, other, CONTROL)

    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (59.4, "59 s"), (61, "1 min"), (3599, "1 h 0 min"), (12_000, "3 h 20 min")]
)
def test_durations(seconds, said):
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("count", "said"), [(12, "12 bytes"), (1500, "1.5 kB"), (640_400_000, "640.4 MB"), (1e15, "1,000.0 TB")]
)
def test_bytes(count, said):
    assert in_bytes(count) == said


@pytest.mark.skipif(torch.cuda.is_available(), reason="counts the memory of the GPU there")
def test_the_peak_does_not_forget():
    before = peak_memory()
    block = torch.ones(100_000_000, dtype=torch.uint8)
    held = peak_memory()
    del block

    assert before > 10_000_000
    assert peak_memory() >= held
