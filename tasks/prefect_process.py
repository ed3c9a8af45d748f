"""Prefect's server in this process.   Run as: python -m tasks.prefect_process PORT [--temporary]."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from amopo_core.collector import look_less_often

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

GRACEFUL = 5
"""Time that open connections are given when the server ends [seconds]."""


def main() -> None:
    """Serve on this machine alone until told to end; a temporary server has neither pages nor schedules."""
    look_less_often()
    import uvicorn
    from prefect.server.api.server import create_app
    from prefect.settings import PREFECT_UI_API_URL

    app = create_app(ephemeral="--temporary" in sys.argv[2:], final=True)
    uvicorn.run(
        OwnPages(app, str(PREFECT_UI_API_URL.value())),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_level="error",
        timeout_graceful_shutdown=GRACEFUL,
    )


class OwnPages:
    """Tells browsers that the pages may ask this server and nobody else.

    Prefect's pages ask an analytics company for its settings as they are opened, whatever is set; and a picture in
    somebody's Markdown could tell another server who reads it.

    Args:
        app: Prefect.
        api_url: what the pages ask, which is elsewhere behind some proxies.
    """

    def __init__(self, app: ASGIApp, api_url: str) -> None:
        api = urlsplit(api_url)
        socket = "wss" if api.scheme == "https" else "ws"
        self._app = app
        self._policy = (
            "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:;"
            f" connect-src 'self' data: blob: {api.scheme}://{api.netloc} {socket}://{api.netloc}"
        ).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, with the rule beside each answer."""

        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"content-security-policy", self._policy)]
            await send(message)

        await self._app(scope, receive, send_with_policy)


if __name__ == "__main__":
    main()
