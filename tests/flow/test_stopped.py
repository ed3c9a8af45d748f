"""A run that was stopped between two of its last steps: the next one completes it, and decides nothing twice."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest
from mlflow import MlflowClient

from tasks.ledger_state import DONE, Entry, kept_in, key_of

if TYPE_CHECKING:
    from tests.flow.conftest import Finished, Workspace

pytestmark = pytest.mark.flow

WRITTEN_LAST = ("reasons", "verdict")
DECIDED = {"decision": json.dumps({"promote": True, "rival": "1", "reasons": ["said before the stop"]})}


@pytest.fixture(scope="module")
def second(workspace: Workspace) -> Registry:
    """The registry of a workspace whose present state is version 2, not promoted."""
    ended = workspace.amopo("retrain", "--json", "--set", "objective.beta=1.5")
    assert ended.code == 0, ended.err
    assert ended.json["version"] == "2"
    return Registry(workspace)


class Registry:
    """The registry, changed so that it looks as a stopped run left it."""

    def __init__(self, workspace: Workspace) -> None:
        self.client = MlflowClient(workspace.store)

    def tags(self, number: str = "2") -> dict[str, str]:
        return dict(self.client.get_model_version("amopo", number).tags)

    def aliases(self) -> dict[str, str]:
        return {alias: str(number) for alias, number in self.client.get_registered_model("amopo").aliases.items()}

    def champions(self) -> list[str | None]:
        """The versions of the ledger's entries."""
        kept = kept_in(self.client.get_registered_model("amopo").tags)
        assert all(one.done for one in kept)
        return [one.entry.version for one in kept]

    def stopped(self, champions: str, *lost: str, alias: str | None = None, **tags: str) -> None:
        """Version 2 without the lost tags, with others; these champions one after another, the last one served.

        With an alias, the last entry is there and its version is not served yet.
        """
        for name in set(lost) & set(self.tags()):
            self.client.delete_model_version_tag("amopo", "2", name)
        for name, value in tags.items():
            self.client.set_model_version_tag("amopo", "2", name, value)
        for key in self.client.get_registered_model("amopo").tags:
            self.client.delete_registered_model_tag("amopo", key)
        for number, champion in enumerate(champions, start=1):
            entry = Entry(champion, "2026-05-04 10:00:00+00:00", "promoted", "better", "flow run one")
            key = key_of(number, "00000000")
            self.client.set_registered_model_tag("amopo", key, json.dumps(asdict(entry)))
            if alias is None or number < len(champions):
                self.client.set_registered_model_tag("amopo", key + DONE, entry.at)
        self.client.set_registered_model_alias("amopo", "champion", alias or champions[-1])


def test_status_before_any_run_says_that_there_is_no_champion(fresh: Workspace) -> None:
    shown = fresh.amopo("status")

    assert shown.code == 0, shown.err
    assert "champion    none yet" in shown.out


def test_history_before_any_run_says_the_same(fresh: Workspace) -> None:
    shown = fresh.amopo("history")

    assert shown.code == 0, shown.err
    assert shown.out.startswith("no version was champion yet")


def test_between_decision_and_promotion(workspace: Workspace, second: Registry) -> None:
    second.stopped("1", *WRITTEN_LAST, **DECIDED)

    assert_completed(workspace.amopo("retrain", "--json"), second)


def test_between_promotion_and_verdict(workspace: Workspace, second: Registry) -> None:
    """The version is champion by the ledger, its alias is not there yet: it is not compared with itself."""
    second.stopped("12", *WRITTEN_LAST, alias="1", **DECIDED)

    assert_completed(workspace.amopo("retrain", "--json"), second)


def test_a_decision_against_another_champion_is_made_again(workspace: Workspace, second: Registry) -> None:
    against_nobody = json.dumps({"promote": True, "rival": "none", "reasons": ["out of date"]})
    second.stopped("1", *WRITTEN_LAST, decision=against_nobody)
    ended = workspace.amopo("retrain", "--json")

    assert ended.code == 0, ended.err
    assert json.loads(second.tags()["decision"])["rival"] == "1"
    assert "out of date" not in second.tags()["reasons"]


def test_between_registration_and_challenger(workspace: Workspace, second: Registry) -> None:
    """What lies about by then is not recorded; what was changed is."""
    second.stopped("1", *WRITTEN_LAST, "decision")
    second.client.delete_registered_model_alias("amopo", "challenger")
    for stray in ("data/my.csv", "models/mine/model.safetensors"):
        (workspace.path / stray).parent.mkdir(exist_ok=True)
        (workspace.path / stray).write_text("mine")
    ended = workspace.amopo("retrain", "--json")

    assert ended.code == 0, ended.err
    assert ended.json["version"] == second.aliases()["challenger"] == "2"
    assert second.tags()["verdict"] == ("promoted" if ended.json["promoted"] else "not promoted")
    newest = workspace.amopo("status", "--json").json["runs"][0]
    assert (newest["version"], newest["status"]) == ("2", "FINISHED")
    commit = second.tags()["commit"]
    recorded = workspace.git("ls-tree", "-r", "--name-only", commit).splitlines()
    assert not {"data/my.csv", "models/mine/model.safetensors"} & set(recorded)
    assert workspace.git("show", f"{commit}:params.yaml") == (workspace.path / "params.yaml").read_text()
    assert workspace.git("diff", "HEAD", "--", "params.yaml")


def test_a_version_that_is_settled_is_never_decided_again(workspace: Workspace, second: Registry) -> None:
    """Back to the parameters of version 1: its state is there again, and its verdict as well."""
    tags, aliases = second.tags("1"), second.aliases()
    ended = workspace.amopo("retrain", "--set", "objective.beta=2.0")

    assert ended.code == 0, ended.err
    assert "Nothing new: this very state is models:/amopo/1, settled earlier: promoted" in ended.out.replace("\n", " ")
    assert second.tags("1") == tags
    assert second.aliases() == aliases
    assert workspace.dvc("status").stdout == "Data and pipelines are up to date.\n"


def assert_completed(ended: Finished, second: Registry) -> None:
    """Version 2 was promoted over version 1 for the reasons that the stopped run had written."""
    assert ended.code == 0, ended.err
    assert ended.json["executed"] == []
    assert ended.json["reasons"] == ["said before the stop"]
    assert ended.json["against_champion"] is not None
    assert second.aliases() == {"champion": "2", "challenger": "2"}
    assert second.champions() == ["1", "2"]
    written = {name: second.tags()[name] for name in ("verdict", "reasons")}
    assert written == {"verdict": "promoted", "reasons": "said before the stop"}
