"""MLflow's registry: which policy is which, and who is champion."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import version as installed
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.models.model import ModelInfo
from mlflow.types.schema import ColSpec, Schema
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from amopo_core.adapter import is_adapter, read_pointer
from amopo_core.config import Params
from amopo_core.data.tables import read_pairs
from amopo_core.errors import UserError
from amopo_core.evaluation.comparison import Comparison
from amopo_core.evaluation.model_card import model_card
from tasks.tracking import COMMIT_TAG, EXPERIMENT, reaching_mlflow
from tasks.version_note import version_note

if TYPE_CHECKING:
    from amopo_core.policy import Policy

MODEL = "amopo"
CHAMPION, CHALLENGER = "champion", "challenger"
LOCK_TAG, POLICY_TAG = "lock", "policy"
PROMOTION_TAG = "promotion"
"""The digest of what a version is decided by: with other limits the same policy is another version."""
DECISION_TAG, VERDICT_TAG = "decision", "verdict"
"""Written in this order: the decision before anything moves, the verdict when nothing is left to do."""
POLICY = Path("models/policy")
BASE = "base"
"""Key of a merged version's metadata: the path and the digests of the base that its adapters were trained on."""
ADAPTER = "adapter"
"""Folder of a run's artifacts: the adapters as they were trained."""
_REQUIREMENTS = ("torch", "transformers", "accelerate", "tokenizers", "safetensors")
_TO_REGISTER = ("amopo_core.policy", "transformers.modeling_utils", "huggingface_hub", "mlflow.transformers")
"""Modules that take seconds to import."""
_CARD_HEADER = "---\nlibrary_name: transformers\npipeline_tag: text-generation\n---\n\n"
"""The metadata block that a model card of transformers begins with."""


@dataclass(frozen=True)
class Version:
    """A version of the registered model."""

    number: str
    run_id: str
    tags: Mapping[str, str] = field(compare=False)

    @property
    def settled(self) -> bool:
        """Whether a run came to its end with this version."""
        return VERDICT_TAG in self.tags

    @property
    def uri(self) -> str:
        """Where MLflow loads it from."""
        return f"models:/{MODEL}/{self.number}"


def by_alias(alias: str) -> Version | None:
    """The version that has the alias, if any has."""
    return _if_any(lambda: MlflowClient().get_model_version_by_alias(MODEL, alias))


def by_number(number: str) -> Version | None:
    """The version of that number, if there is one."""
    return _if_any(lambda: MlflowClient().get_model_version(MODEL, number))


def by_lock(digest: str, promotion: str) -> Version | None:
    """The newest version of the digests of lock file and section `promotion`, if there is one."""
    return _newest_of(f"name = '{MODEL}' and tags.{LOCK_TAG} = '{digest}' and tags.{PROMOTION_TAG} = '{promotion}'")


def by_run(run_id: str) -> Version | None:
    """The newest version that came out of the run, if any did."""
    return _newest_of(f"name = '{MODEL}' and run_id = '{run_id}'")


def by_verdict(verdict: str) -> list[Version]:
    """The versions of that verdict, oldest first."""
    with reaching_mlflow():
        found = MlflowClient().search_model_versions(f"name = '{MODEL}' and tags.{VERDICT_TAG} = '{verdict}'")
    return sorted(map(_version, found), key=lambda version: int(version.number))


def named(name: str) -> Version:
    """The version of a number or an alias.

    Raises:
        UserError: there is none.
    """
    is_alias = name in (CHAMPION, CHALLENGER)
    found = by_alias(name) if is_alias else by_number(name) if name.isdecimal() else None
    if found is None:
        raise UserError(f"there is no {name if is_alias else f'version {name}'}; `amopo status` lists versions")
    return found


def newest() -> Version | None:
    """The version that was registered last, if there is any."""
    return _newest_of(f"name = '{MODEL}'")


def import_ahead() -> Thread:
    """Import in the background what registering a policy needs: seconds' worth, while a stage works elsewhere.

    Wait for the thread before this one imports anything of MLflow: each could get the other's half-made modules.
    """
    thread = Thread(target=_import, name="import ahead")  # no daemon: torch, cut off in mid-import, ends by a signal
    thread.start()
    return thread


def _import() -> None:
    with suppress(Exception):  # said where it is needed
        for name in _TO_REGISTER:
            import_module(name)


@task(task_run_name="register", cache_policy=NO_CACHE)
def register(run_id: str, params: Params, against_base: Comparison, tags: Mapping[str, str]) -> Version:
    """The new version of the trained policy, with its model card.

    Adapters are registered merged into their base: the version needs neither peft nor today's models/base to be served
    or to be measured as champion later. The adapters stay beside it in the run, the pointer to their base in both.

    Args:
        run_id: the MLflow run that the policy came from.
        params: what it was trained with.
        against_base: what it reached.
        tags: what names the version; `lock`, `policy` and `data/pairs` among them.
    """
    from huggingface_hub import ModelCard

    from amopo_core.policy import load_policy

    get_run_logger().info("registering the policy")
    policy = load_policy(POLICY)
    base = read_pointer(POLICY) if is_adapter(POLICY) else None
    policy.model.name_or_path = (
        f"./{POLICY}"  # no possible hub id, or MLflow would ask the hub for its card and licence
    )
    card = model_card(
        params,
        against_base,
        baseline="base",
        data_digest=tags["data/pairs"],
        chat_template=policy.tokenizer.chat_template,
    )
    with reaching_mlflow():
        mlflow.set_experiment(EXPERIMENT)  # or the model, which follows no active run, would lie in MLflow's default
        logged = mlflow.transformers.log_model(
            {"model": policy.model, "tokenizer": policy.tokenizer},
            name="policy",
            run_id=run_id,
            task="text-generation",
            model_card=ModelCard(_CARD_HEADER + card),
            signature=ModelSignature(Schema([ColSpec("string")]), Schema([ColSpec("string")])),
            input_example=_example_prompt(policy),
            pip_requirements=[f"{name}=={installed(name).partition('+')[0]}" for name in _REQUIREMENTS],
            metadata={BASE: base} if base else None,
        )
        if base:
            MlflowClient().log_artifacts(run_id, str(POLICY), ADAPTER)
        return _create_version(run_id, logged, card, tags)


@task(task_run_name="challenger", cache_policy=NO_CACHE)
def challenge(version: Version, commit: str) -> None:
    """Give a version that is new, or that a stopped run left behind, its alias and the commit that holds it now."""
    with reaching_mlflow():
        tag(version, COMMIT_TAG, commit)
        MlflowClient().set_registered_model_alias(MODEL, CHALLENGER, version.number)
    get_run_logger().info("%s, alias %s", version.uri, CHALLENGER)


def tag(version: Version, name: str, value: str) -> None:
    """Write a tag on the version."""
    MlflowClient().set_model_version_tag(MODEL, version.number, name, value)


def _newest_of(filter_string: str) -> Version | None:
    with reaching_mlflow():
        found = MlflowClient().search_model_versions(filter_string)
    return _version(max(found, key=lambda version: int(version.version))) if found else None


def _if_any(find: Callable[[], ModelVersion]) -> Version | None:
    with reaching_mlflow():
        try:
            return _version(find())
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return None
            raise


def _create_version(run_id: str, logged: ModelInfo, card: str, tags: Mapping[str, str]) -> Version:
    client = MlflowClient()
    if not client.search_registered_models(f"name = '{MODEL}'"):
        client.create_registered_model(MODEL)
    return _version(
        client.create_model_version(
            MODEL,
            logged.model_uri,
            run_id,
            tags=dict(tags),
            description=version_note(card),
            model_id=logged.model_id,
        )
    )


def _version(found: ModelVersion) -> Version:
    return Version(str(found.version), str(found.run_id), dict(found.tags))


def _example_prompt(policy: Policy) -> str:
    """A test prompt as the policy reads it, template included."""
    from amopo_core.chat import ChatEncoder

    prompt = read_pairs(Path("data/pairs/test.parquet"))[0].prompt
    encoded = ChatEncoder(policy.tokenizer).parts(prompt)
    return str(policy.tokenizer.decode(encoded.fit(encoded.text).ids))
