from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from tasks.address import hidden, quoted, shown
from tasks.errors import OutsideError
from tasks.tracking import reaching_mlflow

AWAY = "http://ann:s3cret@127.0.0.1:1"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (AWAY, "http://127.0.0.1:1"),
        ("http://ann:s3/cr@et@host/api", "http://host/api"),
        ("http://s3cret@host:5000", "http://host:5000"),
        ("postgresql+psycopg://ann:s3cret@host/runs?password=s3cret", "postgresql+psycopg://host/runs"),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
        ("sqlite:////home/ann@work/mlflow.db", "sqlite:////home/ann@work/mlflow.db"),
        ("", ""),
    ],
)
def test_an_address_is_shown_without_its_login(address: str, said: str) -> None:
    assert shown(address) == said


@pytest.mark.parametrize(
    "text", [f"GET {AWAY}/api failed", "no access with s3cret", "HTTPConnectionPool(host='127.0.0.1', port=1)"]
)
def test_an_error_is_quoted_without_it_too(text: str) -> None:
    assert "s3cret" not in quoted(ValueError(text), AWAY, 300)
    assert "s3cret" not in hidden(f"it is {text}", "http://s3cret@127.0.0.1:1")


def test_a_password_is_hidden_before_the_text_is_cut() -> None:
    assert quoted(ValueError("a a a a a s3 cretary"), "http://ann:s3%20cretary@host", 16) == "a a a a a ***"


def test_mlflows_failure_shows_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(None)  # takes the variable away, too
    monkeypatch.setenv("MLFLOW_TRACKING_URI", AWAY)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    said = r"MLflow at http://127\.0\.0\.1:1 did not do what was asked"
    with pytest.raises(OutsideError, match=said) as caught, reaching_mlflow():
        MlflowClient().search_experiments()
    assert "s3cret" not in str(caught.value)
    assert caught.value.__suppress_context__
