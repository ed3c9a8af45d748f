"""A start by a Prefect server: which other retraining stands for it, and what is said of its own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

import flows.retrain
from amopo_core.promotion import Verdict
from flows import scheduled
from flows.retrain import Outcome
from tasks.last_retraining import LastRetraining
from tasks.registry import Version
from tasks.standing import AWAITING

DUE = datetime.now(UTC) - timedelta(hours=1)


@pytest.mark.parametrize(
    ("hours", "stands"), [(-1.0, False), (0.5, True), (24.0, False)], ids=["earlier", "since", "on a day to come"]
)
def test_only_what_began_since_it_was_due_and_before_now_stands_for_a_start(
    monkeypatch: pytest.MonkeyPatch, hours: float, stands: bool
) -> None:
    """A clock that was set back leaves a note of the future."""
    monkeypatch.setattr(scheduled, "flow_run", SimpleNamespace(scheduled_start_time=DUE))
    other = LastRetraining((DUE + timedelta(hours=hours)).timestamp(), ended=True)

    assert scheduled._stands_for_this(other) is stands


def test_a_version_that_waits_for_a_person_is_not_said_to_be_promoted(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = Outcome(Version("4", "", {}), verdict=Verdict(True, ()), standing=AWAITING)
    monkeypatch.setattr(flows.retrain, "retrain", SimpleNamespace(fn=lambda: outcome))

    assert scheduled._retrained() == "models:/amopo/4, awaiting approval"
