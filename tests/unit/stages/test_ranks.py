"""The global batch decides the result: ranks and micro-batches share it out, and change nothing.

One rank with several sizes of micro-batches: tests/unit/training/test_rank.py; float32: test_train.py.
"""

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from amopo_core.data.tables import Pair
from tests.unit.stages.training import (
    DIMENSIONS,
    finished,
    losses,
    make_inputs,
    start,
    write_training_pairs,
    write_validation_pairs,
)

SETTINGS = [
    "train.batch_pairs=8", "train.max_length=160", "train.epochs=5", "train.learning_rate=0.0003",
    "train.log_every=1", "train.checkpoint_every=100", "train.validate_every=100", "train.precision=float64",
]  # fmt: skip
WAYS = {
    "one rank, one micro-batch": ("cpu.yaml", 100_000),
    "two ranks, one micro-batch each": ("cpu-two-ranks.yaml", 100_000),
    "two ranks, several unequal ones": ("cpu-two-ranks.yaml", 1000),
}


def pairs():
    """27 pairs of unequal lengths in batches of 8, 8, 8 and 3: 20 steps in 5 epochs."""
    scores = [dict.fromkeys(DIMENSIONS, score) for score in (5.0, 2.0)]
    return [
        Pair(f"{i:016x}", f"{i:016x}", [{"role": "user", "content": "?" * (i % 5 + 1)}], f"yes {i}" * (i % 4 + 1),
             "no" * (i % 7 + 1), *scores)
        for i in range(27)
    ]  # fmt: skip


def test_twenty_steps_are_the_same_however_they_are_shared_out(tiny_policy_folder, tmp_path):
    children = []
    for name, (launch, tokens) in WAYS.items():  # side by side
        make_inputs(tmp_path / name, tiny_policy_folder, [*SETTINGS, f"train.micro_batch_tokens={tokens}"])
        write_training_pairs(tmp_path / name, pairs())
        write_validation_pairs(tmp_path / name, pairs()[:2])
        children.append(start(tmp_path / name, launch))
    for child in children:
        finished(child)
    results = {
        name: (load_file(tmp_path / name / "policy" / "model.safetensors"), losses(tmp_path / name)) for name in WAYS
    }
    expected, expected_losses = results.pop("one rank, one micro-batch")

    assert len(expected_losses) == 20
    for name, (found, found_losses) in results.items():
        assert found_losses == pytest.approx(expected_losses, rel=1e-7), name
        for key, tensor in found.items():
            assert_close(tensor, expected[key], rtol=0, atol=1e-8, msg=f"{name}: {key}")
