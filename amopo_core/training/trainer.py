"""transformers.Trainer with what AMoPO changes: the loss, the batches, and what is logged."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainingArguments

from amopo_core.engine.batches import Batch, StepBatches
from amopo_core.engine.forward import PolicyForward
from amopo_core.objective import ObjectiveResult, PreferenceObjective
from amopo_core.policy import Policy
from amopo_core.training.non_finite import NonFiniteStep, NotFinite, StepPairs, bad_alone
from amopo_core.training.progress import StepClock
from amopo_core.training.run_folder import checkpoint_folder, keep_checkpoints, mark_complete
from amopo_core.training.stopping import StopAndTime

VALIDATION = "validation/"


class PreferenceTrainer(Trainer):
    """Trains a policy on preference pairs.

    One item of the data is all that this rank does for an optimizer step: a list of micro-batches. So the global batch
    alone decides a step, ranks may cut their share into micro-batches as they like, and a resumed run finds its step.
    """

    loss_is_scaled_for_ga = True
    control: TrainerControl

    def __init__(
        self,
        policy: Policy,
        *,
        args: TrainingArguments,
        objective: PreferenceObjective,
        forward: PolicyForward,
        batches: StepBatches,
        validation: StepBatches | None,
        skip_non_finite: bool = False,
        clock: StepClock | None = None,
    ) -> None:
        super().__init__(model=policy.model, args=args, train_dataset=batches, eval_dataset=validation)
        self.objective = objective
        self.forward = forward
        self.sums = ViewSums(objective.views)
        self.step_sums = ViewSums(objective.views)
        self.step_pairs = StepPairs(objective.views)
        self.skip_non_finite = skip_non_finite
        self.steps_skipped = 0
        self.stop: StopAndTime | None = None
        self.clock = clock or StepClock()
        self.remove_callback(PrinterCallback)
        self.add_callback(StepTaken(forward))

    def get_train_dataloader(self) -> DataLoader[Any]:
        """This rank's steps, in their order."""
        return DataLoader(self.train_dataset, batch_size=1, collate_fn=itemgetter(0))

    def get_batch_samples(self, *args: Any, **options: Any) -> tuple[list[Any], Tensor | int | None]:
        """The next step's micro-batches."""
        with self.clock.part("data"):
            samples: tuple[list[Any], Tensor | int | None] = super().get_batch_samples(*args, **options)
        return samples

    def training_step(
        self, model: torch.nn.Module, inputs: list[Batch], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Forward and backward of a step's micro-batches; the ranks add up their gradients with the last one."""
        model.train()
        self.clock.count(inputs)
        self.step_sums, self.step_pairs = ViewSums(self.objective.views), StepPairs(self.objective.views)
        loss = torch.zeros((), device=self.args.device)
        for batch in inputs:
            with self._adding_up(model, batch is inputs[-1]):
                loss = loss + self._micro_batch(model, batch.to(self.args.device))
        self.clock.start("optimiser")  # until the step's end
        return loss

    def compute_loss(
        self, model: torch.nn.Module, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Sum of the pairs' losses * ranks / pairs of the global batch: ranks and micro-batches change nothing."""
        result = self.objective(self.forward.token_logps(model, inputs.rows), inputs)
        self.step_sums.add(result, inputs)
        self.step_pairs.add(result, inputs)
        loss = (result.loss_B * inputs.counts_B).sum() * self.accelerator.num_processes / inputs.pairs_in_step
        return (loss, result) if return_outputs else loss

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Loss, rewards and weights on the validation pairs, with the weighting's deterministic form; logged."""
        if self.eval_dataset is None:
            return {}
        sums = ViewSums(self.objective.views)
        model = self.model.eval()
        with self.clock.part("validation"), torch.no_grad():
            for batch in self.eval_dataset.micro_batches(0):
                moved = batch.to(self.args.device)
                logps_NR = self.forward.token_logps(model, moved.rows)
                sums.add(self.objective(logps_NR, moved, deterministic=True), moved)
            means = sums.means(self._reduce)
        metrics = {VALIDATION + name: value for name, value in means.items() if math.isfinite(value)}
        if len(metrics) < len(means) and self.is_world_process_zero():
            unknown = ", ".join(name for name in means if VALIDATION + name not in metrics)
            sys.stderr.write(f"train: step {self.state.global_step}, validation: not finite: {unknown}\n")
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the views' means since the last line; the closing line with run times is left out of the history."""
        if "train_runtime" in logs:
            return
        if "loss" in logs:
            del logs["loss"]
            logs |= self.sums.means(self._reduce)  # the mean over pairs: a step of few pairs counts for few
            self.sums = ViewSums(self.objective.views)
        # transformers takes all steps for one epoch: the global batch alone decides what a step is
        self.state.epoch = self.state.global_step / self.train_dataset.plan.steps_per_epoch
        super().log({name: value for name, value in logs.items() if math.isfinite(value)})

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted: the estimate knows nothing of views."""
        return 0

    def _clip_grad_norm(self, model: torch.nn.Module) -> Any:
        """The norm before clipping; a step that is not finite changes nothing, or ends the run."""
        norm = super()._clip_grad_norm(model)
        loss_sum = self._agree()  # the one wait for the device in a step
        if math.isfinite(loss_sum + (0.0 if norm is None else float(norm))):
            self.sums.merge(self.step_sums)
            return norm
        self.optimizer.zero_grad(set_to_none=True)  # AdamW passes over what has no gradient, weight decay included
        self.clock.stop("optimiser")
        with self.clock.part("search"):
            found = NonFiniteStep.gathered(self.state.global_step + 1, self.step_pairs, loss_sum, self._bad_alone)
        if not self.skip_non_finite:
            raise found.error()
        self.steps_skipped += 1
        if self.is_world_process_zero():
            found.note(Path(self.args.output_dir).parent)
        return norm

    def _agree(self) -> float:
        """The sum of the step's losses over all ranks; on the way they agree whether to save and whether to end."""
        loss = self.step_sums.loss().to(self.args.device)
        wishes = loss.new_tensor(self.stop.wishes() if self.stop else [0.0, 0.0])
        loss_sum, stop, due = self._reduce(torch.cat([loss[None], wishes])).tolist()
        if self.stop:
            self.stop.agree(stop > 0, due > 0)
        return float(loss_sum)

    def _bad_alone(self) -> dict[str, list[str]]:
        """This rank's pairs and views of the step whose own gradient is not finite; none where weights are sharded."""
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return {}
        return bad_alone(self.train_dataset, self.state.global_step, self.objective.views, self._is_finite)

    def _is_finite(self, batch: Batch) -> bool:
        moved = batch.to(self.args.device)
        result = self.objective(self.forward.token_logps(self.model, moved.rows), moved)
        trained = [weight for weight in self.model.parameters() if weight.requires_grad]
        gradients = torch.autograd.grad(result.loss_B.sum(), trained, allow_unused=True)
        return all(gradient is None or bool(gradient.isfinite().all()) for gradient in gradients)

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Whether no validation was better so far; its checkpoint is made and kept."""
        loss = metrics.get(VALIDATION + "loss")
        best = loss is not None and (self.state.best_metric is None or loss < self.state.best_metric)
        if best:
            self.state.best_metric, self.state.best_global_step = loss, self.state.global_step
            self.control.should_save = True
        return best

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Save the checkpoint with each rank's running sums; the mark that it is whole comes last, after every rank."""
        with self.clock.part("checkpoint"):
            super()._save_checkpoint(model, trial)
            folder = checkpoint_folder(Path(self.args.output_dir), self.state.global_step)
            said = {"steps_skipped": str(self.steps_skipped), "clock": json.dumps(self.clock.state())}
            save_file(self.sums.tensors(), self._sums_path(folder), said)
            self.accelerator.wait_for_everyone()
            if self.is_world_process_zero():
                mark_complete(folder)
                best = self.state.best_global_step
                keep_checkpoints(folder.parent, {self.state.global_step, *([best] if best else [])})

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Tied weights are saved under one of their names; that the other is missing needs no word."""
        tied = getattr(self.model, "all_tied_weights_keys", None) or {}
        missing = [key for key in load_result.missing_keys if key not in tied]
        super()._issue_warnings_after_load(load_result._replace(missing_keys=missing))

    def go_on_from(self, checkpoint: Path) -> None:
        """Take up the running sums and the clock where a checkpoint left them."""
        with safe_open(self._sums_path(checkpoint), "pt") as file:
            self.sums.take({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 (no mapping)
            self.steps_skipped = int(file.metadata()["steps_skipped"])
            self.clock.go_on_from(json.loads(file.metadata()["clock"]))

    def load_best(self) -> None:
        """Take the weights of the lowest validation loss.

        Raises:
            NotFinite: no validation loss was finite.
        """
        if not self.state.best_global_step:
            raise NotFinite("train.publish is best, but no validation loss was finite; lower train.learning_rate")
        best = checkpoint_folder(Path(self.args.output_dir), self.state.best_global_step)
        self.state.best_model_checkpoint = str(best)
        self._load_best_model()

    def _sums_path(self, checkpoint: Path) -> Path:
        return checkpoint / f"sums-{self.args.process_index}.safetensors"

    def _micro_batch(self, model: torch.nn.Module, batch: Batch) -> Tensor:
        with self.clock.part("forward"):
            loss: Tensor = self.compute_loss(model, batch)
        with self.clock.part("backward"):
            self.accelerator.backward(loss)
        return loss.detach()

    @contextmanager
    def _adding_up(self, model: torch.nn.Module, last: bool) -> Iterator[None]:
        """Within the block gradients stay in their rank, unless it is the step's last micro-batch."""
        self.accelerator.gradient_state._set_sync_gradients(last)
        sharded_by_deepspeed = self.accelerator.distributed_type == DistributedType.DEEPSPEED
        with nullcontext() if last or sharded_by_deepspeed else self.accelerator.no_sync(model):
            yield

    def _reduce(self, sums: Tensor) -> Tensor:
        reduced: Tensor = self.accelerator.reduce(sums.to(self.args.device), reduction="sum")
        return reduced


class ViewSums:
    """Running sums of what is logged per view, on the device: nothing waits for the host until `means`."""

    def __init__(self, views: Sequence[str]) -> None:
        self.views = tuple(views)
        self._sums: dict[str, Tensor] = {}

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

    def merge(self, other: ViewSums) -> None:
        """Add what another one added up."""
        for name, value in other._sums.items():
            self._add(name, value)

    def loss(self) -> Tensor:
        """The sum of the pairs' losses."""
        return self._sums["loss"]

    def tensors(self) -> dict[str, Tensor]:
        """The sums by name, as they are saved."""
        return {name: value.contiguous() for name, value in self._sums.items()}

    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from saved sums."""
        self._sums.update(tensors)

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
        known = self._sums.get(name)
        self._sums[name] = value if known is None else known.to(value.device) + value


class StepTaken(TrainerCallback):
    """Tells the forward pass that the gradients have served, which transformers drops next."""

    def __init__(self, forward: PolicyForward) -> None:
        self._forward = forward

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        """The weights are stepped."""
        self._forward.step_taken()
