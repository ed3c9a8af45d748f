"""`amopo promote`, `rollback` and `history`, and what they make of a killed command, a lost alias, a lost folder."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.settlement import rival_of
from tests.flow.conftest import clone
from tests.flow.promotions import MODEL, Promotions, here_fixture, made_fixture  # noqa: F401 (fixtures)

pytestmark = pytest.mark.flow

KILLED = """
import os, signal, sys
from mlflow import MlflowClient
from flows.cli import exit_status

MlflowClient.set_registered_model_alias = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
exit_status(sys.argv[1:])
"""
"""A command that is killed at the moment in which it is about to move the alias."""


def test_any_version_can_be_promoted_and_rolled_back_from(here: Promotions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    promoted = here.amopo("promote", "2", "--reason", "asked for by the support team")
    after_promotion = here.served()
    rolled = here.amopo("rollback", "--reason", "it talks nonsense", "--json")
    history = here.amopo("history", "--json").json
    shown = here.amopo("history")
    again = here.amopo("rollback", "--reason", "one more")

    assert promoted.code == 0, promoted.err
    assert "models:/amopo/2 is champion now" in promoted.out
    assert after_promotion == "2"
    assert rolled.json == {"champion": "1", "note": None}
    assert here.served() == history["champion"] == history["served"] == "1"
    rows = history["history"]
    assert [(row["version"], row["how"]) for row in rows] == [
        ("1", "promoted"),
        ("2", "promoted by hand"),
        ("1", "rolled back"),
    ]
    assert [(row["why"], row["by"]) for row in rows[1:]] == [
        ("asked for by the support team", "Ann Example"),
        ("it talks nonsense", "Ann Example"),
    ]
    assert [row["until"] for row in rows] == [rows[1]["from"], rows[2]["from"], None]
    assert "rolled back: it talks nonsense" in shown.out
    assert again.code == 2
    assert "there is no champion before the present one" in again.err


def test_a_rollback_to_a_named_version_takes_past_champions_only(here: Promotions) -> None:
    never = here.amopo("rollback", "--to", "2", "--reason", "why not")
    here.amopo("promote", "2", "--reason", "a try")
    back = here.amopo("rollback", "--to", "1", "--reason", "tried")

    assert never.code == 2
    assert "version 2 never was champion; `amopo promote 2 --reason TEXT` makes it one" in never.err
    assert back.code == 0, back.err
    assert here.served() == "1"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["promote", "77", "--reason", "x"], "there is no version 77"),
        (["promote", "best", "--reason", "x"], "there is no version best"),
        (["promote", "1", "--reason", "x"], "version 1 is champion already"),
        (["promote", "2", "--reason", " "], "--reason is empty"),
        (["promote", "2", "--reason", "x" * 2001], "--reason has 2001 characters, and the ledger keeps 2000"),
        (["promote", "2"], "Missing option '--reason'"),
        (["approve", "--reason", "x"], "no version waits for approval"),
        (["approve", "2", "--reason", "x"], "version 2 does not wait for approval: its verdict is `not promoted`"),
        (["approve", "77", "--reason", "x"], "there is no version 77"),
        (["compare", "1", "champion"], "1 and champion are both version 1"),
        (["export", "77", "somewhere"], "there is no version 77"),
    ],
)
def test_what_is_refused_changes_nothing(here: Promotions, arguments: list[str], said: str) -> None:
    refused = here.amopo(*arguments)

    assert refused.code == 2
    assert said in refused.err
    assert here.served() == "1"
    assert here.champions() == ["1"]


def without_weights(folder: Path) -> None:
    (folder / "model/model.safetensors").unlink()


def half_of_the_weights(folder: Path) -> None:
    file = folder / "model/model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def nothing_at_all(folder: Path) -> None:
    shutil.rmtree(folder)


@pytest.mark.parametrize(("harm", "code"), [(without_weights, 2), (half_of_the_weights, 2), (nothing_at_all, 1)])
def test_a_version_that_nobody_could_serve_is_refused(
    here: Promotions, tmp_path: Path, harm: Callable[[Path], None], code: int
) -> None:
    folder = tmp_path / "policy"
    shutil.copytree(here.client.get_model_version(MODEL, "2").source, folder)
    harm(folder)
    refused = here.amopo("promote", here.registered(folder), "--reason", "x")

    assert refused.code == code, refused.err
    assert "cannot be served, so it does not become champion" in refused.err
    assert here.served() == "1"
    assert not list((here.workspace.path / ".amopo").glob("version-*"))


def test_a_command_killed_before_the_alias_moves_is_completed_by_the_next(here: Promotions) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, "promote", "2", "--reason", "killed"],
        cwd=here.workspace.path,
        env=here.workspace.env | {"MLFLOW_TRACKING_URI": here.workspace.store},
        capture_output=True,
        text=True,
    )
    served, status = here.served(), here.amopo("status", "--json").json
    completed = here.amopo("history", "--json").json

    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert served == status["champion"]["version"] == "1"
    assert "version 2 is to be champion, and the alias is not there yet" in status["note"]
    assert "version 2 is champion now: the command that promoted it was killed half-way" in completed["note"]
    assert here.served() == completed["champion"] == "2"
    assert here.champions() == ["1", "2"]


def test_a_lost_alias_is_told_and_mended_and_nobody_forgets_the_champion(here: Promotions) -> None:
    here.client.delete_registered_model_alias(MODEL, "champion")
    status = here.amopo("status")
    rival = rival_of(None)
    mended = here.amopo("promote", "1", "--reason", "the alias was deleted")

    assert "champion    none is served" in status.out
    assert "`amopo promote 1 --reason TEXT` gives it back" in status.out
    assert rival is not None
    assert rival.number == "1"
    assert mended.code == 0, mended.err
    assert "no version has the alias champion" in mended.err
    assert here.served() == "1"
    assert here.champions() == ["1", None, "1"]


def test_an_alias_that_was_moved_in_mlflow_is_told_and_written_down(here: Promotions) -> None:
    here.client.set_registered_model_alias(MODEL, "champion", "2")
    rolled = here.amopo("rollback", "--reason", "back to what was measured")

    assert rolled.code == 0, rolled.err
    assert "moved from version 1 to 2, not by this program" in rolled.err
    assert here.served() == "1"
    assert here.champions() == ["1", "2", "1"]


def test_another_clone_with_the_same_registry_goes_on(
    here: Promotions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is lost; MLflow's store is not."""
    before = here.amopo("history", "--json").json
    other = clone(tmp_path / "other")
    other.git("config", "user.name", "Berta Example")
    monkeypatch.chdir(other.path)
    promoted = here.amopo("promote", "2", "--reason", "from elsewhere")
    history = here.amopo("history", "--json").json["history"]

    assert promoted.code == 0, promoted.err
    assert history[:1] == [before["history"][0] | {"until": history[1]["from"]}]
    assert history[1]["by"] == "Berta Example"
    assert here.served() == "2"
