"""The ledger: who was champion from when to when, why and by whom. Tags of MLflow's registered model, one an entry."""

from __future__ import annotations

import json
import random
import time
from dataclasses import asdict
from datetime import UTC, datetime
from secrets import token_hex

from mlflow import MlflowClient
from mlflow.entities.model_registry import RegisteredModel
from mlflow.exceptions import MlflowException

from tasks.errors import OutsideError
from tasks.ledger_state import DONE, LONGEST, Entry, How, Ledger, kept_in, key_of, keys_of
from tasks.registry import CHAMPION, MODEL, by_number
from tasks.tracking import reaching_mlflow

_OUTSIDE = "unknown, not this program"
_TRIES = 8
_UNDER_WAY = 5.0
"""How long an entry without its alias may be a command that works at this moment [seconds]."""


def read() -> Ledger:
    """The ledger as it stands, without a look at what is due."""
    with reaching_mlflow():
        model = _model()
    if model is None:
        return Ledger((), None)
    alias = dict(model.aliases).get(CHAMPION)
    return Ledger(kept_in(dict(model.tags)), None if alias is None else str(alias))


def reconcile() -> tuple[Ledger, str | None]:
    """Write down what became of the alias outside the ledger, complete what a killed command began; say what was found.

    Returns:
        The ledger after that, and what a person should know; None where all is well.
    """
    found = _after_who_is_at_work()
    said = found.trouble
    last = found.kept[-1] if found.kept else None
    with reaching_mlflow():
        if found.standing == "unwritten" and found.alias:
            _note(found, found.alias, "began", "champion already when the ledger began", "unknown")
        elif found.standing == "moved":
            _note(found, found.alias, "moved outside", "the alias was moved, not by this program", _OUTSIDE)
        elif found.standing == "lost":
            _note(found, None, "lost", "the alias was removed, not by this program", _OUTSIDE)
        elif found.standing == "pending" and last and last.entry.version and not by_number(last.entry.version):
            said = _give_up(found, last.entry.version)
        elif found.standing == "pending" and last and last.entry.version:
            _serve(last.entry.version)
            _mark(last.key)
            said = f"version {last.entry.version} is champion now: the command that promoted it was killed half-way"
        elif last and not last.done:
            _mark(last.key)
    return read(), said


def move(version: str, *, after: Ledger, how: How, why: str, by: str) -> None:
    """Make the version champion: the entry first, then the alias in one call, then the mark that both are there.

    Args:
        version: its number.
        after: the ledger by which this was decided.
        how: what kind of change it is.
        why: at most `LONGEST` characters are kept.
        by: who did it.

    Raises:
        OutsideError: somebody else changed the champion since `after`; what they did stays.
    """
    with reaching_mlflow():
        key = _append(after.number, Entry(version, _now(), how, why, by))
        _serve(version)
        _mark(key)
        now = read()
        if now.kept[-1].key != key and now.kept[-1].entry.version:  # this process stood still, and was overtaken
            _serve(now.kept[-1].entry.version)
            raise _overtaken(now)


def _append(after: int, entry: Entry) -> str:
    """The key of the new entry, number `after` + 1.

    MLflow has no "write unless there": every writer uses a key of its own, then looks for others of the same number. Of
    two that meet, at least one sees the other; who sees another takes the own entry back, waits, and looks again.
    """
    client, text = MlflowClient(), json.dumps(asdict(_shortened(entry)), ensure_ascii=False)
    for _ in range(_TRIES):
        now = read()
        if now.number != after:
            raise _overtaken(now)
        key = key_of(after + 1, token_hex(4))
        client.set_registered_model_tag(MODEL, key, text)
        model = _model()
        if model and keys_of(after + 1, dict(model.tags)) != [key]:
            client.delete_registered_model_tag(MODEL, key)
            time.sleep(random.uniform(0.05, 0.5))
        else:
            return key
    raise OutsideError("others change the champion at this very moment; nothing was changed here, try again")


def _note(found: Ledger, version: str | None, how: How, why: str, by: str) -> None:
    """Write down what is so already; who comes at the same moment and does the same is welcome to."""
    try:
        _mark(_append(found.number, Entry(version, _now(), how, why, by)))
    except OutsideError:
        if read().number == found.number:
            raise


def _give_up(found: Ledger, version: str) -> str:
    """Write down that a promotion cannot be completed; who has the alias keeps it. What a person should know."""
    why = f"version {version}, which was to be champion, was deleted in MLflow before it had the alias"
    if found.alias:
        _note(found, found.alias, "moved outside", why, _OUTSIDE)
        return f"{why}: version {found.alias} stays champion"
    _note(found, None, "lost", why, _OUTSIDE)
    return f"{why}: nobody is served; `amopo promote VERSION --reason TEXT` or the next `amopo retrain` changes that"


def _after_who_is_at_work() -> Ledger:
    """The ledger; where a command is about to move the alias, after it did or had the time to."""
    deadline = time.monotonic() + _UNDER_WAY
    while (found := read()).standing == "pending" and time.monotonic() < deadline and _is_young(found.entries[-1]):
        time.sleep(0.2)
    return found


def _is_young(entry: Entry) -> bool:
    age = (datetime.now(UTC) - datetime.fromisoformat(entry.at)).total_seconds()
    return -_UNDER_WAY < age < _UNDER_WAY


def _serve(version: str) -> None:
    MlflowClient().set_registered_model_alias(MODEL, CHAMPION, version)


def _mark(key: str) -> None:
    MlflowClient().set_registered_model_tag(MODEL, key + DONE, _now())


def _model() -> RegisteredModel | None:
    try:
        return MlflowClient().get_registered_model(MODEL)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def _overtaken(now: Ledger) -> OutsideError:
    last = now.entries[-1] if now.kept else None
    said = (
        f"version {last.version or 'none'} is champion since {last.at}, by {last.by}" if last else "the ledger is gone"
    )
    return OutsideError(
        f"the champion was changed by somebody else meanwhile, and nothing was changed here: {said};"
        " look at `amopo history`, then run the same command again"
    )


def _shortened(entry: Entry) -> Entry:
    return Entry(entry.version, entry.at, entry.how, entry.why[:LONGEST], entry.by[:200])


def _now() -> str:
    return datetime.now(UTC).isoformat(sep=" ", timespec="seconds")
