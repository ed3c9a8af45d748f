"""Low-rank adapters (LoRA, QLoRA) through peft, and the pointer with which a folder of adapters names its pinned base.

peft takes seconds to import and is imported only where there is an adapter.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from hashlib import file_digest
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amopo_core.atomic import write_json
from amopo_core.config import Adapter
from amopo_core.errors import UserError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

CONFIG, WEIGHTS, POINTER = "adapter_config.json", "adapter_model.safetensors", "base.json"
"""What a folder of adapters holds, besides the tokenizer."""
ALL_LINEAR = "all-linear"
_CARD = "README.md"
"""A model card of peft's own, with nothing filled in."""


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds adapters instead of a whole policy."""
    return (folder / CONFIG).is_file()


def base_digests(base: Path) -> dict[str, str]:
    """SHA-256 of what decides a base's numbers, as `sha256sum` prints it: its configuration and its weights."""
    return {path.name: _sha256(path) for path in [base / "config.json", *sorted(base.glob("*.safetensors"))]}


def pointer_to(base: Path) -> dict[str, Any]:
    """The pointer to a base: its path in the project, and the digests that pin it.

    Raises:
        UserError: the base lies outside the project, where no clone would find it.
    """
    path = Path(os.path.relpath(base))
    if ".." in path.parts:
        raise UserError(f"{base}: adapters name their base by its path in the project, and this one lies outside of it")
    return {"path": path.as_posix(), "sha256": base_digests(base)}


def read_pointer(folder: Path) -> dict[str, Any]:
    """The pointer of a folder of adapters.

    Raises:
        UserError: there is none, it has another form, or it leads out of the project.
    """
    path = folder / POINTER
    try:
        pointer = json.loads(path.read_text(encoding="utf-8"))
        base, digests = Path(pointer["path"]), pointer["sha256"]
        well_formed = isinstance(digests, dict) and bool(digests)
    except (OSError, ValueError, KeyError, TypeError):
        well_formed = False
    if not well_formed:
        raise UserError(
            f'{folder} holds adapters, but {POINTER} names no base: expected {{"path": "models/base", "sha256":'
            ' {"model.safetensors": "…"}}; train again, or bring the folder anew'
        )
    if base.is_absolute() or ".." in base.parts:
        raise UserError(f"{path}: the base's path is {base}; expected one within the project, such as models/base")
    return {"path": base.as_posix(), "sha256": digests}


def pinned_base(folder: Path) -> Path:
    """The base that the adapters of a folder were trained on, relative to the project; its bytes are compared.

    Raises:
        UserError: the base is not there, or is another one.
    """
    pointer = read_pointer(folder)
    base = Path(pointer["path"])
    if not (base / "config.json").is_file():
        raise UserError(
            f"{folder} holds adapters of {base}, and there is no policy; `dvc checkout` brings it, and commands are"
            " started in the project's folder"
        )
    _compare(folder, base, pointer["sha256"], base_digests(base))
    return base


def with_adapter(model: PreTrainedModel, adapter: Adapter, *, seed: int) -> PreTrainedModel:
    """The model wrapped by peft, its adapters the only weights that train; the seed decides their first values.

    Raises:
        UserError: `target_modules` names a layer that the model does not have.
    """
    import torch
    from peft import LoraConfig, TaskType, get_peft_model

    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM,
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=targets(model, adapter.target_modules),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        wrapped: PreTrainedModel = get_peft_model(model, config)
    model.enable_input_require_grads()  # or recomputed blocks, whose own weights are frozen, would get no gradient
    return wrapped


def targets(model: PreTrainedModel, wanted: list[str]) -> list[str]:
    """Full names of the layers to adapt, in the model's order.

    Raises:
        UserError: a name fits no linear layer, or only the output layer, which stays as it is.
    """
    names = _linear_layers(model)
    if wanted == [ALL_LINEAR]:
        return names
    for name in wanted:
        if not any(_ends_with(full, name) for full in names):
            known = ", ".join(dict.fromkeys(full.rpartition(".")[2] for full in names))
            raise UserError(
                f"train.adapter.target_modules: {name!r} is no linear layer of this policy that can be adapted;"
                f" expected [{ALL_LINEAR}] or some of {known}"
            )
    return [full for full in names if any(_ends_with(full, name) for name in wanted)]


def merged(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The base with the adapters of the folder added to its weights: a plain model again."""
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning
        )  # peft asks for it
        plain: PreTrainedModel = PeftModel.from_pretrained(model, folder, torch_device="cpu").merge_and_unload()
    return plain


def quantized(dtype: torch.dtype) -> Mapping[str, Any]:
    """What `from_pretrained` needs to hold a base in 4 bits (NF4, scales quantised too).

    Raises:
        UserError: bitsandbytes is not installed, or cannot quantise these numbers.
    """
    import torch
    from transformers import BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        raise UserError(
            "train.adapter.base_bits is 4, which needs bitsandbytes: pip install -c constraints.txt -e '.[qlora]'"
        )
    if dtype == torch.float64:
        raise UserError("train.adapter.base_bits is 4 and train.precision float64; 4 bits need float32 or narrower")
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
    return {"quantization_config": config, "device_map": {"": "cpu"}}  # the rank moves it to its device


def follow_inputs(model: PreTrainedModel) -> None:
    """Let 4-bit layers compute in the numbers that come in, as every other layer does, instead of always in float32.

    On CPUs they also keep their weights as they are: bitsandbytes would pack them for generation, which only some
    shapes allow.
    """
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.compute_dtype, module.compute_type_is_set = None, True
            module.support_avx512bf16_for_cpu = False


def write_pointer(folder: Path, base: Path) -> None:
    """Complete what peft saved: the pointer to the base, and a configuration that is the same every time."""
    pointer = pointer_to(base)
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    config["base_model_name_or_path"] = pointer["path"]
    config["target_modules"] = sorted(config["target_modules"])  # a set in peft, in another order in every process
    write_json(folder / CONFIG, config)
    write_json(folder / POINTER, pointer)
    (folder / _CARD).unlink(missing_ok=True)


def _compare(folder: Path, base: Path, pinned: Mapping[str, str], found: Mapping[str, str]) -> None:
    for name in sorted({*pinned, *found}):
        if pinned.get(name) != found.get(name):
            raise UserError(
                f"{folder} holds adapters of another base: {base / name} has SHA-256 {found.get(name, 'none')}, the"
                f" adapters were trained on {pinned.get(name, 'none')}; bring that base back (`git checkout` of the"
                " commit's dvc.lock, then `dvc checkout`), or train again"
            )


def _linear_layers(model: PreTrainedModel) -> list[str]:
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    return [
        name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D) and module is not head
    ]


def _ends_with(full: str, name: str) -> bool:
    return full == name or full.endswith(f".{name}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
