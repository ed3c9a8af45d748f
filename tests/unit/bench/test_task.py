import numpy as np
import pytest

from amopo_core.engine.steps import StepPlan
from bench.training.ours import in_order
from bench.training.simpo import rows
from bench.training.task import INSTRUCTION, VIEWS, Lengths, Shape, Task, make_pairs, sequences

TASK = Task("ours", Shape("tiny", 64), "float32", pairs_per_step=4, steps=2, micro_batch=100)


def test_pairs_start_with_the_shortest_and_then_fill_the_range_evenly():
    pairs = make_pairs(TASK)
    shortest, steps = pairs[:4], (pairs[4:8], pairs[8:])

    assert {(len(pair.plain_prompt), len(pair.chosen), len(pair.rejected)) for pair in shortest} == {(60, 50, 50)}
    for step in steps:
        assert sorted(len(pair.plain_prompt) for pair in step) == [140, 300, 460, 620]
        assert sorted(len(pair.chosen) for pair in step) == pytest.approx([106, 219, 331, 444], abs=1)
        assert sorted(len(pair.rejected) for pair in step) == pytest.approx([106, 219, 331, 444], abs=1)


def test_pairs_are_the_same_for_the_same_seed_and_differ_between_views_by_the_instruction():
    first, again, other = make_pairs(TASK), make_pairs(TASK), make_pairs(Task.of(TASK.as_dict() | {"seed": 1}))

    assert first == again
    assert first != other
    for pair in first:
        assert len({tuple(prompt[:INSTRUCTION]) for prompt in pair.prompts}) == VIEWS
        assert all(prompt[INSTRUCTION:] == pair.plain_prompt for prompt in pair.prompts)


def test_a_task_survives_json():
    task = Task("trl", Shape("x", 64, tied=False), "bfloat16", 2, 1, 4, Lengths((3, 4), (5, 6)), ranks=2)

    assert Task.of(task.as_dict()) == task


def test_trl_reads_the_same_sequences():
    pair = make_pairs(TASK)[-1]
    read = [row[f"{side}_input_ids"] for row in rows(pair) for side in ("chosen", "rejected")]

    assert read == [prompt + response for prompt, response in sequences(pair)]


def test_our_steps_take_the_pairs_as_they_come():
    plan = StepPlan(np.full(6, 10), batch_pairs=2, micro_batch_tokens=10, epochs=1, seed=0, rank=0, ranks=1)

    assert [in_order(plan).global_batch(step) for step in range(3)] == [[0, 1], [2, 3], [4, 5]]
