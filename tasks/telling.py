"""Telling of a verdict, once: the next run does it where the run that wrote the verdict was killed before it could."""

from __future__ import annotations

from tasks.notification import notify
from tasks.registry import VERDICT_TAG, Version, by_number, tag
from tasks.standing import NOT_YET, PROMOTED, TOLD, TOLD_TAG
from tasks.tracking import reaching_mlflow


def tell_verdict(version: Version) -> None:
    """Notify of the version's verdict, unless that was done; killed in between, somebody may be told twice."""
    now = by_number(version.number)
    if now is None or now.tags.get(TOLD_TAG) != NOT_YET:
        return
    verdict = now.tags[VERDICT_TAG]
    said = f"{version.uri}: {verdict}", now.tags.get("reasons", "")
    notify("promotion" if verdict == PROMOTED else "verdict", *said)
    with reaching_mlflow():
        tag(version, TOLD_TAG, TOLD)
