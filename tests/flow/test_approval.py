"""Approval by a person: at the command line, on the page of a flow run that pauses, or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from amopo_core.errors import UserError
from tasks.last_retraining import last_retraining
from tasks.pause import is_due, limit, wake
from tasks.ports import free_port
from tasks.prefect_server import api_url, prefect_database, prefect_server
from tasks.service import Running
from tasks.turn import own_turn
from tests.flow.browser import browser, needs_chromium
from tests.flow.promotions import MODEL, Promotions, here_fixture, made_fixture  # noqa: F401 (fixtures)

pytestmark = pytest.mark.flow


@pytest.fixture(scope="module")
def prefect(made: Promotions, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prefect server that stays, of the workspace and with a database of its own."""
    port = free_port()
    store = prefect_database(f"sqlite:///{tmp_path_factory.mktemp('prefect')}/prefect.db", "the test's")
    server = Running(prefect_server(port, store), print)
    try:
        server.wait_until_ready(300)
        yield api_url(port)
    finally:
        server.stop()


def waiting_version(here: Promotions, rival: str) -> str:
    """A version that was found better than `rival` and waits."""
    decision = json.dumps({"promote": True, "rival": rival, "reasons": ["better"]})
    source = Path(here.client.get_model_version(MODEL, "2").source)
    return here.registered(source, verdict="awaiting approval", decision=decision)


def test_a_person_says_yes_or_no_to_what_waits(here: Promotions) -> None:
    first, second = (waiting_version(here, rival="1") for _ in range(2))
    status = here.amopo("status")
    which = here.amopo("approve", "--reason", "fine")
    no = here.amopo("approve", second, "--reject", "--reason", "too long", "--json")
    yes = here.amopo("approve", "--reason", "fine")

    assert f"amopo approve {first} --reason TEXT" in status.out
    assert which.code == 2
    assert f"several versions wait for approval: {first}, {second}; name one" in which.err
    assert no.json == {"version": second, "approved": False, "note": None}
    assert here.tags(second)["verdict"] == "rejected"
    assert json.loads(here.tags(second)["approval"]) == {"verdict": "rejected", "why": "too long", "by": "Ann Example"}
    assert yes.code == 0, yes.err
    assert here.served() == first
    assert here.tags(first)["verdict"] == "promoted"
    assert here.amopo("history", "--json").json["history"][-1]["how"] == "approved"


def test_an_approval_is_refused_where_the_champion_has_changed_since(here: Promotions) -> None:
    waits = waiting_version(here, rival="none")
    refused = here.amopo("approve", "--reason", "fine")
    promoted = here.amopo("promote", waits, "--reason", "compared by hand")

    assert refused.code == 2
    assert f"version {waits} was found better than the base policy, and version 1 is champion by now" in refused.err
    assert f"amopo compare 1 {waits}" in refused.err
    assert promoted.code == 0, promoted.err
    assert here.tags(waits)["verdict"] == "promoted"
    assert here.amopo("approve", "--reason", "x").code == 2


def test_a_verdict_of_yes_waits_for_a_person_and_the_flow_pauses_where_there_is_a_server(
    here: Promotions, prefect: str
) -> None:
    """A retraining in which nothing is trained, twice: the second is what follows where the first did not settle."""
    here.amopo("promote", "2", "--reason", "so that the policy in the folder is better than the champion")
    older = waiting_version(here, rival="2")
    here.workspace.env["MLFLOW_TRACKING_URI"] = here.workspace.store
    human = ("--set", "promotion.approval=human", "--set", "promotion.max_kl_champion=null")
    alone = here.workspace.amopo("retrain", "--json", *human)
    assert alone.code == 0, alone.err
    version = alone.json["version"]
    assert (alone.json["promoted"], alone.json["verdict"]) == (False, "awaiting approval")
    assert f"models:/amopo/{version} waits for approval: amopo approve {version} --reason TEXT" in alone.err
    assert not {"train", "evaluate"} & set(alone.json["executed"])
    assert f"version {older} waited for approval and is superseded" in alone.err
    assert here.tags(older)["verdict"] == "superseded"
    assert here.amopo("status", "--json").json["waiting"] == [version]

    here.client.delete_model_version_tag(MODEL, version, "verdict")
    started = here.workspace.start("retrain", "--json", env={"PREFECT_API_URL": prefect})
    wait_until(lambda: paused(prefect) or started.poll() is not None)
    assert started.poll() is None, started.communicate()
    assert here.served() == "2"
    with own_turn():  # others may work while a person is waited for
        last = last_retraining()
        assert last is not None
        assert last.ended
    with temporary_settings({PREFECT_API_URL: prefect}):
        approved = here.amopo("approve", "--reason", "read twenty answers")
    out, err = started.communicate()

    assert approved.code == 0, approved.err
    assert started.returncode == 0, err
    assert json.loads(out)["verdict"] == "promoted"
    assert here.served() == version
    assert "waits for approval, for 24 h in this run: answer at http" in err
    assert states(prefect, "retrain") == ["COMPLETED"]


def test_the_answer_on_the_page_or_none_within_the_limit_ends_the_pause(prefect: str) -> None:
    with asking(prefect) as (process, run):
        answer = {"run_input": {"decision": "approve", "reason": "fine", "name": "Berta"}}
        assert httpx.post(f"{prefect}/flow_runs/{run}/resume", json=answer).json()["status"] == "ACCEPT"
        assert said_by(process) == (0, "approve, fine (Berta)")
    with asking(prefect, hours="0.0005") as (process, _):
        assert said_by(process) == (0, "later,  ()")
    assert states(prefect, "asking") == ["COMPLETED", "COMPLETED"]


@needs_chromium
def test_a_person_fills_in_the_form_on_the_page(prefect: str, tmp_path: Path) -> None:
    with asking(prefect) as (process, run), browser(tmp_path) as page:
        page.open(f"{prefect.removesuffix('/api')}/v2/runs/flow-run/{run}", until="Paused")
        page.click("Open menu")
        page.click("Resume", kind="[role=menuitem]")
        page.click("Select Decision")
        page.click("reject", kind="[role=option]")
        page.click("Resume")
        assert said_by(process) == (0, "reject,  ()")


def test_a_pause_that_is_cancelled_or_killed_ends_on_the_page_as_well(prefect: str) -> None:
    """Killed, it cannot tell Prefect itself: who would wake it does."""
    with asking(prefect) as (process, cancelled):
        wish = {"state": {"type": "CANCELLING", "name": "Cancelling"}, "force": True}
        httpx.post(f"{prefect}/flow_runs/{cancelled}/set_state", json=wish).raise_for_status()
        assert said_by(process) == (143, "")
    with asking(prefect) as (process, killed):
        process.kill()
    assert state(prefect, killed) == "PAUSED"
    with temporary_settings({PREFECT_API_URL: prefect}):
        assert not wake(killed)

    assert (state(prefect, cancelled), state(prefect, killed)) == ("CANCELLED", "CRASHED")


def test_a_pause_stands_in_the_way_of_the_next_run_of_its_deployment_alone(prefect: str) -> None:
    with temporary_settings({PREFECT_API_URL: prefect}), get_client(sync_client=True) as client:
        flow = client.create_flow_from_name("served")
        served, other = (client.create_deployment(flow, name) for name in ("served", "other"))
        before = is_due(str(served))
        client.create_flow_run_from_deployment(served)

        assert not before
        assert is_due(str(served))
        assert not is_due(str(other))
        assert not is_due(None)


@pytest.mark.parametrize("hours", ["soon", "0", "-1", "nan", "1e9"])
def test_a_limit_that_is_none_is_refused(hours: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMOPO_APPROVAL_HOURS", hours)

    with pytest.raises(UserError, match=r"AMOPO_APPROVAL_HOURS is .*; expected the hours"):
        limit()


ASKING = """
from prefect import flow
from flows.environment import set_defaults

set_defaults()
from flows.stopped import ending_when_stopped
from tasks import pause
from tasks.cancellation import ends_when_cancelled

@flow
@ends_when_cancelled
def asking() -> str:
    answer = pause.ask("Shall it?")
    return f"{answer.decision}, {answer.reason} ({answer.name})"

with ending_when_stopped():
    print(asking())
"""


@contextmanager
def asking(url: str, hours: str = "1") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A flow that asks, and the id of its run, which pauses; it has ended when the block has."""
    environment = {"PREFECT_API_URL": url, "AMOPO_APPROVAL_HOURS": hours, "PREFECT_LOGGING_LEVEL": "ERROR"}
    command = [sys.executable, "-c", ASKING]
    with subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.PIPE, text=True) as process:
        wait_until(lambda: paused(url) or process.poll() is not None)
        try:
            yield process, next((str(run["id"]) for run in paused(url)), "none")
        except BaseException:
            process.kill()  # or the end of its pause would be waited for
            raise


def said_by(process: subprocess.Popen[str]) -> tuple[int, str]:
    """The exit status and the last line of a flow that asked."""
    out, _ = process.communicate()
    return process.returncode, (out.strip().splitlines() or [""])[-1]


def paused(url: str) -> list[Mapping[str, Any]]:
    """The flow runs that wait for somebody."""
    return runs(url, {"flow_runs": {"state": {"type": {"any_": ["PAUSED"]}}}})


def states(url: str, flow: str) -> list[str]:
    return [run["state_type"] for run in runs(url, {"flows": {"name": {"any_": [flow]}}})]


def state(url: str, run: str) -> str:
    return str(httpx.get(f"{url}/flow_runs/{run}").json()["state_type"])


def runs(url: str, chosen: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(httpx.post(f"{url}/flow_runs/filter", json=chosen).json())


def wait_until(holds: Callable[[], Any]) -> None:
    """The limit only keeps a failure from waiting for ever."""
    deadline = time.monotonic() + 300
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)
