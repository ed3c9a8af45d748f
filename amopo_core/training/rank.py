"""Training a policy on preference pairs, in one rank of an accelerate launch.

The stage `train` runs it: accelerate launch --config_file F -m amopo_core.training.rank_process --pairs … --run …
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainingArguments
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import logging as transformers_logging

from amopo_core.adapter import pointer_to, with_adapter, write_pointer
from amopo_core.atomic import write_json
from amopo_core.config import Params
from amopo_core.engine.batches import BatchMaker, PairSource, StepBatches
from amopo_core.engine.forward import PolicyForward, best_forward
from amopo_core.engine.steps import StepPlan
from amopo_core.errors import UserError
from amopo_core.objective import PreferenceObjective
from amopo_core.params_file import read_params
from amopo_core.policy import Policy, load_policy, make_readable, save_policy
from amopo_core.stages.command import EXIT_FAILED, is_full_disk
from amopo_core.training.encoded import EncodedPairs, Encoding, dropped_path, encode_split, read_encoding
from amopo_core.training.encoding import REASONS
from amopo_core.training.failures import described, lost_another_rank
from amopo_core.training.history import HistoryWriter
from amopo_core.training.launch import SHARDED
from amopo_core.training.progress import Progress, StepClock
from amopo_core.training.run_folder import (
    CHECKPOINTS,
    DROPPED,
    FAILURE,
    POLICY,
    SUMMARY,
    at_work,
    last_checkpoint,
    remove_torn_checkpoints,
)
from amopo_core.training.stopping import StopAndTime, Stopped
from amopo_core.training.trainer import PreferenceTrainer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TRAIN, VALIDATION = Path("encoded/train.arrow"), Path("encoded/validation.arrow")
"""The encoded pairs in the run folder."""

DTYPES = {
    "float32": torch.float32,
    "mixed_bfloat16": torch.float32,
    "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}
"""What the weights are held in, by `train.precision`."""


def train_policy(
    params: Params, *, pairs: Path, base: Path, run: Path, history: Path, ranks: int, clock: StepClock | None = None
) -> None:
    """Fit the policy in this rank; rank 0 leaves policy, summary and dropped pairs in the run folder.

    Goes on from the run folder's newest whole checkpoint where there is one.

    Raises:
        UserError: nothing is left to train on, the ranks are not as many as asked for, or the loss is not finite.
    """
    torch.set_num_threads(params.runtime.threads)
    # A debugging aid of the deterministic mode: it costs time and changes no result.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    policy = load_trainable(params, base)
    train, validation = encoded_splits(params, policy, pairs, base, run)
    found = read_encoding(run / TRAIN)
    if not found.pairs:
        raise UserError(nothing_left(found, params.train.max_length))
    refuse_misfits(params, len(validation))
    trainer = build_trainer(params, policy, train, validation, output=run / CHECKPOINTS, ranks=ranks, clock=clock)
    if trainer.is_world_process_zero():
        sys.stderr.write(f"train: {described_start(trainer, found, params, ranks)}\n")
    trainer.stop = StopAndTime(params.train.checkpoint_minutes)
    trainer.add_callback(HistoryWriter(history))
    trainer.add_callback(Progress(trainer.clock))
    trainer.add_callback(trainer.stop)
    if found.dropped and trainer.is_world_process_zero():
        dropped = sum(found.dropped.values())
        total = found.pairs + dropped
        sys.stderr.write(f"train: {dropped} of {total} pairs dropped ({counted(found.dropped)}), see {DROPPED}\n")
    checkpoint = last_checkpoint(run / CHECKPOINTS)
    if trainer.is_world_process_zero():
        remove_torn_checkpoints(run / CHECKPOINTS)
    if checkpoint and trainer.is_world_process_zero():
        sys.stderr.write(f"train: going on from {checkpoint.name} of {len(trainer.train_dataset)}\n")
    if checkpoint:
        trainer.go_on_from(checkpoint)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if trainer.stop.stopping:
        raise Stopped(trainer.state.global_step, trainer.state.max_steps)
    if params.train.publish == "best":
        trainer.load_best()
    if trainer.steps_skipped and trainer.is_world_process_zero():
        sys.stderr.write(f"train: {trainer.steps_skipped} of {len(trainer.train_dataset)} steps were skipped\n")
    save(trainer, policy, params, base, run)
    if trainer.is_world_process_zero():
        write_reports(run, found, params, len(trainer.train_dataset), ranks, trainer.steps_skipped)


def load_trainable(params: Params, base: Path) -> Policy:
    """The starting policy; where adapters are asked for, wrapped so that they alone train."""
    adapter, dtype = params.train.adapter, DTYPES[params.train.precision]
    if adapter is None:
        return load_policy(base, dtype)
    pointer_to(base)  # refused now, not after the training
    policy = load_policy(base, dtype, bits=adapter.base_bits)
    return Policy(with_adapter(policy.model, adapter, seed=params.runtime.seed), policy.tokenizer)


def encoded_splits(
    params: Params, policy: Policy, pairs: Path, base: Path, run: Path
) -> tuple[EncodedPairs, EncodedPairs]:
    """The pairs to train and to validate on; the first rank encodes them, once a run, and the others wait."""
    limit = min(params.train.max_length, policy.context)
    for split in (VALIDATION, TRAIN):
        if int(os.environ.get("RANK", "0")) == 0 and not (run / split).exists():
            encode_split(params, pairs / f"{split.stem}.parquet", base, limit, run / split)
        while not (run / split).exists():
            if (run / FAILURE).exists():
                raise UserError("the first rank could not encode the pairs")  # which has said why
            time.sleep(0.2)
    return EncodedPairs(run / TRAIN), EncodedPairs(run / VALIDATION)


def refuse_misfits(params: Params, validation_pairs: int) -> None:
    """Stop before the training where settings ask for what cannot be.

    Raises:
        UserError: a GPU is asked for where there is none, the best weights where there is nothing to choose by, bad
            steps to be skipped where they cannot be, or 4-bit weights to be sharded.
    """
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() == "false" and not torch.cuda.is_available():
        raise UserError(
            "the launch file asks for a GPU, and torch finds none here; set AMOPO_LAUNCH to one of"
            " configs/accelerate/cpu*.yaml, or see `amopo doctor`"
        )
    if params.train.publish == "best" and not validation_pairs:
        raise UserError(
            "train.publish is best, but there is no validation pair; set it to last or raise pairs.validation_share"
        )
    if params.train.non_finite == "skip" and _is_on("ACCELERATE_USE_DEEPSPEED"):
        raise UserError(
            "train.non_finite is skip, but DeepSpeed changes the weights before the gradient can be looked at; set it"
            " to stop, or train with FSDP (see configs/accelerate)"
        )
    if params.train.adapter and params.train.adapter.base_bits == 4 and is_sharded():
        raise UserError(
            "train.adapter.base_bits is 4, but the launch file shards the weights, which 4-bit ones do not allow; use"
            " configs/accelerate/ddp.yaml, where each GPU holds the small base whole, or set base_bits to 16"
        )


def described_start(trainer: PreferenceTrainer, found: Encoding, params: Params, ranks: int) -> str:
    """What is about to be trained, on what, and in which way, in a line."""
    trained = sum(weight.numel() for weight in trainer.model.parameters() if weight.requires_grad)
    truncated = f" ({found.truncated} truncated)" if found.truncated else ""
    adapter = params.train.adapter
    kind = f", adapters of rank {adapter.rank}, alpha {adapter.alpha}" if adapter else ""
    return (
        f"{found.pairs:,} pairs{truncated}, {len(trainer.train_dataset):,} steps; {ranks} {_device()}"
        f" rank{'s' * (ranks > 1)}, {params.train.precision}, {trained:,} weights to train{kind};"
        f" {trainer.forward.way}"
    )


def _device() -> str:
    return "CPU" if trains_on_cpu() else str(torch.cuda.get_device_name())


def nothing_left(found: Encoding, max_length: int) -> str:
    """Why there is no pair to train on, and what would mend it."""
    mends = "; ".join(f"`{reason}`: {mend}" for reason, mend in REASONS.items() if reason in found.dropped)
    needs = f" (the shortest pair needs {found.shortest_too_long})" if found.shortest_too_long else ""
    return (
        f"no pair is left to train on ({counted(found.dropped)}); train.max_length is {max_length}{needs}. {mends}"
        if found.dropped
        else "there is no pair to train on: data/pairs/train.parquet is empty; add feedback or lower pairs.test_share"
    )


def counted(dropped: Mapping[str, int]) -> str:
    """How many pairs each reason took, the most frequent first."""
    return ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items(), key=lambda item: -item[1]))


def build_trainer(
    params: Params,
    policy: Policy,
    train: PairSource,
    validation: PairSource,
    *,
    output: Path,
    ranks: int,
    clock: StepClock | None = None,
) -> PreferenceTrainer:
    """The trainer of this rank; stops where other ranks were started than the launch file asks for."""
    rank = int(os.environ.get("RANK", "0"))
    device = torch.device("cpu") if trains_on_cpu() else torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if not is_sharded():
        policy.model.to(device)
    forward = best_forward(policy.model, min(params.train.max_length, policy.context), device)
    if params.train.compile:
        compile_blocks(policy.model)
    batches = step_batches(params, train, forward, rank, ranks)
    trainer = PreferenceTrainer(
        policy,
        args=training_arguments(params, len(batches), output, validates=len(validation) > 0),
        objective=PreferenceObjective(params.objective, params.view_names),
        forward=forward,
        batches=batches,
        validation=step_batches(params, validation, forward, rank, ranks, whole=True) if len(validation) else None,
        skip_non_finite=params.train.non_finite == "skip",
        clock=clock,
    )
    started = trainer.accelerator.num_processes
    if started != ranks or trainer.accelerator.process_index != rank:
        raise UserError(
            f"the launch file asks for {ranks} processes, but {started} train together; see configs/accelerate"
        )
    return trainer


def step_batches(
    params: Params, pairs: PairSource, forward: PolicyForward, rank: int, ranks: int, *, whole: bool = False
) -> StepBatches:
    """A rank's micro-batches; `whole`: all pairs are one step."""
    packed = forward.way.packed
    plan = StepPlan(
        pairs.packed_tokens if packed else pairs.separate_tokens,
        batch_pairs=len(pairs) if whole else params.train.batch_pairs,
        micro_batch_tokens=params.train.micro_batch_tokens,
        epochs=1 if whole else params.train.epochs,
        seed=params.runtime.seed,
        rank=rank,
        ranks=ranks,
    )
    maker = BatchMaker(
        seed=params.runtime.seed,
        generic_view=params.views.generic,
        supervised=params.objective.supervised_weight > 0,
        packed=packed,
    )
    return StepBatches(plan, pairs, maker)


def trains_on_cpu() -> bool:
    """Whether this rank trains on the CPU: there is no GPU, or the launch file says so."""
    return not torch.cuda.is_available() or _is_on("ACCELERATE_USE_CPU")


def is_sharded() -> bool:
    """Whether the launch file spreads the weights over the ranks, so that none holds them all."""
    return any(_is_on(f"ACCELERATE_USE_{kind}") for kind in SHARDED)


def _is_on(variable: str) -> bool:
    """Whether accelerate's launcher set a variable, which it spells in several ways."""
    return os.environ.get(variable, "").lower() == "true"


def compile_blocks(model: PreTrainedModel) -> None:
    """Compile each block of the policy: they are alike, so that one compilation serves all."""
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):
            module.compile(dynamic=True)


def training_arguments(params: Params, steps: int, output: Path, *, validates: bool) -> TrainingArguments:
    """The section `train` as transformers wants it."""
    config, on_cpu = params.train, trains_on_cpu()
    return TrainingArguments(
        output_dir=str(output),
        max_steps=steps,
        learning_rate=config.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=round(config.warmup_fraction * steps),
        max_grad_norm=config.max_grad_norm,
        weight_decay=config.weight_decay,
        logging_steps=config.log_every,
        logging_nan_inf_filter=False,
        eval_strategy="steps" if validates else "no",
        eval_steps=config.validate_every,
        save_strategy="steps",
        save_steps=config.checkpoint_every,
        seed=params.runtime.seed,
        use_cpu=on_cpu,
        full_determinism=on_cpu or params.runtime.deterministic,
        bf16=config.precision == "mixed_bfloat16",
        activation_checkpointing=config.gradient_checkpointing,
        optim="adamw_torch_fused",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
    )


def save(trainer: PreferenceTrainer, policy: Policy, params: Params, base: Path, run: Path) -> None:
    """Write the trained policy into the run folder; every rank takes part, so that sharded weights come together.

    Adapters are merged into the base as it is on the disk: at full precision, also where they were trained on 4 bits.
    """
    folder = run / POLICY
    trainer.save_model(str(folder))
    if trainer.is_world_process_zero():
        (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle, and different every time
        policy.tokenizer.save_pretrained(folder)
        if params.train.adapter:
            write_pointer(folder, base)
            if params.train.adapter.merge:
                save_policy(load_policy(folder, DTYPES[params.train.precision]), folder)
        make_readable(folder)


def write_reports(run: Path, found: Encoding, params: Params, steps: int, ranks: int, steps_skipped: int = 0) -> None:
    """summary.json, flat and numeric for `dvc metrics`, and dropped.jsonl with every pair that was not trained on."""
    summary: dict[str, Any] = {
        "pairs": found.pairs,
        "pairs_truncated": found.truncated,
        "pairs_dropped": sum(found.dropped.values()),
        "dropped": found.dropped,
        "mean_weight": found.weight / found.pairs,
        "active_view_share": found.views / (len(params.view_names) * found.pairs),
        "steps": steps,
        "steps_skipped": steps_skipped,
        "ranks": ranks,
    }
    write_json(run / SUMMARY, summary)
    shutil.copyfile(dropped_path(run / TRAIN), run / DROPPED)


def main(argv: Sequence[str] | None = None) -> int:
    """One rank; it leaves a failure in the run folder for the stage and ends well, lest the launcher bury it."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("pairs", "base", "run", "history"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--ranks", type=int, required=True)
    args = parser.parse_args(argv)
    _quiet()
    params, clock, lock = read_params(), StepClock(), at_work(args.run)
    try:
        train_policy(
            params,
            pairs=args.pairs,
            base=args.base,
            run=args.run,
            history=args.history,
            ranks=args.ranks,
            clock=clock,
        )
    except Exception as error:
        if (args.run / FAILURE).exists():  # another rank has spoken: what this one met comes of it
            return 0
        if lost_another_rank(error):
            sys.stderr.write(f"train: another rank is gone: {error}\n")
            return EXIT_FAILED
        if is_full_disk(error):
            remove_torn_checkpoints(args.run / CHECKPOINTS)
        return _leave(args.run, *described(error, params.train, clock.largest))
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        lock.close()
    return 0


def _leave(run: Path, message: str, status: int) -> int:
    """The rank's exit status; not 0 where the disk is so full that the stage would see no failure."""
    shutil.rmtree(run / POLICY, ignore_errors=True)
    failure = run / FAILURE
    try:
        with suppress(FileExistsError), failure.open("x", encoding="utf-8") as file:  # one rank speaks for all
            json.dump({"message": message, "status": status}, file)
    except OSError as error:
        if not is_full_disk(error):
            raise
        sys.stderr.write(f"train: {message}\n")
    return 0 if failure.exists() else EXIT_FAILED


def _quiet() -> None:
    """Keep libraries from saying what a user can do nothing about, and other ranks than the first from repeating it."""
    transformers_logging.set_verbosity_warning()
    logging.getLogger("transformers.trainer_utils").setLevel(logging.ERROR)  # how it orders checkpoints
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)  # peft asks for it
    if os.environ.get("RANK", "0") != "0":
        logging.getLogger("amopo_core").setLevel(logging.ERROR)
