"""history.jsonl, written while training goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from amopo_core.atomic import replacing


class HistoryWriter(TrainerCallback):
    """Writes history.jsonl while training goes on."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Begin with what a resumed run had logged by its checkpoint."""
        if state.is_world_process_zero:
            with replacing(self.path) as file:
                file.writelines(map(history_line, state.log_history))

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Append the newest line."""
        if state.is_world_process_zero:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(history_line(state.log_history[-1]))


def history_line(row: Mapping[str, float]) -> str:
    """One line of history.jsonl: the step first, the rest by name, 8 significant digits."""
    rest = {name: float(f"{value:.8g}") for name, value in sorted(row.items()) if name != "step"}
    return json.dumps({"step": row["step"]} | rest) + "\n"
