import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.errors import OutsideError
from tasks.servers import SERVERS, Servers, claimed, environment_here

HERE = Servers(4711, "http://127.0.0.1:4200", "http://127.0.0.1:5000", elsewhere=False)
FOUND = {"PREFECT_API_URL": "http://127.0.0.1:4200/api", "MLFLOW_TRACKING_URI": "http://127.0.0.1:5000"}
HOLD = """
import sys
from tasks.servers import Servers, claimed

with claimed() as publish:
    print("starting", flush=True)
    if sys.stdin.readline():
        publish(Servers(4711, "http://127.0.0.1:4200", "http://127.0.0.1:5000", elsewhere=sys.argv[1] == "elsewhere"))
        print("ready", flush=True)
        sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@contextmanager
def another(where: str = "here", *, is_ready: bool = True) -> Iterator[subprocess.Popen[str]]:
    """A process that runs the servers of this folder, as far as others can tell."""
    command = [sys.executable, "-c", HOLD, where]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        assert process.stdout.readline() == "starting\n"
        if is_ready:
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def test_nothing_runs_where_nothing_ran() -> None:
    assert environment_here() == {}
    assert not SERVERS.parent.exists()


def test_what_another_process_runs_is_found_until_it_is_killed() -> None:
    with another():
        assert environment_here() == FOUND

    assert "4711" in SERVERS.read_text()
    assert environment_here() == {}


def test_servers_that_are_starting_are_not_used_yet() -> None:
    """What an earlier one left lies in the file meanwhile."""
    with another():
        pass
    with another(is_ready=False):
        assert environment_here() == {}


def test_a_second_one_is_refused_and_names_the_first() -> None:
    with another(), pytest.raises(OutsideError, match=r"process 4711.*http://127.0.0.1:4200.*:5000"), claimed():
        pass
    with another(is_ready=False), pytest.raises(OutsideError, match="is starting"), claimed():
        pass


def test_the_turn_is_given_back() -> None:
    with claimed() as publish:
        publish(HERE)
    with claimed():
        assert environment_here() == {}


def test_where_runs_are_in_a_database_of_their_own_mlflow_stays_the_place_to_ask() -> None:
    """Killed or ended, and while the next one starts; until one keeps them here again."""
    with another("elsewhere"):
        assert environment_here() == FOUND
    down = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:5000"}
    assert environment_here() == down
    with claimed() as publish:
        assert environment_here() == down
        publish(replace(HERE, elsewhere=True))
    assert environment_here() == down
    with claimed() as publish:
        publish(HERE)
    assert environment_here() == {}


def test_what_cannot_be_understood_is_nothing() -> None:
    SERVERS.parent.mkdir()
    SERVERS.write_text('{"pid": 1, "another": "version"}')

    assert environment_here() == {}
