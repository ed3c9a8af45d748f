"""transformers.Trainer with what AMoPO changes: the loss, the batches, and what is logged."""

from __future__ import annotations

import json
import math
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from amopo_core.atomic import replacing
from amopo_core.batches import Batch, Collator, EncodedPairs, GlobalBatches
from amopo_core.encoding import EncodedPair
from amopo_core.errors import UserError
from amopo_core.logps import token_logps
from amopo_core.objective import ObjectiveResult, PreferenceObjective
from amopo_core.policy import Policy
from amopo_core.run_folder import COMPLETE, checkpoint_folder

VALIDATION = "validation/"


class PreferenceTrainer(Trainer):
    """Trains a policy on preference pairs. `compute_loss` divides by the pairs of the global batch itself."""

    loss_is_scaled_for_ga = True
    control: TrainerControl

    def __init__(
        self,
        policy: Policy,
        *,
        args: TrainingArguments,
        objective: PreferenceObjective,
        batches: GlobalBatches,
        collator: Collator,
        pairs: Sequence[EncodedPair],
        validation: Sequence[EncodedPair],
    ) -> None:
        super().__init__(
            model=policy.model,
            args=args,
            train_dataset=EncodedPairs(pairs),
            eval_dataset=EncodedPairs(validation),
            data_collator=collator,
        )
        self.objective = objective
        self.batches = batches
        self.sums = ViewSums(objective.views)
        self.remove_callback(PrinterCallback)
        self.add_callback(CheckpointMarks())

    def get_train_dataloader(self) -> DataLoader[Any]:
        """This rank's micro-batches of the whole run."""
        return DataLoader(self.train_dataset, batch_sampler=self.batches, collate_fn=self.data_collator)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Sum of the pairs' losses * ranks / pairs of the global batch: ranks and accumulation change nothing."""
        batch = Batch(**inputs)
        result = self.objective(token_logps(model, batch.sequences), batch)
        self.sums.add(result, batch)
        loss = (result.loss_B * batch.counts_B).sum() * self.accelerator.num_processes / batch.pairs_in_step
        return (loss, result) if return_outputs else loss

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Loss, rewards and weights on the validation pairs, with the weighting's deterministic form; logged."""
        if not len(self.eval_dataset):
            return {}
        sums = ViewSums(self.objective.views)
        model = self.model.eval()
        with torch.no_grad():
            for inputs in self._validation_batches():
                batch = Batch(**self._prepare_inputs(inputs))
                sums.add(self.objective(token_logps(model, batch.sequences), batch, deterministic=True), batch)
        metrics = {VALIDATION + name: value for name, value in sums.means(self._reduce).items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the views' means since the last line; the closing line with run times is left out of the history."""
        if "train_runtime" in logs:
            return
        if "loss" in logs:
            logs |= self.sums.means(self._reduce)  # the mean over pairs: a step of few pairs counts for few
            self.sums = ViewSums(self.objective.views)
            if not math.isfinite(logs["loss"]):
                raise UserError(
                    f"step {self.state.global_step}: the loss is {logs['loss']}; the weights before it are in the last"
                    " checkpoint. Lower train.learning_rate or train.max_grad_norm"
                )
        super().log(logs)

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: the estimate knows nothing of views."""
        return 0

    def _validation_batches(self) -> DataLoader[Any]:
        """This rank's share of the validation pairs: as many micro-batches as any other rank's."""
        shares = GlobalBatches(
            pairs=len(self.eval_dataset),
            batch_pairs=len(self.eval_dataset),
            micro_batch_pairs=self.batches.micro_batch_pairs,
            epochs=1,
            seed=self.batches.seed,
            rank=self.batches.rank,
            ranks=self.batches.ranks,
        )
        return DataLoader(self.eval_dataset, batch_sampler=shares, collate_fn=self.data_collator)

    def _reduce(self, sums: Tensor) -> Tensor:
        reduced: Tensor = self.accelerator.reduce(sums.to(self.args.device), reduction="sum")
        return reduced


class ViewSums:
    """Running sums of what is logged per view, on the device: nothing waits for the host until `means`."""

    def __init__(self, views: Sequence[str]) -> None:
        self.views = tuple(views)
        self._sums: dict[str, Tensor] = defaultdict(lambda: torch.zeros(()))

    def add(self, result: ObjectiveResult, batch: Batch) -> None:
        """Add a micro-batch."""
        counted_VB = batch.active_VB * batch.counts_B
        chosen_VB, rejected_VB = result.pairwise.chosen_rewards_VB, result.pairwise.rejected_rewards_VB
        columns = {
            "rewards/chosen": chosen_VB,
            "rewards/rejected": rejected_VB,
            "rewards/margins": chosen_VB - rejected_VB,
            "rewards/accuracies": (chosen_VB > rejected_VB).to(chosen_VB),
            "weights": result.weights_VB,
            "logps/chosen": result.mean_logps_VB2[..., 0],
        }
        for name, value_VB in columns.items():
            self._add(name, (value_VB.detach() * counted_VB).sum(-1))
        self._add("active", counted_VB.sum(-1))
        self._add("loss", (result.loss_B.detach() * batch.counts_B).sum())
        self._add("pairs", batch.counts_B.sum())

    def means(self, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """`loss` and, for each view, `NAME/VIEW`: means over the pairs of all ranks in which the view was active."""
        if not self._sums:
            return {}
        sums = {name: reduce(value.double()).cpu() for name, value in sorted(self._sums.items())}
        active, pairs = sums.pop("active"), sums.pop("pairs")
        means = {"loss": float(sums.pop("loss") / pairs)}
        for name, value_V in sums.items():
            per_view = zip(self.views, value_V.tolist(), active.tolist(), strict=True)
            means |= {f"{name}/{view}": total / count for view, total, count in per_view if count}
        return means

    def _add(self, name: str, value: Tensor) -> None:
        self._sums[name] = self._sums[name].to(value.device) + value


class CheckpointMarks(TrainerCallback):
    """Logs before every checkpoint, so that a resumed run writes the same history; marks whole checkpoints."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> TrainerControl:
        """Log at every checkpoint, the last step's among them."""
        control.should_log |= control.should_save
        return control

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Write the mark once everything else of the checkpoint is on the disk."""
        if state.is_world_process_zero:
            (checkpoint_folder(Path(args.output_dir), state.global_step) / COMPLETE).touch()


class HistoryWriter(TrainerCallback):
    """Writes history.jsonl while training goes on, and says on stderr how far it is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._started = 0.0
        self._first_step = 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Begin with what a resumed run had logged by its checkpoint."""
        self._started, self._first_step = time.monotonic(), state.global_step
        if state.is_world_process_zero:
            with replacing(self.path) as file:
                file.writelines(map(history_line, state.log_history))

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Append the newest line."""
        if not state.is_world_process_zero:
            return
        row = state.log_history[-1]
        with self.path.open("a", encoding="utf-8") as file:
            file.write(history_line(row))
        if "loss" in row:
            self._say(state, row)

    def _say(self, state: TrainerState, row: Mapping[str, float]) -> None:
        seconds_per_step = (time.monotonic() - self._started) / max(state.global_step - self._first_step, 1)
        left = round(seconds_per_step * (state.max_steps - state.global_step))
        accuracies = [value for name, value in row.items() if name.startswith("rewards/accuracies/")]
        sys.stderr.write(
            f"train: step {state.global_step}/{state.max_steps}, loss {row['loss']:.4f},"
            f" reward accuracy {sum(accuracies) / max(len(accuracies), 1):.2f}, {left} s left\n"
        )


def history_line(row: Mapping[str, float]) -> str:
    """One line of history.jsonl: the step first, the rest by name, 8 significant digits."""
    rest = {name: float(f"{value:.8g}") for name, value in sorted(row.items()) if name != "step"}
    return json.dumps({"step": row["step"]} | rest) + "\n"
