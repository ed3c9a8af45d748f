"""`amopo serve` against a real Prefect server: events, the inbox, turns, missed starts, failures, its end; a worker."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from amopo_core.params_file import override
from tests.flow.conftest import Workspace
from tests.flow.prefect_server import PrefectServer, prefect_server, until

pytestmark = pytest.mark.flow

OPERATION = """
servers: {prefect_api_url: URL}
schedules:
  - {cron: "0 LATER * * *", timezone: Asia/Tokyo}
  - {rrule: "FREQ=DAILY;BYHOUR=LATER;BYMINUTE=30;BYSECOND=0", timezone: America/New_York}
watch: {min_rows: 100, poll_seconds: 1}
overlap: wait
notifications: [{url_env: HOOK_URL, events: [failure]}, {secret_block: amopo-hook}]
"""
AFTERNOON = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=12)
"""Far from every time at which the tests run."""
HOLD = """
import sys
from tasks.turn import own_turn

with own_turn():
    print("mine", flush=True)
    sys.stdin.read()
"""


class Hook(BaseHTTPRequestHandler):
    """Keeps what it is told."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append(json.loads(body))  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def hook() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        server.got = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.01))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    with prefect_server(tmp_path_factory.mktemp("prefect")) as server:
        yield server


@pytest.fixture(scope="module")
def here(
    workspace: Workspace, prefect: PrefectServer, hook: ThreadingHTTPServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Workspace]:
    """A copy of the workspace in which one run has ended, with settings of the operation."""
    folder = tmp_path_factory.mktemp("serving")
    env = workspace.env | {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_RUNNER_POLL_FREQUENCY": "1",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "HOOK_URL": f"json://127.0.0.1:{hook.server_address[1]}",
    }
    here = Workspace(shutil.copytree(workspace.path, folder / "workspace", symlinks=True), env)
    kept = "from prefect.blocks.system import Secret; Secret(value='{}').save('amopo-hook')".format(env["HOOK_URL"])
    subprocess.run([sys.executable, "-c", kept], env=env | {"PREFECT_API_URL": prefect.url}, check=True)
    (here.path / "operation.yaml").write_text(
        OPERATION.replace("URL", prefect.url, 1).replace("LATER", str(AFTERNOON.hour))
    )
    yield here
    left = here.processes()
    for process in left:
        process.kill()
    assert not left


@contextmanager
def served(here: Workspace) -> Iterator[subprocess.Popen[str]]:
    """`amopo serve` once it is ready, ended with SIGTERM where the block has not."""
    process = here.start("serve")
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("serving: "), process.communicate()[1]
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.communicate()


@contextmanager
def turn_held(here: Workspace) -> Iterator[int]:
    """Another process at work in the folder; its id."""
    command = [sys.executable, "-c", HOLD]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=here.path, env=here.env, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == "mine\n"
        yield process.pid
        process.stdin.close()


def name_of(here: Workspace) -> str:
    """The deployment, by what Prefect's runner is told to serve."""
    command = [sys.executable, "-c", "from tasks.deployment import deployment_name; print(deployment_name())"]
    done = subprocess.run(command, cwd=here.path, env=here.env, check=True, capture_output=True, text=True)
    return f"retrain/{done.stdout.strip()}"


def none_left(here: Workspace) -> None:
    until(lambda: not here.processes())


def set_overlap(here: Workspace, overlap: str) -> None:
    path = here.path / "operation.yaml"
    path.write_text(re.sub("overlap: .*", f"overlap: {overlap}", path.read_text()))


def test_what_the_settings_say_makes_nothing_due_and_moves_no_digest(here: Workspace) -> None:
    lock = (here.path / "dvc.lock").read_bytes()
    made = here.dvc("repro")

    assert made.returncode == 0
    assert "Running stage" not in made.stdout
    assert (here.path / "dvc.lock").read_bytes() == lock


def test_the_settings_name_the_servers_and_the_environment_comes_first(here: Workspace) -> None:
    path = here.path / "operation.yaml"
    text = path.read_text()
    path.write_text(text.replace("servers: {", "servers: {mlflow_tracking_uri: 'http://127.0.0.1:1', "))
    try:
        elsewhere = here.amopo("status", "--json")
        first = here.amopo("status", "--json", env={"MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"})
    finally:
        path.write_text(text)

    assert elsewhere.code == 1
    assert "MLflow at http://127.0.0.1:1 did not do what was asked" in elsewhere.err
    assert first.json["champion"] is not None


def test_a_mistake_in_the_settings_is_refused_by_every_command(here: Workspace) -> None:
    path = here.path / "operation.yaml"
    text = path.read_text()
    path.write_text(text.replace("overlap: wait", "overlap: wiat"))
    try:
        ended = here.amopo("status")
    finally:
        path.write_text(text)

    assert ended.code == 2
    assert "operation.yaml:7: overlap: Input should be 'wait' or 'drop'" in ended.err


@pytest.mark.parametrize(("url", "code"), [("", 2), ("http://127.0.0.1:1/api", 1)])
def test_without_a_server_it_says_how_to_start_one(fresh: Workspace, url: str, code: int) -> None:
    ended = fresh.amopo("serve", env={"PREFECT_API_URL": url} if url else {})

    assert ended.code == code
    assert "start one with `amopo up`, or with `prefect server start`" in ended.err
    assert "Traceback" not in ended.err


def test_a_killed_server_takes_its_run_along_and_what_was_missed_becomes_one(
    here: Workspace, prefect: PrefectServer, hook: ThreadingHTTPServer
) -> None:
    with turn_held(here) as holder:
        with served(here) as process:
            name = name_of(here)
            at_work = prefect.ask_for_run(name)
            prefect.logged(at_work, f"waiting until the run of process {holder} has ended")
            second = here.amopo("serve")
            process.kill()
            process.communicate()
        until(lambda: [each.pid for each in here.processes()] == [holder])
        missed = [prefect.ask_for_run(name) for _ in range(3)]
    process = here.start("serve")
    last = prefect.ended(missed[-1])
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()

    assert second.code == 1
    assert "another amopo serve is at work in this folder" in second.err
    assert prefect.state(at_work)["type"] == "CRASHED"
    assert hook.got[0]["title"].endswith(" crashed")  # type: ignore[attr-defined]
    assert {prefect.state(run)["name"] for run in missed[:-1]} == {"Skipped"}
    assert last["type"] == "COMPLETED"
    assert last["message"].startswith("nothing new: models:/amopo/")
    assert "missed while nobody served: 3; one retraining makes up for it" in err
    assert process.returncode == 0
    none_left(here)


@pytest.fixture
def serving(here: Workspace) -> Iterator[str]:
    """The deployment of a service at work."""
    with served(here):
        yield name_of(here)


def test_every_schedule_makes_runs_in_its_own_time_zone(prefect: PrefectServer, serving: str) -> None:
    """Tokyo is nine hours ahead of UTC all year; the other zone has summer time."""
    runs = until(lambda: [run for run in prefect.runs() if run["auto_scheduled"]])
    times = {run["parameters"]["reason"]: datetime.fromisoformat(run["expected_start_time"]) for run in runs}
    [tokyo, new_york] = sorted(times, key=len)

    assert tokyo == f"the schedule 0 {AFTERNOON.hour} * * * Asia/Tokyo"
    assert (times[tokyo].astimezone(UTC).hour + 9) % 24 == AFTERNOON.hour
    assert times[new_york].astimezone(ZoneInfo("America/New_York")).hour == AFTERNOON.hour


def test_feedback_an_event_and_turns(here: Workspace, prefect: PrefectServer, serving: str) -> None:
    """One service for all of it: it takes seconds to start."""
    known = {run["id"] for run in prefect.runs()}

    def new_run() -> str:
        [run] = until(
            lambda: [run["id"] for run in prefect.runs() if run["id"] not in known and run["auto_scheduled"] is False]
        )
        known.add(run)
        return str(run)

    # rows that are known already: enough to start one, not enough to train again
    basket = here.path / "data/inbox/ratings"
    basket.mkdir(exist_ok=True)
    [batch, *_] = sorted((here.path / "data/feedback/ratings").glob("*.parquet"))
    rows = subprocess.run(
        [sys.executable, "-c", f"import polars; print('\\n'.join(polars.read_parquet({str(batch)!r})['row']))"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    (basket / "again.jsonl").write_text(rows)
    by_rows = new_run()
    assert prefect.ended(by_rows)["message"].startswith("nothing new")
    assert "started because of 120 new rows, at least 100 asked for" in prefect.log(by_rows)
    assert not (basket / "again.jsonl").exists()

    # an event while somebody is at work: it waits, and who comes by hand is refused
    with turn_held(here) as holder:
        sent = here.amopo("trigger", "--reason", "because I say so", "--json")
        assert sent.code == 0, sent.err
        by_event = new_run()
        prefect.logged(by_event, f"waiting until the run of process {holder} has ended")
        by_hand = here.amopo("retrain")
    assert by_hand.code == 1
    assert f"another run is at work in this folder (process {holder})" in by_hand.err
    assert prefect.ended(by_event)["type"] == "COMPLETED"
    assert "because I say so" in prefect.log(by_event)

    # the same where who comes second is dropped
    set_overlap(here, "drop")
    with turn_held(here) as holder:
        dropped = prefect.ended(prefect.ask_for_run(serving))
    set_overlap(here, "wait")
    assert (dropped["type"], dropped["name"]) == ("COMPLETED", "Skipped")
    assert f"dropped: another run is at work in this folder (process {holder})" in dropped["message"]


def test_who_waits_by_hand_goes_on_afterwards(here: Workspace) -> None:
    with turn_held(here) as holder:
        waiting = here.start("retrain", "--wait", "--json")
        assert waiting.stderr is not None
        assert waiting.stderr.readline() == f"waiting until the run of process {holder} has ended\n"
    out, err = waiting.communicate()

    assert waiting.returncode == 0, err
    assert json.loads(out)["due"] is False


def test_a_failure_is_told_to_who_wants_to_know(
    here: Workspace, prefect: PrefectServer, hook: ThreadingHTTPServer
) -> None:
    stray = here.path / "data/inbox/stray.jsonl"
    stray.write_text("{}\n")
    hook.got.clear()  # type: ignore[attr-defined]
    with served(here):
        run = prefect.ask_for_run(name_of(here))
        state = prefect.ended(run)
        until(lambda: len(hook.got) == 2)  # type: ignore[attr-defined]
    stray.unlink()

    assert state["type"] == "FAILED"
    assert "whose feedback is it?" in state["message"]
    assert [message["title"].endswith(" failed") for message in hook.got] == [True, True]  # type: ignore[attr-defined]
    assert all("whose feedback is it?" in message["message"] for message in hook.got)  # type: ignore[attr-defined]
    assert "told HOOK_URL of this failure" in prefect.log(run)


def test_sigterm_in_training_leaves_nothing_and_the_next_service_goes_on(
    here: Workspace, prefect: PrefectServer
) -> None:
    before = here.versions()
    override(here.path / "params.yaml", ["objective.beta=1.25"])
    with served(here) as process:
        name = name_of(here)
        cut_off = prefect.ask_for_run(name)
        here.wait_for_training(process)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate()
    paused = prefect.deployment(name)["paused"]
    state, left = prefect.state(cut_off), here.processes()
    between = here.versions()
    known = {run["id"] for run in prefect.runs()}
    with served(here):
        [goes_on] = until(
            lambda: [run["id"] for run in prefect.runs() if run["id"] not in known and not run["auto_scheduled"]]
        )
        resumed = prefect.ended(goes_on)

    assert (process.returncode, paused, state["type"], left) == (0, True, "CANCELLED", []), err
    assert "Traceback" not in err
    assert between == before
    assert resumed["type"] == "COMPLETED", resumed
    assert re.fullmatch(r"models:/amopo/\d+, (not )?promoted", resumed["message"])
    assert here.versions()["challenger"] not in before.values()
    assert "started because of a retraining that was cut off" in prefect.log(goes_on)
    assert "going on from" in prefect.log(goes_on)


def test_a_worker_of_a_work_pool_runs_what_was_deployed(here: Workspace, prefect: PrefectServer) -> None:
    env = here.env | {
        "PREFECT_API_URL": prefect.url,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{here.env['PATH']}",
    }

    def ran(*arguments: str) -> str:
        command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
        done = subprocess.run(command, cwd=here.path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    ran("work-pool", "create", "amopo", "--type", "process")
    ran("deploy", "--all")
    run = prefect.ask_for_run("retrain/work-pool")
    ran("worker", "start", "--pool", "amopo", "--run-once")

    assert prefect.state(run)["message"].startswith("nothing new: models:/amopo/"), prefect.state(run)
    none_left(here)
