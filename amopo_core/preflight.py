"""What a run needs besides feedback, looked at before anything is started: a stage would find it missing too late."""

from __future__ import annotations

from pathlib import Path

from amopo_core.config import FolderBase, Params
from amopo_core.errors import UserError
from amopo_core.evaluation.judge import load_judge
from amopo_core.evaluation.regression import read_regression
from amopo_core.policy_folder import check_policy_folder
from amopo_core.redaction import load_redactor
from amopo_core.training.launch import launch_file, ranks_of


def check_inputs(params: Params) -> None:
    """Refuse a judge, a regression set, a redactor, a starting policy or a launch file that is not there or is none.

    Raises:
        UserError: with the key of params.yaml, or the variable, that names it.
    """
    ranks_of(launch_file())
    judge = load_judge(Path(params.evaluation.judge))
    read_regression(Path(params.promotion.regression), judged=judge is not None)
    load_redactor(Path(params.ingestion.redactor))
    if isinstance(params.base, FolderBase):
        try:
            check_policy_folder(Path(params.base.path))
        except UserError as error:
            mend = "name a folder with config.json, model.safetensors and tokenizer.json"
            raise UserError(f"params.yaml: base.path: {error}; {mend}") from None
