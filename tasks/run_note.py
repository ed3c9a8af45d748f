"""What MLflow shows first on a run's page: the report without its pictures and answers."""

from __future__ import annotations

import re

NOTE_TAG = "mlflow.note.content"
"""The tag that MLflow shows as the run's description."""
_MOST = 5000
"""Characters; MLflow takes 8,000 in a tag."""
_ANSWERS = "## Answers side by side"
_HEAD = re.compile(r"\A# .*\n+|^!\[.*\]\(.*\)\n+", re.MULTILINE)
"""The title, and pictures: MLflow shows them in their full size, wider than the page."""


def run_note(report: str) -> str:
    """The report's headline and as many of its tables as fit, in Markdown."""
    text = _HEAD.sub("", report.partition(_ANSWERS)[0]).strip()
    while len(text) > _MOST and "\n## " in text:
        text = text.rpartition("\n## ")[0].strip()
    return f"{text[:_MOST]}\n\nThe whole report and its pictures: Artifacts, reports/evaluate/report.md\n"
