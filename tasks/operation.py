"""operation.yaml as frozen classes: when retrainings start, which servers are used, who is told. Never what results."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from dateutil.rrule import rrulestr
from pydantic import AfterValidator, Field, model_validator

from amopo_core.config import Section, misfit
from amopo_core.errors import UserError
from amopo_core.params_file import read_sections

OPERATION_FILE = Path("operation.yaml")
ENVIRONMENT_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"
_CRON_FIELDS = 5


def _complete(uri: str) -> str:
    if not uri or re.match(r"[\w.-]+:\d", uri):
        raise misfit(f"it is {uri!r}; a server's address begins with http:// or https://")
    return uri


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise misfit(f"{name!r} is no time zone; expected one such as UTC or Europe/Berlin") from None
    return name


def _require_cron(given: str) -> None:
    if len(given.split()) != _CRON_FIELDS:
        raise misfit(f"it is {given!r}; expected five fields, such as '0 3 * * *'", "cron")
    try:
        CronSim(given, datetime(2026, 1, 1))
    except CronSimError as error:
        expected = "expected, for example, '0 3 * * 1-5'; hours that pass midnight are '22-23,0-2'"
        raise misfit(f"it is {given!r}: {str(error).lower()}; {expected}", "cron") from None


def _require_rule(given: str) -> None:
    try:
        rrulestr(given)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise misfit(f"it is {given!r}: {error}; expected, for example, 'FREQ=DAILY;BYHOUR=3'", "rrule") from None


class Servers(Section):
    """Where the servers are; the environment variables of the same meaning come first."""

    mlflow_tracking_uri: Annotated[str, AfterValidator(_complete)] | None = None
    """MLFLOW_TRACKING_URI; absent: sqlite:///mlflow.db in the project's folder. A server's begins with http:// or https://."""
    prefect_api_url: str | None = Field(default=None, pattern=r"^https?://")
    """PREFECT_API_URL, ends in /api; absent: a temporary server for every command, and `amopo serve` refuses."""

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that say the same."""
        said = {"MLFLOW_TRACKING_URI": self.mlflow_tracking_uri, "PREFECT_API_URL": self.prefect_api_url}
        return {name: value for name, value in said.items() if value is not None}


class Schedule(Section):
    """When a retraining starts by the clock."""

    cron: str | None = None
    """Minute, hour, day of the month, month, day of the week: `0 3 * * *` is every day at three."""
    rrule: str | None = Field(default=None, min_length=1, max_length=6500)
    """Instead of cron, a rule of RFC 5545: `FREQ=MONTHLY;BYDAY=1SU;BYHOUR=3;BYMINUTE=0;BYSECOND=0`."""
    timezone: Annotated[str, AfterValidator(_known_zone)] = "UTC"
    """Name in the IANA data base; summer time is kept."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Schedule:
        if (self.cron is None) == (self.rrule is None):
            raise misfit("give either `cron` or `rrule`")
        if self.cron is not None:
            _require_cron(self.cron)
        if self.rrule is not None:
            _require_rule(self.rrule)
        return self

    def __str__(self) -> str:
        return f"{self.cron or self.rrule} {self.timezone}"


class Watch(Section):
    """When new feedback starts a retraining."""

    min_rows: int | None = Field(default=None, ge=1)
    """New rows, in the inbox and in sources that can count them, that start a retraining; absent: no number does."""
    max_hours: float | None = Field(default=None, gt=0)
    """Hours after which any new row does, or a source that cannot count; absent: no time does."""
    poll_seconds: float = Field(default=60.0, ge=0.5)
    """Seconds between two looks; a file that grew in between is left alone until it has stopped."""
    sources: bool = True
    """Whether the sources with `fetch` are asked too, or the inbox alone."""

    @property
    def wanted(self) -> bool:
        """Whether new feedback starts anything."""
        return self.min_rows is not None or self.max_hours is not None


Event = Literal["failure", "verdict", "promotion"]


class Notification(Section):
    """Somebody who is told, at an address of apprise: a webhook, e-mail, Slack and a hundred more."""

    url_env: str | None = Field(default=None, pattern=ENVIRONMENT_NAME)
    """Environment variable with the address: it holds secrets and stands nowhere else."""
    secret_block: str | None = Field(default=None, min_length=1)
    """Instead, the name of a Secret block on the Prefect server with the address."""
    events: list[Event] = Field(default=["failure", "verdict", "promotion"], min_length=1)
    """`failure`: a retraining failed; `promotion`: the champion changed, also by hand; `verdict`: every verdict."""

    @model_validator(mode="after")
    def _one_of_two(self) -> Notification:
        if (self.url_env is None) == (self.secret_block is None):
            raise misfit("give either `url_env` or `secret_block`")
        return self

    @property
    def name(self) -> str:
        """What it may be called in a log."""
        return self.url_env or f"block {self.secret_block}"


class Operation(Section):
    """The whole of operation.yaml. Without the file everything is as it is here."""

    servers: Servers = Servers()
    """Where MLflow and Prefect are."""
    schedules: list[Schedule] = Field(default=[])
    """Retrainings by the clock."""
    watch: Watch = Watch()
    """Retrainings by new feedback."""
    overlap: Literal["wait", "drop"] = "wait"
    """What becomes of a start while another is at work: it waits, or is dropped. Several that wait become one."""
    notifications: list[Notification] = Field(default=[])
    """Who is told."""


def read_operation(path: Path = OPERATION_FILE) -> Operation:
    """The settings of the operation; the defaults where there is no file, or comments alone.

    Raises:
        UserError: with file, line, key and the line's content for every key that is misspelt or ill-typed; or an
            address that holds a password, which is not repeated.
    """
    if not path.exists() or _is_empty(path):
        return Operation()
    operation = read_sections(path, Operation)
    for variable, uri in operation.servers.variables.items():
        _refuse_password(path, variable, uri)
    return operation


def _refuse_password(path: Path, variable: str, uri: str) -> None:
    try:
        has_password = urlsplit(uri).password is not None
    except ValueError:
        has_password = True  # what cannot be taken apart could hold one
    if has_password:
        raise UserError(
            f"{path}: servers.{variable.lower()}: it holds a password, and git keeps this file; set {variable} in the"
            " environment instead, or for MLflow MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        )


def _is_empty(path: Path) -> bool:
    return path.is_file() and all(
        line.strip() == b"" or line.lstrip().startswith(b"#") for line in path.read_bytes().splitlines()
    )
