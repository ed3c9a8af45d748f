"""The starting policy: made in the playground, a local transformers folder, or a hub id at a pinned revision."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amopo_core.config import FolderBase, HubBase, Params
from amopo_core.errors import UserError

if TYPE_CHECKING:
    from amopo_core.policy import Policy

log = logging.getLogger(__name__)

HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
"""What is fetched from the hub: no pickles and no code."""


def make_base_policy(params: Params, out: Path) -> dict[str, Any]:
    """Write the starting policy to `out`; returns what is known of it.

    Raises:
        UserError: a folder that holds no checkpoint, a hub that cannot be reached, an id or revision it does not have.
    """
    match params.base:
        case FolderBase(path=path):
            return _copy(Path(path), out)
        case HubBase() as hub:
            return _copy(fetch(hub), out)
        case _:
            return _make_playground_base(params, out)


def fetch(hub: HubBase) -> Path:
    """The local folder of a pinned revision, from the hub's cache or the hub."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(hub.id, revision=hub.revision, allow_patterns=HUB_FILES))
    except LocalEntryNotFoundError:
        raise UserError(
            f"base: the hub cannot be reached, and {hub.id} at {hub.revision} is not in its local cache. Run once with"
            " a network, or download the folder elsewhere and use base: {kind: folder, path: …}"
        ) from None
    except RepositoryNotFoundError:
        raise UserError(f"base: the hub has no {hub.id}, or it is private and HF_TOKEN is not set") from None
    except HfHubHTTPError as error:
        raise UserError(f"base: the hub does not give {hub.id} at {hub.revision}: {error}") from None


def _copy(folder: Path, out: Path) -> dict[str, Any]:
    from amopo_core.policy import load_policy, save_policy

    policy = load_policy(folder)
    save_policy(policy, out)
    return describe(policy)


def _make_playground_base(params: Params, out: Path) -> dict[str, Any]:
    from amopo_core.playground.base import make_base
    from amopo_core.policy import load_policy

    report = make_base(params.playground, params.runtime, out)
    return describe(load_policy(out)) | report


def describe(policy: Policy) -> dict[str, Any]:
    """Size and shape of a policy, and the chat template it is used with."""
    from amopo_core.policy import FALLBACK_TEMPLATE

    fallback = policy.tokenizer.chat_template == FALLBACK_TEMPLATE
    return {
        "parameters": policy.model.num_parameters(),
        "vocabulary": len(policy.tokenizer),
        "context": getattr(policy.model.config, "max_position_embeddings", None),
        "chat_template": "fallback: the bare prompt and a line break" if fallback else "its own",
    }
