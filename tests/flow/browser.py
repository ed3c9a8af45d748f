"""A real browser without a window, driven by its debugging protocol; it reaches this machine and nothing else."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--hide-scrollbars",
]  # fmt: skip
NOBODY = "--host-resolver-rules=MAP * ~NOTFOUND"
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None and os.environ.get("CI") != "true", reason="no chromium here (apt-get install chromium)"
)
_LIMIT = 60.0


class Page:
    """One page of the browser."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._numbers = socket, itertools.count(1)
        self._asked: dict[str, str] = {}
        self._call("Network.enable")

    @property
    def asked(self) -> set[str]:
        """The hosts that pages asked for anything."""
        return set(self._asked.values())

    def open(self, url: str, until: str, width: int = 1200, height: int = 1000) -> str:
        """What a person reads on the page once it says `until`, and every picture on it is there."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", **size)
        self._call("Page.navigate", url=url)
        deadline = time.monotonic() + _LIMIT
        while True:
            text = str(self.evaluate("document.body ? document.body.innerText : ''"))
            loaded = self.evaluate("Array.from(document.images).every(image => image.complete)")
            if until.casefold() in text.casefold() and loaded:
                return text
            assert time.monotonic() < deadline, f"{url} never said {until!r} but:\n{text}"
            time.sleep(0.1)

    def pictures(self) -> list[str]:
        """What each picture says of itself that is large enough to be looked at, once there is one."""
        deadline = time.monotonic() + _LIMIT
        while not (found := self._drawn()):
            assert time.monotonic() < deadline, "no picture was drawn"
            time.sleep(0.1)
        return found

    def _drawn(self) -> list[str]:
        drawn = "Array.from(document.images).filter(image => image.naturalWidth > 200).map(image => image.alt)"
        return list(self.evaluate(drawn))

    def click(self, text: str, kind: str = "button") -> None:
        """Press the last element of a kind (a CSS selector) that has this text or name, once it stands still.

        The last one is what a person sees on top: dialogs and menus are put behind what they cover.
        """
        deadline, before = time.monotonic() + _LIMIT, None
        while (place := self._middle_of(text, kind)) is None or place != before:
            said = self.evaluate("document.body ? document.body.innerText : ''")
            assert time.monotonic() < deadline, f"nothing to press says {text!r}; the page says:\n{said}"
            before = place
            time.sleep(0.2)
        where = {"x": place[0], "y": place[1], "button": "left", "clickCount": 1}
        for event in ("mouseMoved", "mousePressed", "mouseReleased"):
            self._call("Input.dispatchMouseEvent", type=event, **where)

    def _middle_of(self, text: str, kind: str) -> list[float] | None:
        """Where it is now [pixels]; None where it is not there, or not to be pressed."""
        script = f"""(() => {{
            const found = Array.from(document.querySelectorAll({json.dumps(kind)})).filter(
                each => [each.ariaLabel, each.textContent.trim()].includes({json.dumps(text)})
                    && !each.disabled && each.checkVisibility());
            if (!found.length) return null;
            const last = found[found.length - 1];
            last.scrollIntoView({{block: "nearest"}});
            const box = last.getBoundingClientRect();
            return [Math.round(box.x + box.width / 2), Math.round(box.y + box.height / 2)];
        }})()"""
        found = self.evaluate(script)
        return list(found) if found else None

    def screenshot(self, file: Path) -> None:
        """The page as it is seen now."""
        file.write_bytes(base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"]))

    def evaluate(self, script: str) -> Any:
        """What a line of JavaScript comes to."""
        return self._call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def _call(self, method: str, **params: object) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=_LIMIT))
            self._note(message.get("method"), message.get("params", {}))
            if message.get("id") == number:
                assert "error" not in message, message
                return dict(message["result"])

    def _note(self, event: str | None, params: dict[str, Any]) -> None:
        """What the page's own rule forbids is announced like any other request, and never sent."""
        if event == "Network.requestWillBeSent" and (host := urlsplit(params["request"]["url"]).hostname):
            self._asked[params["requestId"]] = host
        if event == "Network.loadingFailed" and params.get("blockedReason") == "csp":
            self._asked.pop(params["requestId"], None)


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A fresh browser; the folder gets what it keeps."""
    assert CHROMIUM is not None, "CI needs chromium: apt-get install chromium"
    options = [f"{NOBODY} , EXCLUDE 127.0.0.1", "--remote-debugging-port=0", f"--user-data-dir={folder}"]
    process = subprocess.Popen([CHROMIUM, *QUIET, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port = _port(folder / "DevToolsActivePort", process)
        page = httpx.put(f"http://127.0.0.1:{port}/json/new?about:blank", trust_env=False).json()
        with connect(page["webSocketDebuggerUrl"], max_size=None, proxy=None) as socket:
            yield Page(socket)
    finally:
        process.terminate()
        process.wait()


def _port(file: Path, process: subprocess.Popen[bytes]) -> int:
    while not (file.exists() and file.read_text().strip()):
        assert process.poll() is None
        time.sleep(0.05)
    return int(file.read_text().split()[0])
