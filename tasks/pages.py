"""Pages that Prefect keeps of a run; a server that is away when one is due costs the page, not the run."""

from __future__ import annotations

import httpx
from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.settings import PREFECT_API_URL

from tasks.address import quoted


def keep_page(key: str, markdown: str) -> None:
    """Keep a page with the run, under a key in lower case with dashes."""
    try:
        create_markdown_artifact(markdown, key=key)
    except httpx.HTTPError as error:
        said = quoted(error, PREFECT_API_URL.value() or "", 160)
        get_run_logger().warning("Prefect's server did not take the page %s: %s", key, said)
