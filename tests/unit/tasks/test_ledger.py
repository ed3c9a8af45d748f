"""The ledger in a real registry: two at the same instant, commands killed half-way, an alias changed by others."""

from __future__ import annotations

import shutil
from pathlib import Path
from threading import Barrier, Thread

import mlflow
import pytest
from mlflow import MlflowClient

from tasks import ledger
from tasks.errors import OutsideError
from tasks.ledger_state import LONGEST
from tasks.registry import CHAMPION, MODEL

VERSIONS = 4


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a registry with nothing in it."""
    folder = tmp_path_factory.mktemp("store")
    mlflow.set_tracking_uri(f"sqlite:///{folder}/mlflow.db")
    MlflowClient().search_registered_models()
    return folder / "mlflow.db"


@pytest.fixture
def empty(store: Path, tmp_path: Path) -> MlflowClient:
    mlflow.set_tracking_uri(f"sqlite:///{shutil.copy(store, tmp_path)}")
    return MlflowClient()


@pytest.fixture
def client(empty: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """A registry with versions that nobody promoted yet."""
    monkeypatch.setattr(ledger, "_UNDER_WAY", 0.5)
    empty.create_registered_model(MODEL)
    for _ in range(VERSIONS):
        empty.create_model_version(MODEL, str(tmp_path))
    return empty


def promote(version: str, why: str = "better") -> None:
    ledger.move(version, after=ledger.read(), how="promoted", why=why, by="Ann")


def served(client: MlflowClient) -> str | None:
    version = client.get_registered_model(MODEL).aliases.get(CHAMPION)
    return None if version is None else str(version)


@pytest.mark.usefixtures("empty")
def test_without_a_model_there_is_no_champion() -> None:
    state, trouble = ledger.reconcile()

    assert (state.champion, state.number, trouble) == (None, 0, None)


def test_entry_and_alias_agree_after_a_move(client: MlflowClient) -> None:
    promote("1")
    promote("2", why="x" * (LONGEST + 1))
    state = ledger.read()

    assert served(client) == state.champion == "2"
    assert state.standing == "whole"
    assert all(kept.done for kept in state.kept)
    assert [(entry.version, entry.how, entry.by) for entry in state.entries] == [
        ("1", "promoted", "Ann"),
        ("2", "promoted", "Ann"),
    ]
    assert state.entries[1].why == "x" * LONGEST


def test_who_decided_by_an_older_ledger_changes_nothing(client: MlflowClient) -> None:
    promote("1")
    before = ledger.read()
    promote("2")

    with pytest.raises(OutsideError, match=r"changed by somebody else meanwhile.*version 2 is champion since"):
        ledger.move("3", after=before, how="promoted", why="", by="Ben")
    assert served(client) == "2"
    assert ledger.read().number == 2


def test_of_two_at_the_same_instant_one_wins_and_the_other_is_told(client: MlflowClient) -> None:
    promote("1")
    for _ in range(8):
        before, start, told, won = ledger.read(), Barrier(2), [], []

        def move(version: str, before=before, start=start, told=told, won=won) -> None:
            start.wait()
            try:
                ledger.move(version, after=before, how="promoted", why="", by=version)
                won.append(version)
            except OutsideError as error:
                told.append(str(error))

        threads = [Thread(target=move, args=(version,)) for version in ("2", "3")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        state = ledger.read()
        assert len(won) == len(told) == 1
        assert served(client) == state.champion == won[0]
        assert state.number == before.number + 1
        assert "changed by somebody else meanwhile" in told[0]


def test_two_that_see_each_other_take_their_entries_back(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have written before either looks: nobody may go on from there."""
    written, real = Barrier(2), MlflowClient.set_registered_model_tag
    monkeypatch.setattr(ledger, "_TRIES", 1)

    def set_tag(self: MlflowClient, name: str, key: str, value: str) -> None:
        real(self, name, key, value)
        written.wait()

    told: list[str] = []

    def move(version: str) -> None:
        try:
            ledger.move(version, after=before, how="promoted", why="", by=version)
        except OutsideError as error:
            told.append(str(error))

    before = ledger.read()
    monkeypatch.setattr(MlflowClient, "set_registered_model_tag", set_tag)
    looked = Barrier(2)
    real_model = ledger._model

    def model():
        found = real_model()
        looked.wait()  # neither writes, or takes its entry back, before the other has looked
        return found

    monkeypatch.setattr(ledger, "_model", model)
    threads = [Thread(target=move, args=(version,)) for version in ("2", "3")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    monkeypatch.undo()

    assert len(told) == 2
    assert served(client) is None
    assert ledger.read().entries == []


def test_a_move_that_was_overtaken_while_it_stood_still_gives_way(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was taken for killed, completed by another, and a third moved on: what is served is what the ledger says."""
    promote("1")
    real = ledger._serve

    def stand_still(version: str) -> None:
        monkeypatch.setattr(ledger, "_serve", real)
        ledger.reconcile()
        promote("3")
        real(version)

    monkeypatch.setattr(ledger, "_serve", stand_still)
    with pytest.raises(OutsideError, match="version 3 is champion since"):
        promote("2")

    assert served(client) == ledger.read().champion == "3"
    assert [entry.version for entry in ledger.read().entries] == ["1", "2", "3"]


def test_a_champion_from_before_the_ledger_is_where_it_begins(client: MlflowClient) -> None:
    client.set_registered_model_alias(MODEL, CHAMPION, "2")
    state, trouble = ledger.reconcile()

    assert trouble is None
    assert [(entry.version, entry.how) for entry in state.entries] == [("2", "began")]
    assert ledger.reconcile()[0].entries == state.entries


def test_what_a_killed_command_began_is_completed(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    promote("1")
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "_serve", lambda version: (_ for _ in ()).throw(SystemExit))
        with pytest.raises(SystemExit):
            promote("2")
    assert (served(client), ledger.read().standing) == ("1", "pending")

    state, trouble = ledger.reconcile()

    assert served(client) == state.champion == "2"
    assert trouble == "version 2 is champion now: the command that promoted it was killed half-way"
    assert ledger.reconcile()[1] is None


@pytest.mark.parametrize("before", ["1", None])
def test_a_promotion_killed_half_way_whose_version_was_deleted_is_given_up(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    """Whoever comes next would else be stopped by it for ever."""
    if before:
        promote(before)
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "_serve", lambda version: (_ for _ in ()).throw(SystemExit))
        with pytest.raises(SystemExit):
            promote("2")
    client.delete_model_version(MODEL, "2")
    state, trouble = ledger.reconcile()

    assert "version 2, which was to be champion, was deleted in MLflow before it had the alias" in str(trouble)
    assert served(client) == state.alias == before
    assert state.entries[-1].version == before
    assert state.standing == "whole"
    assert ledger.reconcile()[0].entries == state.entries
    promote("3")
    assert served(client) == ledger.read().champion == "3"


def test_an_alias_that_others_moved_or_removed_is_told_and_written_down(client: MlflowClient) -> None:
    promote("1")
    client.set_registered_model_alias(MODEL, CHAMPION, "4")
    moved, said_moved = ledger.reconcile()
    client.delete_registered_model_alias(MODEL, CHAMPION)
    lost, said_lost = ledger.reconcile()
    again, said_again = ledger.reconcile()

    assert "moved from version 1 to 4, not by this program" in str(said_moved)
    assert moved.champion == "4"
    assert "no version has the alias champion" in str(said_lost)
    assert said_again == said_lost
    assert lost.champion == "4"
    assert lost.alias is None
    assert [(entry.version, entry.how) for entry in again.entries] == [
        ("1", "promoted"),
        ("4", "moved outside"),
        (None, "lost"),
    ]
