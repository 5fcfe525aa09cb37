"""A headless Chromium spoken to by the DevTools protocol: cookies, navigation, waiting, pictures."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from websockets.sync.client import ClientConnection, connect

from deploy.errors import PrerequisiteError, ServerError
from deploy.servers.processes import ServerProcess

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
START_TIMEOUT = 60.0


def find_chromium() -> str | None:
    """Return the path of a Chromium, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """Context manager around one headless Chromium with one page.

    Parameters
    ----------
    width, height
        Of the page, in CSS pixels.
    """

    def __init__(self, *, width: int = 1440, height: int = 900) -> None:
        self._size = (width, height)
        self._process: ServerProcess | None = None
        self._socket: ClientConnection | None = None
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        program = find_chromium()
        if program is None:
            raise PrerequisiteError("no Chromium on this machine: apt-get install -y chromium")
        process = self._process = ServerProcess("chromium")
        port_file = process.work / "profile" / "DevToolsActivePort"
        width, height = self._size
        command = [program, "--headless=new", "--remote-debugging-port=0", "--no-first-run", "--disable-gpu"]
        command += ["--disable-dev-shm-usage", "--hide-scrollbars", f"--window-size={width},{height}"]
        command += [f"--user-data-dir={process.work / 'profile'}", "about:blank"]
        if os.geteuid() == 0:  # Chromium's sandbox does not work as root; pages are our own
            command.insert(1, "--no-sandbox")
        try:
            process.start(command, ready=port_file.is_file, timeout=START_TIMEOUT)
            self._socket = connect(self._page_address(port_file), max_size=64_000_000)
            self._call("Page.enable")
            self._call("Network.enable")
            metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
            self._call("Emulation.setDeviceMetricsOverride", **metrics)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        process, self._process = self._process, None
        if process is not None:
            process.stop(patience=10)
            process.clean()

    @staticmethod
    def _page_address(port_file: Path) -> str:
        port = int(port_file.read_text("ascii").splitlines()[0])
        pages = httpx.get(f"http://127.0.0.1:{port}/json/list", timeout=20, trust_env=False).json()
        return str(next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page"))

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        assert self._socket is not None  # noqa: S101 - __enter__ sets it
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            answer = json.loads(self._socket.recv(timeout=60))
            if answer.get("id") == number:
                break
        if "error" in answer:
            raise ServerError(f"Chromium refused {method}: {answer['error'].get('message')}")
        return dict(answer["result"])

    def set_cookie(self, url: str, name: str, value: str) -> None:
        """Set a cookie for the pages of an address."""
        self._call("Network.setCookie", url=url, name=name, value=value)

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression on the page."""
        found = self._call("Runtime.evaluate", expression=expression, returnByValue=True)
        return found["result"].get("value")

    def open(self, url: str, *, until: str = "true", timeout: float = 60) -> None:
        """Open a page and wait until it is loaded and a JavaScript expression is true.

        Raises
        ------
        ServerError
            After ``timeout`` seconds, with the page's first words.
        """
        self._call("Page.navigate", url=url)
        condition = f"document.readyState === 'complete' && location.href !== 'about:blank' && ({until})"
        end = time.monotonic() + timeout
        while not self.evaluate(condition):
            if time.monotonic() > end:
                words = self.evaluate("document.body ? document.body.innerText.slice(0, 300) : ''")
                raise ServerError(f"the page did not show what was waited for; it says: {words!r}")
            time.sleep(0.2)

    def text(self) -> str:
        """Return the words on the page."""
        return str(self.evaluate("document.body.innerText"))

    def picture(self, path: Path, *, settle: float = 0.7) -> Path:
        """Write a PNG of the page as it stands, after ``settle`` seconds for what is still being drawn."""
        time.sleep(settle)
        path.parent.mkdir(parents=True, exist_ok=True)
        data = self._call("Page.captureScreenshot", format="png", optimizeForSpeed=False)["data"]
        path.write_bytes(base64.b64decode(data))
        return path
