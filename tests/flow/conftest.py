"""A workspace apart from the project's, in which the real flow has run once: everything else starts from there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from string import ascii_lowercase
from typing import Any

import psutil
import pytest
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Run

from amopo_core.params_file import override

ROOT = Path(__file__).parents[2]
HISTORY = Path("reports/train/history.jsonl")
ALIASES = ("champion", "challenger")
DIMENSIONS = ("helpfulness", "correctness", "instruction_following")
RATINGS = {"rows": "responses", "scores": {name: {"field": name, "scale": [1, 5]} for name in DIMENSIONS}}
SETTINGS = f"""
sources.ratings={json.dumps(RATINGS)}
runtime.threads=1
pairs.test_share=0.3
playground.prompts=2
playground.held_out_prompts=4
playground.hidden_size=32
playground.pretraining_conversations=200
playground.heads=2
playground.vocabulary=400
playground.context=256
playground.pretraining_steps=4
playground.pretraining_batch=8
train.learning_rate=0.01
train.epochs=4
train.batch_pairs=8
train.micro_batch_tokens=2000
train.log_every=1
train.validate_every=5
train.checkpoint_every=5
evaluation.judge=amopo_core/judges/none.py
evaluation.max_new_tokens=4
evaluation.max_prompts=4
evaluation.bootstrap_draws=200
evaluation.confidence=0.8
promotion.min_test_prompts=1
promotion.max_kl_base=50
promotion.max_length_ratio=null
promotion.max_repetition_rise=null
promotion.tolerance={json.dumps(dict.fromkeys(DIMENSIONS, 1.0))}
"""
"""The whole pipeline in the smallest form in which training still teaches something."""


@dataclass
class Finished:
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Workspace:
    """A clone of the project with its own Prefect home and MLflow store."""

    path: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def store(self) -> str:
        return f"sqlite:///{self.path}/mlflow.db"

    def start(
        self, *arguments: str, env: Mapping[str, str] | None = None, through: Sequence[str] = ()
    ) -> subprocess.Popen[str]:
        command = [*through, sys.executable, "-m", "flows.cli", *arguments]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, cwd=self.path, env=self.env | dict(env or {}), start_new_session=True, **pipes)

    def amopo(self, *arguments: str, env: Mapping[str, str] | None = None, through: Sequence[str] = ()) -> Finished:
        """What a command came to; `through` is a command that runs it."""
        process = self.start(*arguments, env=env, through=through)
        out, err = process.communicate()
        return Finished(process.returncode, out, err)

    def interrupted_in_training(self, number: signal.Signals, *arguments: str) -> Finished:
        """A command that gets a signal as soon as the training it started has logged a step."""
        process = self.start(*arguments)
        self.wait_for_training(process)
        os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
        out, err = process.communicate()
        return Finished(process.returncode, out, err)

    def wait_for_training(self, process: subprocess.Popen[str]) -> None:
        before = self.trained_at()
        while self.trained_at() in (before, 0):
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)

    def trained_at(self) -> int:
        """When the history was last written to; 0 before its first step."""
        history = self.path / HISTORY
        try:
            return history.stat().st_mtime_ns if history.stat().st_size else 0
        except FileNotFoundError:
            return 0

    def processes(self) -> list[psutil.Process]:
        """Everything that still works in this folder."""
        return [process for process in psutil.process_iter() if self._is_here(process)]

    def versions(self) -> dict[str, str | None]:
        """The number of champion and challenger, by the workspace's own store."""
        aliases = MlflowClient(self.store).get_registered_model("amopo").aliases
        return {alias: str(aliases[alias]) if alias in aliases else None for alias in ALIASES}

    def shown_versions(self) -> dict[str, str | None]:
        """The same as `amopo status` says it, which finds the servers by itself."""
        found = self.amopo("status", "--json").json
        return {alias: found[alias] and found[alias]["version"] for alias in ALIASES}

    def run_of(self, version: str) -> Run:
        client = MlflowClient(self.store)
        return client.get_run(client.get_model_version("amopo", version).run_id)

    def dvc(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """DVC by hand, with this interpreter as `python`."""
        env = self.env | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{self.env['PATH']}"}
        command = [sys.executable, "-m", "dvc", *arguments]
        return subprocess.run(command, cwd=self.path, env=env, capture_output=True, text=True)

    def git(self, *arguments: str) -> str:
        command = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org", *arguments]
        return subprocess.run(command, cwd=self.path, check=True, capture_output=True, text=True).stdout

    def _is_here(self, process: psutil.Process) -> bool:
        try:
            return process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()).is_relative_to(self.path)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return False


def clone(path: Path) -> Workspace:
    """The project with the parameters of the tests and nothing that runs left in it, as a repository of its own."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and not is_made(name):
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, path / name)
    mine = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_", "DVC_"))}
    home = {"HOME": str(path.parent / "home"), "PREFECT_HOME": str(path.parent / "prefect")}
    shell = {"SHELL": "/bin/sh"}  # as under cron; where it is dash, it waits for its last command, as bash does not
    workspace = Workspace(path, mine | home | shell | {"OMP_NUM_THREADS": "1"})
    shutil.copy(ROOT / "tests/params.yaml", path / "params.yaml")
    override(path / "params.yaml", SETTINGS.strip().splitlines())
    workspace.git("init", "--quiet")
    workspace.git("add", "--all")
    workspace.git("commit", "--quiet", "--message", "The project")
    return workspace


def is_made(name: str) -> bool:
    """Whether runs write this file and record it in git."""
    return name == "dvc.lock" or name.endswith(".dvc") or name.startswith("reports/")


def write_ratings(file: Path) -> None:
    """Feedback that anything could learn from and nothing could guess: some made-up words are good, others bad."""
    rng = Random(0)
    good, bad = ([" ".join(rng.choices(ascii_lowercase, k=6)) for _ in range(12)] for _ in range(2))
    file.parent.mkdir(parents=True)
    with file.open("w", encoding="utf-8") as lines:
        for number in range(60):
            for response, score in ((rng.choice(good), 5), (rng.choice(bad), 1)):
                row = {"prompt": f"Question {number}?", "response": response} | dict.fromkeys(DIMENSIONS, score)
                lines.write(json.dumps(row) + "\n")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[tuple[Workspace, Finished]]:
    """A workspace after `amopo demo`, with feedback of its own beside the playground's, and what the command said.

    Nobody changes it: what does takes `workspace`. The processes that share the tests share it too.
    """
    own = tmp_path_factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / "finished"
    said = folder / "said.json"
    with FileLock(f"{folder}.lock"):
        if not said.exists():
            workspace = clone(folder / "workspace")
            write_ratings(workspace.path / "data/inbox/ratings/ratings.jsonl")
            demo = workspace.amopo("demo", "--json")
            said.write_text(json.dumps([asdict(workspace) | {"path": str(workspace.path)}, asdict(demo)]))
    made, ended = json.loads(said.read_text())
    workspace = Workspace(Path(made["path"]), made["env"])
    yield workspace, Finished(**ended)
    end(workspace)


@pytest.fixture(scope="module")
def workspace(finished: tuple[Workspace, Finished], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A module's own copy of the workspace in which one run has been promoted."""
    original, demo = finished
    assert demo.code == 0, demo.err
    copy = Workspace(tmp_path_factory.mktemp("copy") / "workspace", original.env)
    shutil.copytree(original.path, copy.path, symlinks=True)
    move_artifacts(copy.path / "mlflow.db", str(original.path), str(copy.path))
    yield copy
    end(copy)


def move_artifacts(store: Path, old: str, new: str) -> None:
    """Make MLflow's store, which keeps whole paths, name files of the copy."""
    with closing(sqlite3.connect(store)) as connection, connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for _, column, kind, *_ in connection.execute(f"PRAGMA table_info({table})").fetchall():
                if kind.startswith(("VARCHAR", "TEXT")):
                    changed = f"UPDATE {table} SET {column} = replace({column}, ?, ?) WHERE instr({column}, ?)"
                    connection.execute(changed, (old, new, old))


def end(workspace: Workspace) -> None:
    """Refuse that anything works on in the workspace."""
    left = workspace.processes()
    for process in left:
        process.kill()
    assert not left


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace in which nothing has run."""
    return clone(tmp_path_factory.mktemp("fresh") / "workspace")


@pytest.fixture
def free_port() -> int:
    """A port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
