"""From a verdict to champion, in a real registry: whoever stops or comes between, nobody's choice is lost."""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from prefect.logging import disable_run_logger

from amopo_core.errors import UserError
from amopo_core.promotion import Verdict
from tasks import approval, ledger, settlement, succession, telling
from tasks.errors import OutsideError
from tasks.registry import CHALLENGER, CHAMPION, MODEL, VERDICT_TAG, Version, by_number
from tasks.standing import AWAITING, NOT_PROMOTED, PROMOTED, SUPERSEDED

YES, NO = Verdict(True, ("overall +0.2",)), Verdict(False, ("overall -0.1",))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A registry in which there is no model."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"
    mlflow.set_tracking_uri(uri)
    MlflowClient().search_registered_models()
    return uri


@pytest.fixture
def client(store: str, tmp_path: Path) -> MlflowClient:
    """Four versions, of which the first is champion by the ledger and by its alias."""
    mlflow.set_tracking_uri(store)
    client = MlflowClient()
    for model in client.search_registered_models():
        client.delete_registered_model(model.name)
    client.create_registered_model(MODEL)
    for _ in range(4):
        client.create_model_version(MODEL, str(tmp_path))
    ledger.move("1", after=ledger.read(), how="promoted", why="better", by="Ann")
    return client


def version(number: str) -> Version:
    found = by_number(number)
    assert found is not None
    return found


def verdict_on(number: str) -> str | None:
    return version(number).tags.get(VERDICT_TAG)


def settle(number: str, verdict: Verdict, rival: str, *, needs_approval: bool = False) -> str:
    with disable_run_logger():
        return settlement.settle.fn(version(number), verdict, version(rival), needs_approval=needs_approval)


def served(client: MlflowClient) -> str:
    return str(client.get_registered_model(MODEL).aliases[CHAMPION])


def test_who_moves_the_alias_in_mlflow_during_a_training_is_not_overruled(client: MlflowClient) -> None:
    client.set_registered_model_alias(MODEL, CHAMPION, "2")
    with pytest.raises(OutsideError, match="was compared with version 1, and version 2 is champion by now"):
        settle("4", YES, rival="1")

    assert served(client) == "2"
    assert ledger.read().entries[-1].how == "moved outside"


def test_the_rival_is_whom_somebody_has_just_moved_the_alias_to(client: MlflowClient) -> None:
    client.set_registered_model_alias(MODEL, CHAMPION, "2")

    assert settlement.rival_of(None) == version("2")


def test_a_version_that_waits_goes_on_waiting_where_a_newer_one_is_refused(client: MlflowClient) -> None:
    settle("2", YES, rival="1", needs_approval=True)
    client.set_registered_model_alias(MODEL, CHAMPION, "3")
    with pytest.raises(OutsideError):
        settle("4", YES, rival="1")

    assert [each.number for each in approval.waiting()] == ["2"]


@pytest.mark.parametrize(("needs_approval", "waiting"), [(True, ["4"]), (False, [])])
def test_a_newer_yes_that_had_its_effect_supersedes(
    client: MlflowClient, needs_approval: bool, waiting: list[str]
) -> None:
    settle("2", YES, rival="1", needs_approval=True)
    settle("3", NO, rival="1")
    assert [each.number for each in approval.waiting()] == ["2"]
    settle("4", YES, rival="1", needs_approval=needs_approval)

    assert [each.number for each in approval.waiting()] == waiting
    assert (verdict_on("2"), verdict_on("3")) == (SUPERSEDED, NOT_PROMOTED)


def test_a_champion_that_still_waits_on_paper_is_not_superseded(client: MlflowClient) -> None:
    """`amopo promote` was killed behind the alias."""
    settle("2", YES, rival="1", needs_approval=True)
    ledger.move("2", after=ledger.read(), how="promoted by hand", why="fine", by="Ann")
    settle("4", YES, rival="2", needs_approval=True)

    assert verdict_on("2") == PROMOTED
    assert [each.number for each in approval.waiting()] == ["4"]


def test_the_same_promotion_again_completes_what_was_killed_behind_the_alias(client: MlflowClient) -> None:
    settle("2", YES, rival="1", needs_approval=True)
    ledger.move("2", after=ledger.read(), how="promoted by hand", why="fine", by="Ann")
    succession.promote(version("2"), why="fine", by="Ann")

    assert verdict_on("2") == PROMOTED
    assert approval.waiting() == []
    with pytest.raises(UserError, match="champion already"):
        succession.promote(version("2"), why="fine", by="Ann")


def test_who_waits_is_found_by_number_and_by_alias(client: MlflowClient) -> None:
    for number in ("2", "3"):
        client.set_model_version_tag(MODEL, number, VERDICT_TAG, AWAITING)
    client.set_registered_model_alias(MODEL, CHALLENGER, "3")

    assert approval.require_waiting("2").number == "2"
    assert approval.require_waiting("challenger").number == "3"
    with pytest.raises(UserError, match="version 1 does not wait for approval: its verdict is `not decided yet`"):
        approval.require_waiting("champion")
    with pytest.raises(UserError, match="several versions wait for approval: 2, 3; name one"):
        approval.require_waiting(None)


@pytest.mark.usefixtures("client")
def test_every_verdict_is_told_once_also_by_the_run_behind_the_one_that_was_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[tuple[str, ...]] = []
    monkeypatch.setattr(telling, "notify", lambda *message: told.append(message))
    telling.tell_verdict(version("3"))  # from before there was such a tag
    settle("3", NO, rival="1")
    settle("4", YES, rival="1")
    for _ in range(2):
        telling.tell_verdict(version("3"))
        telling.tell_verdict(version("4"))

    assert told == [
        ("verdict", "models:/amopo/3: not promoted", "overall -0.1"),
        ("promotion", "models:/amopo/4: promoted", "overall +0.2"),
    ]


@pytest.mark.usefixtures("client")
def test_what_a_person_has_answered_is_told_by_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    settle("2", YES, rival="1", needs_approval=True)
    approval.reject(version("2"), why="too long", by="Ann")
    monkeypatch.setattr(telling, "notify", lambda *message: pytest.fail(f"told {message}"))

    telling.tell_verdict(version("2"))
