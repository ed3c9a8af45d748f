"""A version as a folder of its own, for other programs: a transformers checkpoint and what it is."""

from __future__ import annotations

from hashlib import file_digest
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
from mlflow import MlflowClient

from amopo_core.errors import UserError
from tasks.checkpoint import bring
from tasks.registry import MODEL, POLICY_TAG, Version
from tasks.tracking import COMMIT_TAG, reaching_mlflow
from tasks.version_note import CARD_FILE, is_cut

CARD = "README.md"
_HEADER = "---\nlibrary_name: transformers\npipeline_tag: text-generation\n---\n"
_NAMES = {
    "MLflow run": "run",
    "commit": COMMIT_TAG,
    "policy": POLICY_TAG,
    "preference pairs": "data/pairs",
    "feedback": "data/feedback",
    "starting policy": "base",
}
"""What the card says of a version, by the tag that holds it; the digests are DVC's."""


def export(version: Version, folder: Path) -> list[str]:
    """Write the version's checkpoint with its card to `folder`, which appears whole or not at all.

    Returns:
        The files' names.

    Raises:
        UserError: the folder holds something, or the version's files do not load.
    """
    from amopo_core.policy import load_policy, make_readable

    require_empty(folder)
    folder = folder.absolute()
    with _beside(folder) as scratch:
        beside = Path(scratch) / "policy"
        bring(version, beside)
        load_policy(beside)  # what does not load here loads nowhere
        (beside / CARD).write_text(_card(version, beside), encoding="utf-8")
        make_readable(beside)
        if folder.exists():
            folder.rmdir()
        beside.rename(folder)
    return sorted(path.name for path in folder.iterdir())


def _beside(folder: Path) -> TemporaryDirectory[str]:
    """A folder on the same disk, that of the user or one that is made for it."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        return TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.")
    except FileNotFoundError as error:
        raise UserError(f"{folder} cannot be made ({error.strerror}); name a folder on a disk") from None


def require_empty(folder: Path) -> None:
    """Refuse a folder in which there is something."""
    if folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty; name a new folder, or empty this one first")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; expected a folder that is new or empty")


def _card(version: Version, folder: Path) -> str:
    card = whole_card(version)
    named = [f"| {name} | `{version.tags[tag]}` |" for name, tag in _NAMES.items() if tag in version.tags]
    files = [f"| `{path.name}` | `{_sha256(path)}` |" for path in sorted(folder.iterdir()) if path.is_file()]
    where = [
        f"## Where it comes from\n\nVersion {version.number} of the registered model `{MODEL}`.\n",
        "| what | name or digest |\n| --- | --- |",
        *named,
        "\n| file | SHA-256 |\n| --- | --- |",
        *files,
    ]
    return "\n".join([_HEADER, card.strip(), "", *where, ""])


def whole_card(version: Version) -> str:
    """The version's model card: MLflow shows it as the description, of a long one a part."""
    with reaching_mlflow():
        note = MlflowClient().get_model_version(MODEL, version.number).description or ""
        return str(mlflow.artifacts.load_text(f"{version.uri}/{CARD_FILE}")) if is_cut(note) else note


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
