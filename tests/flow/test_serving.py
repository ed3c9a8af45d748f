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
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from zoneinfo import ZoneInfo

import polars
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


@dataclass
class Service:
    """An `amopo serve` at work, and what the one before it, which was killed, has left."""

    process: subprocess.Popen[str]
    deployment: str
    cut_off: str
    missed: list[str]


@pytest.fixture(scope="module")
def service(here: Workspace, prefect: PrefectServer) -> Iterator[Service]:
    """The service for all that follows: each takes seconds to start."""
    with turn_held(here) as holder:
        with served(here) as killed:
            name = name_of(here)
            cut_off = prefect.ask_for_run(name)
            prefect.logged(cut_off, f"waiting until the run of process {holder} has ended")
            killed.kill()
            killed.communicate()
        until(lambda: [each.pid for each in here.processes()] == [holder])
        missed = [prefect.ask_for_run(name) for _ in range(3)]
    with served(here) as process:
        yield Service(process, name, cut_off, missed)


def test_what_was_missed_while_nobody_served_becomes_one(
    prefect: PrefectServer, service: Service, hook: ThreadingHTTPServer
) -> None:
    last = prefect.ended(service.missed[-1])

    assert prefect.state(service.cut_off)["type"] == "CRASHED"
    assert until(lambda: told(hook))[0]["title"].endswith(" crashed")
    assert {prefect.state(run)["name"] for run in service.missed[:-1]} == {"Skipped"}
    assert last["type"] == "COMPLETED"
    assert last["message"].startswith("nothing new: models:/amopo/")


def test_every_schedule_makes_runs_in_its_own_time_zone(prefect: PrefectServer, service: Service) -> None:
    """Tokyo is nine hours ahead of UTC all year; the other zone has summer time."""
    times = until(lambda: found if len(found := scheduled_times(prefect)) == 2 else None)
    [tokyo, new_york] = sorted(times, key=len)

    assert tokyo == f"the schedule 0 {AFTERNOON.hour} * * * Asia/Tokyo"
    assert (times[tokyo].astimezone(UTC).hour + 9) % 24 == AFTERNOON.hour
    assert times[new_york].astimezone(ZoneInfo("America/New_York")).hour == AFTERNOON.hour


def test_a_second_service_of_the_folder_is_refused(here: Workspace, service: Service) -> None:
    second = here.amopo("serve")

    assert second.code == 1
    assert f"another amopo serve is at work in this folder (process {service.process.pid})" in second.err


def test_enough_rows_in_the_inbox_start_a_retraining(here: Workspace, prefect: PrefectServer, service: Service) -> None:
    """Rows that are known already: enough to start one, and nothing to train on."""
    with new_run(prefect) as found:
        file = here.path / "data/inbox/ratings/again.jsonl"
        file.parent.mkdir(exist_ok=True)
        [batch, *_] = sorted((here.path / "data/feedback/ratings").glob("*.parquet"))
        file.write_text("".join(f"{row}\n" for row in polars.read_parquet(batch)["row"]))

    assert prefect.ended(found())["message"].startswith("nothing new")
    prefect.logged(found(), "started because of 120 new rows, at least 100 asked for")
    assert not file.exists()


def test_an_event_starts_one_that_waits_for_its_turn_and_whose_failure_is_told(
    here: Workspace, prefect: PrefectServer, service: Service, hook: ThreadingHTTPServer
) -> None:
    stray = here.path / "data/inbox/stray.jsonl"
    stray.write_text("{}\n")
    hook.got.clear()  # type: ignore[attr-defined]
    with turn_held(here) as holder:
        with new_run(prefect) as found:
            sent = here.amopo("trigger", "--reason", "because I say so", "--json")
        prefect.logged(found(), f"waiting until the run of process {holder} has ended")
        by_hand = here.amopo("retrain")
    ended = prefect.ended(found())
    until(lambda: len(told(hook)) == 2)
    stray.unlink()

    assert sent.code == 0, sent.err
    assert "because I say so" in prefect.log(found())
    assert by_hand.code == 1
    assert f"another run is at work in this folder (process {holder})" in by_hand.err
    assert ended["type"] == "FAILED"
    for message in told(hook):
        assert message["title"].endswith(" failed")
        assert "whose feedback is it?" in message["message"]
    for name in ("HOOK_URL", "block amopo-hook"):  # said once the run has failed, and sent to the server after that
        prefect.logged(found(), f"told {name} of this failure")


def test_who_comes_second_is_dropped_where_the_settings_say_so(
    here: Workspace, prefect: PrefectServer, service: Service
) -> None:
    set_overlap(here, "drop")
    with turn_held(here) as holder:
        dropped = prefect.ended(prefect.ask_for_run(service.deployment))
    set_overlap(here, "wait")

    assert (dropped["type"], dropped["name"]) == ("COMPLETED", "Skipped")
    assert f"dropped: another run is at work in this folder (process {holder})" in dropped["message"]


def test_by_hand_one_can_wait_too(here: Workspace) -> None:
    with turn_held(here) as holder:
        waiting = here.start("retrain", "--wait")
        assert waiting.stderr is not None
        assert waiting.stderr.readline() == f"waiting until the run of process {holder} has ended\n"
        time.sleep(0.5)  # until it waits
        waiting.send_signal(signal.SIGINT)
        waiting.communicate()

    assert waiting.returncode == 130


def test_sigterm_in_training_leaves_nothing_and_the_next_service_goes_on(
    here: Workspace, prefect: PrefectServer, service: Service
) -> None:
    before = here.versions()
    override(here.path / "params.yaml", ["objective.beta=1.25", "train.epochs=4"])
    cut_off = prefect.ask_for_run(service.deployment)
    here.wait_for_training(service.process)
    service.process.send_signal(signal.SIGTERM)
    _, err = service.process.communicate()
    left = here.processes()

    assert service.process.returncode == 0, err
    assert left == []
    assert "missed while nobody served: 3; one retraining makes up for it" in err
    assert "Traceback" not in err
    assert prefect.deployment(service.deployment)["paused"]
    assert prefect.state(cut_off)["type"] == "CANCELLED"
    assert here.amopo("status", "--json").json["runs"][0]["status"] == "KILLED"  # not `RUNNING` until the next one
    assert here.versions() == before
    following = here.start("serve")
    assert following.stderr is not None
    assert following.stderr.readline().endswith("the last retraining was cut off; going on with it\n")
    following.send_signal(signal.SIGTERM)
    following.communicate()
    none_left(here)


def test_a_worker_of_a_work_pool_goes_on_with_it(here: Workspace, prefect: PrefectServer) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{here.env['PATH']}"
    env = here.env | {"PREFECT_API_URL": prefect.url, "PATH": path}
    before = here.versions()

    def run(*arguments: str) -> None:
        command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
        done = subprocess.run(command, cwd=here.path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    run("work-pool", "create", "amopo", "--type", "process")
    run("deploy", "--all")
    asked = prefect.ask_for_run("retrain/work-pool")
    run("worker", "start", "--pool", "amopo", "--run-once")
    state = prefect.state(asked)

    assert state["type"] == "COMPLETED", state
    assert re.fullmatch(r"models:/amopo/\d+, (not )?promoted", state["message"])
    assert here.versions()["challenger"] not in before.values()
    assert "going on from" in prefect.log(asked)
    none_left(here)


def scheduled_times(prefect: PrefectServer) -> dict[str, datetime]:
    """When each schedule is due, by the reason that its runs are given."""
    runs = [run for run in prefect.runs() if run["auto_scheduled"]]
    return {run["parameters"]["reason"]: datetime.fromisoformat(run["expected_start_time"]) for run in runs}


@contextmanager
def new_run(prefect: PrefectServer) -> Iterator[Callable[[], str]]:
    """What finds the one run that the block makes."""

    def asked() -> set[str]:
        return {run["id"] for run in prefect.runs() if not run["auto_scheduled"]}

    known = asked()

    def found() -> str:
        [run] = until(lambda: asked() - known)
        return str(run)

    yield found


def told(hook: ThreadingHTTPServer) -> list[dict[str, str]]:
    """The messages so far."""
    return list(hook.got)  # type: ignore[attr-defined]
