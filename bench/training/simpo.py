"""TRL's SimPO on the same pairs, a row a view: its collator, its loss, its trainer."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from datasets import Dataset, disable_progress_bars
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast, Trainer

from amopo_core.training.encoding import EncodedPair
from bench.training.published import IGNORED, common_arguments
from bench.training.task import BETA, MARGIN, VIEWS, Task, make_pairs

os.environ |= {"TRL_EXPERIMENTAL_SILENCE": "1", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def rows(pair: EncodedPair) -> list[dict[str, list[int]]]:
    """A pair as TRL's collator takes it, once a view."""
    found = []
    for prompt in pair.prompts:
        assert prompt is not None
        row = {"prompt_input_ids": prompt, "prompt_attention_mask": [1] * len(prompt)}
        for side, response in (("chosen", pair.chosen), ("rejected", pair.rejected)):
            ids = prompt + response
            row |= {
                f"{side}_input_ids": ids,
                f"{side}_attention_mask": [1] * len(ids),
                f"{side}_labels": [IGNORED] * len(prompt) + response,
            }
        found.append(row)
    return found


def trainer(task: Task, output: Path) -> Trainer:
    """TRL's trainer; the rows are token ids already, so that only its tokenisation is passed over."""
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    class OnTokens(CPOTrainer):
        def tokenize_row(self, feature: dict[str, Any], model: Any = None) -> dict[str, Any]:
            return feature

    disable_progress_bars()
    args = CPOConfig(
        output_dir=str(output),
        loss_type="simpo",
        cpo_alpha=0.0,
        beta=BETA,
        simpo_gamma=MARGIN,
        per_device_train_batch_size=task.micro_batch,
        gradient_accumulation_steps=task.pairs_per_step * VIEWS // task.micro_batch,
        **common_arguments(task),
    )
    return OnTokens(
        model=task.shape.policy(task.precision, task.device),
        args=args,
        train_dataset=Dataset.from_list([row for pair in make_pairs(task) for row in rows(pair)]),
        processing_class=_tokenizer(),
    )


def _tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer that only says what padding is."""
    words = {"<pad>": 0, "<end>": 1}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>")
