"""Loading and saving a policy: a causal language model with its tokenizer, as a transformers folder."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from amopo_core import adapter
from amopo_core.errors import UserError
from amopo_core.policy_folder import check_policy_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

FALLBACK_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if messages | length > 1 %}{{ message['role'] }}: {% endif %}{{ message['content'] }}\n"
    "{% endfor %}"
)
"""Chat template of a policy that brings none: the bare text and a line break; of several turns, each after its role."""


@dataclass(frozen=True)
class Policy:
    """A causal language model in evaluation mode, and the tokenizer that carries its chat template."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @property
    def context(self) -> int:
        """Tokens of a prompt and its response together, at most [tokens]; without bound where the model states none."""
        return getattr(self.model.config, "max_position_embeddings", None) or sys.maxsize


def load_policy(folder: Path, dtype: torch.dtype = torch.float32, *, bits: int = 16) -> Policy:
    """The policy of a local transformers folder; nothing is fetched, no code of the folder is run.

    A folder of adapters gives their pinned base with the adapters merged into it. A tokenizer without a chat template
    gets `FALLBACK_TEMPLATE`, and the log says so.

    Args:
        folder: the checkpoint, or the adapters.
        dtype: of the weights.
        bits: 4 holds the weights in 4 bits, to train adapters on them.

    Raises:
        UserError: the folder is missing, is no transformers checkpoint, has pickled weights only, has no end token, or
            holds adapters of a base that is not there or has changed.
    """
    check_policy_folder(folder)
    quiet_transformers()
    base = adapter.pinned_base(folder) if adapter.is_adapter(folder) else folder
    options = adapter.quantized(dtype) if bits == 4 else {}
    tokenizer = load_tokenizer(folder)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            base, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=dtype, **options
        )
        if base != folder:
            model = adapter.merged(model, folder)
    except Exception as error:  # transformers raises a dozen kinds for a broken folder
        raise UserError(f"{folder} does not load as a causal language model: {error}") from error
    if bits == 4:
        adapter.follow_inputs(model)
    model.eval()
    return Policy(model, tokenizer)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a policy's folder, with a chat template.

    Raises:
        UserError: it does not load, or has no end token.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises a dozen kinds for a broken folder
        raise UserError(f"{folder} holds no tokenizer that loads: {error}") from error
    if tokenizer.eos_token_id is None:
        raise UserError(f"{folder}: the tokenizer names no end token (eos_token), so no response could ever end")
    if tokenizer.chat_template is None:
        tokenizer.chat_template = FALLBACK_TEMPLATE
        _say_no_template(folder)
    return tokenizer


@cache
def _say_no_template(folder: Path) -> None:
    """Once for each folder."""
    log.warning("%s has no chat template; used instead: the bare prompt followed by a line break", folder)


def quiet_transformers() -> None:
    """Keep transformers from drowning a stage's own lines: no bars, and no advice to install kernels that a GPU has."""
    transformers_logging.disable_progress_bar()
    logging.getLogger("transformers.integrations.hub_kernels").setLevel(logging.ERROR)


def save_policy(policy: Policy, folder: Path) -> None:
    """Write the policy so that any transformers program loads it: config, safetensors, tokenizer, chat template."""
    beside = folder.with_name(folder.name + ".new")
    shutil.rmtree(beside, ignore_errors=True)
    policy.model.save_pretrained(beside)
    policy.tokenizer.save_pretrained(beside)
    make_readable(beside)
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)


def make_readable(folder: Path) -> None:
    """Give each file the mode of a new one: safetensors hides what it writes from all but its owner."""
    umask = os.umask(0)
    os.umask(umask)
    for path in folder.iterdir():
        if path.is_file():
            path.chmod(0o666 & ~umask)
