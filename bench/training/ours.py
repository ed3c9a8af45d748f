"""The engine on the same pairs: its forward pass, its trainer, its settings as the stage `train` makes them."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase, Trainer
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from amopo_core.config import Params
from amopo_core.engine.batches import StepBatches, sequences_of
from amopo_core.engine.steps import StepPlan
from amopo_core.engine.tree import packed_tokens
from amopo_core.objective import ObjectiveResult, PreferenceObjective
from amopo_core.params_file import read_params
from amopo_core.policy import Policy
from amopo_core.training.encoded import EncodedPairs, write_encoded
from amopo_core.training.encoding import EncodedPair
from amopo_core.training.rank import build_trainer
from bench.training.task import BETA, LEARNING_RATE, MARGIN, MAX_GRAD_NORM, Task, make_pairs

NEVER = 1_000_000
"""Steps between what is not measured."""


class Pairs(list[EncodedPair]):
    """Pairs in memory, with the tokens that each brings to a forward pass."""

    def __init__(self, pairs: Sequence[EncodedPair]) -> None:
        super().__init__(pairs)
        read = [sequences_of(pair, plain=False) for pair in pairs]
        self.packed_tokens = np.array([packed_tokens(each) for each in read], dtype=np.int64)
        self.separate_tokens = np.array([len(each) * max(map(len, each)) for each in read], dtype=np.int64)


class InOrder(StepPlan):
    """Steps that take the pairs as they come."""

    def _shuffled(self, epoch: int) -> NDArray[np.int64]:
        return np.arange(len(self.tokens))


class TimedObjective(PreferenceObjective):
    """The objective, which knows how long it took: statistics, weights and loss together."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.seconds = 0.0

    def __call__(self, *args: Any, **options: Any) -> ObjectiveResult:
        """The same."""
        started = time.perf_counter()
        result = super().__call__(*args, **options)
        self.seconds += time.perf_counter() - started
        return result


def parameters(task: Task) -> Params:
    """The project's parameters with the task's numbers."""
    params = read_params()
    objective = params.objective.model_copy(update={"beta": BETA, "target_margin": MARGIN})
    train = params.train.model_copy(
        update={
            "learning_rate": LEARNING_RATE,
            "max_grad_norm": MAX_GRAD_NORM,
            "warmup_fraction": 0.0,
            "epochs": 1,
            "batch_pairs": task.pairs_per_step,
            "micro_batch_tokens": task.micro_batch,
            "max_length": sum((task.lengths.prompt[1], task.lengths.response[1], 100)),
            "precision": task.precision,
            "log_every": NEVER,
            "validate_every": NEVER,
            "checkpoint_every": NEVER,
        }
    )
    runtime = params.runtime.model_copy(update={"threads": task.threads, "seed": task.seed})
    return params.model_copy(update={"objective": objective, "train": train, "runtime": runtime})


def trainer(task: Task, output: Path) -> Trainer:
    """The trainer of this rank, as the stage builds it; its steps take the pairs as they come."""
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    params = parameters(task)
    pairs = on_disk(task, params, output) if task.stored else Pairs(make_pairs(task))
    policy = Policy(task.shape.policy(task.precision, task.device), cast(PreTrainedTokenizerBase, None))
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    trainer = build_trainer(params, policy, pairs, Pairs([]), output=output, ranks=ranks)
    trainer.args.save_strategy, trainer.args.logging_strategy = SaveStrategy.NO, IntervalStrategy.NO
    trainer.objective = TimedObjective(params.objective, params.view_names)
    trainer.args.max_steps = task.steps + 1
    batches = trainer.train_dataset
    trainer.train_dataset = StepBatches(in_order(batches.plan), batches.pairs, batches.maker)
    return trainer


def on_disk(task: Task, params: Params, folder: Path) -> EncodedPairs:
    """The steps' pairs over and over, as many as the task says, where a run keeps its encoded pairs."""
    path = folder / "pairs.arrow"
    write_encoded(path, islice(cycle(make_pairs(task)), task.stored), params)
    return EncodedPairs(path)


def in_order(plan: StepPlan) -> StepPlan:
    """The same plan, which takes the pairs as they come."""
    return InOrder(
        plan.tokens,
        batch_pairs=plan.batch_pairs,
        micro_batch_tokens=plan.micro_batch_tokens,
        epochs=plan.epochs,
        seed=plan.seed,
        rank=plan.rank,
        ranks=plan.ranks,
    )
