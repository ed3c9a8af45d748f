"""The page that a flow run leaves with Prefect: verdict, report with its pictures, and where MLflow has the rest."""

from __future__ import annotations

import base64
import re
from pathlib import Path

from amopo_core.promotion import Verdict
from tasks.mlflow_server import mlflow_pages
from tasks.registry import MODEL, Version

TRAINING = Path("reports/train")
_PICTURE = re.compile(r"!\[([^\]]*)\]\(([^):]+\.png)\)")


def report_page(report: Path, version: Version, verdict: Verdict) -> str:
    """The page as Markdown, pictures included: Prefect's pages cannot reach this folder.

    It is there before anything is done about the verdict, and stays where that fails or waits for a person.
    """
    parts = [
        f"# {version.uri}: the verdict is {'yes' if verdict.promote else 'no'}",
        *conditions(verdict),
        _place(version),
        with_pictures(report.read_text(encoding="utf-8"), report.parent),
    ]
    if pictures := sorted(TRAINING.glob("*.png")):
        parts += ["## Training", *(f"![{picture.stem}]({_data(picture)})" for picture in pictures)]
    return "\n\n".join(parts) + "\n"


def conditions(verdict: Verdict) -> list[str]:
    """The conditions as a table, and the notes beside them; a verdict that was read back has notes alone."""
    rows = [f"| {'yes' if each.holds else '**no**'} | {each.text} |" for each in verdict.conditions]
    known = {each.text for each in verdict.conditions}
    notes = [f"- {reason}" for reason in verdict.reasons if reason not in known]
    table = ["\n".join(["| holds | condition |", "| --- | --- |", *rows])] if rows else []
    return [*table, "\n".join(notes)]


def with_pictures(markdown: str, folder: Path) -> str:
    """The text with every picture of the folder that it names in it; what is not there stays a name."""

    def inlined(found: re.Match[str]) -> str:
        picture = folder / found[2]
        return f"![{found[1]}]({_data(picture)})" if picture.is_file() else found[0]

    return _PICTURE.sub(inlined, markdown)


def _place(version: Version) -> str:
    """Where MLflow shows it; its pages are there without a server only while `amopo ui` runs."""
    name = f"version {version.number}"
    if pages := mlflow_pages():
        name = f"[{name}]({pages}/#/models/{MODEL}/versions/{version.number})"
    return f"In MLflow: model {MODEL}, {name}, run {version.run_id}."


def _data(picture: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"
