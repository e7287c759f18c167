"""A real browser for tests: Chromium without a window, driven by the DevTools protocol."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from trio_websocket import WebSocketConnection, open_websocket_url

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
IN_CI = os.environ.get("CI", "").lower() == "true"


def need_chromium() -> str:
    """The browser; without it the test is skipped, in CI it fails."""
    if CHROMIUM is None:
        if IN_CI:
            pytest.fail("Chromium is missing, and CI must have it")
        pytest.skip("Chromium not found")
    return CHROMIUM


class Tab:
    """One page. `console` collects what it logs and what a policy refused, `asked` every address that it asked for."""

    def __init__(self, socket: WebSocketConnection, session: str) -> None:
        self._socket, self._session = socket, session
        self._numbers = itertools.count(1)
        self._answers: dict[int, dict[str, Any]] = {}
        self._arrived: dict[int, trio.Event] = {}
        self.console: list[str] = []
        self.asked: list[str] = []

    async def listen(self) -> None:
        """Read what the browser says, until cancelled."""
        while True:
            message = json.loads(await self._socket.get_message())
            if "id" in message:
                self._answers[message["id"]] = message
                self._arrived[message["id"]].set()
            elif message["method"] == "Network.requestWillBeSent":
                self.asked.append(message["params"]["request"]["url"])
            elif message["method"] == "Log.entryAdded":
                self.console.append(message["params"]["entry"]["text"])
            elif message["method"] == "Runtime.exceptionThrown":
                self.console.append(json.dumps(message["params"]["exceptionDetails"])[:500])
            elif message["method"] == "Runtime.consoleAPICalled":
                self.console.append(json.dumps(message["params"]["args"])[:500])

    async def call(self, method: str, **given: Any) -> dict[str, Any]:
        """Call a method of the protocol."""
        number = next(self._numbers)
        self._arrived[number] = trio.Event()
        call = {"id": number, "method": method, "params": given}
        if self._session:
            call["sessionId"] = self._session
        await self._socket.send_message(json.dumps(call))
        with trio.fail_after(30):
            await self._arrived[number].wait()
        answer = self._answers.pop(number)
        assert "error" not in answer, answer
        return dict(answer["result"])

    async def attach(self) -> None:
        """Attach to a new page."""
        target = await self.call("Target.createTarget", url="about:blank")
        found = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = found["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            await self.call(f"{domain}.enable")

    async def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        answer = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def until(self, script: str, seconds: float = 20.0) -> Any:
        """Wait until an expression is true, and return it."""
        with trio.move_on_after(seconds):
            while not (value := await self.run(script)):
                await trio.sleep(0.1)
            return value
        shown = await self.run("document.body.innerText.slice(0, 600)")
        raise AssertionError(f"not within {seconds:g} s: {script}\n{shown}\n{self.console}")

    async def screenshot(self, path: Path) -> None:
        """Write a picture of the whole page."""
        shot = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    async def look(self, *, width: int = 1280, dark: bool = False) -> None:
        """Make the page so wide, light or dark."""
        phone = width < 500
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=phone
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        await self.call("Emulation.setEmulatedMedia", features=scheme)


@asynccontextmanager
async def browser_tab(folder: Path) -> AsyncIterator[Tab]:
    """A page in a browser of its own, with its files in `folder`."""
    words = [
        need_chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        "--disable-component-update", "--no-first-run", "--remote-debugging-port=0", f"--user-data-dir={folder / 'user'}",
        "about:blank",
    ]  # fmt: skip
    process = await trio.lowlevel.open_process(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        active = folder / "user" / "DevToolsActivePort"
        with trio.fail_after(60):
            while not (active.exists() and active.read_text().count("\n")):
                await trio.sleep(0.1)
        port, place = active.read_text().split()[:2]
        async with open_websocket_url(f"ws://127.0.0.1:{port}{place}", max_message_size=64 << 20) as socket:
            tab = Tab(socket, "")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(tab.listen)
                await tab.attach()
                yield tab
                nursery.cancel_scope.cancel()
    finally:
        process.terminate()
        with trio.CancelScope(shield=True), trio.move_on_after(10):
            await process.wait()
