"""The published step, re-stated: what it computes, and how, one pair a micro-batch.

Eight sequences a pair are padded together, all their positions go through the whole vocabulary in float32, through
log-softmax and softmax, and through a cross-entropy that nobody reads. Tokens are told by `prob != 0`, every sequence
waits for the host to draw its confidence, and the weights are a softmax over all views of all pairs of the batch.
What it does wrong to the prompts themselves (instructions that add up from view to view) is left out: every variant
reads the same tokens.

Axes: N = sequences (view 0 chosen, view 0 rejected, view 1 chosen, …, each of all pairs), T = tokens, V = vocabulary.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from amopo_core.training.encoding import EncodedPair
from bench.training.task import BETA, LEARNING_RATE, MARGIN, MAX_GRAD_NORM, VIEWS, Task, make_pairs, sequences

IGNORED = -100
MULTIPLE = 8
"""Rows are padded to a multiple of it."""

Draw = Callable[[Tensor, Tensor], Tensor]
"""A number from N(mean, std)."""


class Step(NamedTuple):
    """What the published step finds on its way, by sequence or by view."""

    sum_logps_N: Tensor
    count_N: Tensor
    average_logps_N: Tensor
    probs_NT: Tensor
    view_losses: Tensor
    weights: Tensor
    loss: Tensor
    """The mean over views and pairs of weight * loss."""
    metrics: dict[str, Tensor]


def token_values(logits_NTV: Tensor, labels_NT: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sum of log-probabilities, count, probability of each token, mask; from the logits of every position."""
    labels_NT = labels_NT[:, 1:].clone()
    logits_NTV = logits_NTV[:, :-1, :]
    mask_NT = labels_NT != IGNORED
    labels_NT[labels_NT == IGNORED] = 0
    index = labels_NT.unsqueeze(2)
    logps_NT = torch.gather(logits_NTV.log_softmax(-1), dim=2, index=index).squeeze(2)
    probs_NT = torch.gather(logits_NTV.softmax(-1), dim=2, index=index).squeeze(2)
    return (logps_NT * mask_NT).sum(-1), mask_NT.sum(-1), probs_NT.clone().detach(), mask_NT.clone().detach()


def confidences(probs_NT: Tensor, mask_NT: Tensor, draw: Draw = torch.normal) -> Tensor:
    """One draw a sequence from the Gaussian of its token probabilities, one after the other, each read by the host."""
    found = []
    for probs_T in probs_NT * mask_NT:
        selected = probs_T[probs_T != 0]
        if selected.numel() == 0:
            found.append(0.0)
            continue
        found.append(draw(torch.mean(selected), torch.std(selected)).item())
    return torch.tensor(found, dtype=probs_NT.dtype).to(probs_NT.device)


def published_step(
    logits_NTV: Tensor, labels_NT: Tensor, *, beta: float, margin: float, views: int = VIEWS, draw: Draw = torch.normal
) -> Step:
    """The loss of a batch and what it is made of."""
    sum_logps_N, count_N, probs_NT, mask_NT = token_values(logits_NTV, labels_NT)
    average_N = sum_logps_N / count_N
    pairs = len(labels_NT) // (2 * views)

    def sides(values: Tensor) -> tuple[Tensor, Tensor]:
        parts = values.split(pairs, dim=0)
        return torch.cat(parts[0::2]), torch.cat(parts[1::2])

    chosen, rejected = sides(average_N)
    chosen_logits, rejected_logits = sides(logits_NTV)  # copies of all logits, for two metrics
    losses, chosen_rewards, rejected_rewards = [], [], []
    for place in range(len(chosen)):
        ratio = chosen[place] - rejected[place]
        losses.append(-F.logsigmoid(beta * (ratio - margin / beta)))
        chosen_rewards.append(beta * chosen[place].detach())
        rejected_rewards.append(beta * rejected[place].detach())
    view_losses = torch.stack(losses)
    chosen_probs, rejected_probs = sides(probs_NT)
    chosen_mask, rejected_mask = sides(mask_NT)
    confidence = confidences(chosen_probs, chosen_mask, draw) + confidences(rejected_probs, rejected_mask, draw)
    if torch.isinf(confidence).any() or torch.isnan(confidence).any():
        confidence = torch.nan_to_num(confidence, nan=0.0, posinf=0.0, neginf=0.0)
    weights = F.softmax(confidence, dim=0)
    metrics = {
        "rewards/chosen": chosen_rewards[-1].mean().cpu(),
        "rewards/rejected": rejected_rewards[-1].mean().cpu(),
        "rewards/accuracies": (chosen_rewards[-1] > rejected_rewards[-1]).float().mean().cpu(),
        "logps/chosen": chosen.detach().mean().cpu(),
        "logps/rejected": rejected.detach().mean().cpu(),
        "logits/chosen": chosen_logits.detach().mean().cpu(),
        "logits/rejected": rejected_logits.detach().mean().cpu(),
    }
    for view in range(views):
        metrics[f"rewards/margins_{view}"] = (chosen_rewards[view] - rejected_rewards[view]).mean().cpu()
    loss = (view_losses * weights).mean()
    return Step(sum_logps_N, count_N, average_N, probs_NT, view_losses, weights, loss, metrics)


def collate(pairs: Sequence[EncodedPair]) -> dict[str, Tensor]:
    """All sequences of the pairs padded together, to the right."""
    by_pair = [sequences(pair) for pair in pairs]
    rows = [row for place in zip(*by_pair, strict=True) for row in place]
    longest = max(len(prompt) + len(response) for prompt, response in rows)
    length = -(-longest // MULTIPLE) * MULTIPLE
    input_ids = torch.zeros(len(rows), length, dtype=torch.long)
    labels = torch.full_like(input_ids, IGNORED)
    mask = torch.zeros_like(input_ids)
    for number, (prompt, response) in enumerate(rows):
        stop = len(prompt) + len(response)
        input_ids[number, :stop] = torch.tensor(prompt + response)
        labels[number, len(prompt) : stop] = torch.tensor(response)
        mask[number, :stop] = 1
    return {"input_ids": input_ids, "attention_mask": mask, "labels": labels}


class PublishedTrainer(Trainer):
    """transformers.Trainer with the published loss."""

    loss_is_scaled_for_ga = False

    def compute_loss(
        self, model: torch.nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, **_: Any
    ) -> Tensor:
        """The published loss of a micro-batch; with the labels the policy computes its cross-entropy, too."""
        logits_NTV = model(**inputs, return_dict=True, use_cache=False).logits.to(torch.float32)
        step = published_step(logits_NTV, inputs["labels"], beta=BETA, margin=MARGIN)
        print(f"Gaussian Sample weighted assignment: {step.weights}", file=sys.stderr)
        return step.loss


class PairList(Dataset[EncodedPair]):
    """Pairs by number."""

    def __init__(self, pairs: Sequence[EncodedPair]) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, number: int) -> EncodedPair:
        return self.pairs[number]


def trainer(task: Task, output: Path) -> Trainer:
    """Its trainer: AdamW as transformers had it then, which is the unfused one."""
    args = TrainingArguments(
        output_dir=str(output),
        per_device_train_batch_size=task.micro_batch,
        gradient_accumulation_steps=task.pairs_per_step // task.micro_batch,
        optim="adamw_torch",
        **common_arguments(task),
    )
    policy = task.shape.policy(task.precision, task.device)
    return PublishedTrainer(model=policy, args=args, train_dataset=PairList(make_pairs(task)), data_collator=collate)


def common_arguments(task: Task) -> dict[str, Any]:
    """What the published trainer and TRL's are told alike."""
    return {
        "max_steps": task.steps + 1,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "cosine",
        "max_grad_norm": MAX_GRAD_NORM,
        "train_sampling_strategy": "sequential",
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "use_cpu": task.is_cpu,
        "bf16": task.precision == "mixed_bfloat16",
        "gradient_checkpointing": False,
        "dataloader_pin_memory": not task.is_cpu,
        "seed": task.seed,
    }
