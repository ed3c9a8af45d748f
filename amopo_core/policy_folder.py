"""What a folder must hold to be a policy, looked at without loading it."""

from pathlib import Path

from amopo_core.adapter import CONFIG, WEIGHTS, is_adapter, pinned_base
from amopo_core.errors import UserError


def check_policy_folder(folder: Path) -> None:
    """Refuse what is no transformers checkpoint with weights in safetensors, before anything is loaded.

    A folder of adapters needs weights and tokenizer of its own, and its pinned base.
    """
    if not folder.is_dir():
        raise UserError(
            f"{folder}: expected a folder with a transformers checkpoint,"
            f" found {'a file' if folder.exists() else 'nothing'}"
        )
    if is_adapter(folder):
        if not (folder / WEIGHTS).is_file():
            raise UserError(f"{folder} has {CONFIG}, but no {WEIGHTS}")
        check_policy_folder(pinned_base(folder))
    elif not (folder / "config.json").is_file():
        raise UserError(f"{folder} is no transformers checkpoint: it has no config.json")
    if not any(folder.glob("*.safetensors")):
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
        mend = "; convert its weights, pickles are not loaded" if pickled else ""
        raise UserError(f"{folder} holds no weights in safetensors{mend}")
    if not ((folder / "tokenizer.json").is_file() or (folder / "tokenizer_config.json").is_file()):
        raise UserError(f"{folder} holds no tokenizer (tokenizer.json)")
