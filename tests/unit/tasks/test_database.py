import pytest

from amopo_core.errors import UserError
from tasks.database import database, require_usable
from tasks.errors import OutsideError

DRIVERS = {"postgresql": "asyncpg", "sqlite": "aiosqlite"}
PASSWORD = "s3cret/p@ss word"
URL = "postgresql://me:s3cret%2Fp%40ss%20word@base:6432/runs"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_a_url_gets_the_driver_of_the_server(scheme: str) -> None:
    given = URL.replace("postgresql", scheme)

    assert database(given, "--x", DRIVERS).url == "postgresql+asyncpg://me:s3cret%2Fp%40ss word@base:6432/runs"
    assert database(given, "--x", {"postgresql": "psycopg"}).url.startswith("postgresql+psycopg://me:")


def test_only_asyncpg_has_another_word_for_sslmode() -> None:
    assert database(f"{URL}?sslmode=require", "--x", DRIVERS).url.endswith("/runs?ssl=require")
    assert database(f"{URL}?sslmode=require", "--x", {"postgresql": "psycopg"}).url.endswith("/runs?sslmode=require")


def test_no_password_is_shown() -> None:
    found = database(URL, "--x", DRIVERS)

    assert found.where == "postgresql://base:6432/runs"
    assert {PASSWORD, "s3cret%2Fp%40ss%20word", "s3cret%2Fp%40ss+word", "s3cret%2Fp%40ss word"} < set(found.secrets)
    assert "s3cret" not in repr(found)


def test_a_file_stays_one() -> None:
    found = database("sqlite:///mlflow.db", "--x", {"sqlite": ""})

    assert found.url == found.where == "sqlite:///mlflow.db"
    assert found.secrets == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("me:hunter2@base/runs", "--x holds no URL that SQLAlchemy knows; expected, for example, postgresql"),
        ("postgresql://me:hunter2@base:port/runs", "--x holds no URL"),
        ("postgresql://me:hunter2/x@base/runs", "--x holds a second `@`, or a `/`"),
        ("mongodb://me:hunter2@base/runs", "--x names another kind of database"),
        ("mysql://me:hunter2@base/runs", "--x names another kind of database"),
        ("postgresql://me:hunter2@base", "--x names no database"),
    ],
)
def test_what_is_wrong_is_said_without_the_password(given: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        database(given, "--x", DRIVERS)

    assert str(error.value).startswith(said)
    assert "hunter2" not in str(error.value)


def test_one_database_for_both_servers_is_refused_however_it_is_written() -> None:
    prefect = database("postgresql://me@base:5432/all", "--x", DRIVERS)

    with pytest.raises(UserError, match="both given the database postgresql://base:5432/all"):
        require_usable(prefect, database("postgres://other@base/all", "--y", {"postgresql": "psycopg"}))


def test_a_database_that_does_not_answer_is_named_without_the_password() -> None:
    file = database("sqlite:///prefect.db", "--x", DRIVERS)
    away = database("postgres://me:hunter2@127.0.0.1:1/mlflow", "--y", {"postgresql": "psycopg"})

    with pytest.raises(OutsideError, match=r"postgresql://127\.0\.0\.1:1/mlflow cannot be reached: .*refused") as error:
        require_usable(file, away)
    assert "hunter2" not in str(error.value)
