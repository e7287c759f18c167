"""The live page of a real run in a real browser: exact figures, a cut connection, the end; narrow and dark; accessible."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio

from replay.live_page.page import COLUMNS
from replay.staging.sink import Sink
from tests.support.browser import Tab, browser_tab
from tests.support.trace_data import Row, write_trace

pytestmark = pytest.mark.whole

AXE = os.environ.get("REPLAY_AXE", "")
"""The file axe.min.js of the npm package axe-core: with it the page is checked for accessibility."""

ROWS = """JSON.stringify([...document.querySelectorAll('#seconds tbody tr')].map(
  (row) => [...row.cells].map((cell) => cell.textContent)))"""


class Wire:
    """A proxy between browser and server, whose connections can be cut."""

    def __init__(self, port: int) -> None:
        self._behind = port
        self._open: list[trio.SocketStream] = []
        self.port = 0
        self.is_down = False

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled."""
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_tcp, self._carry, 0)
            self.port = listeners[0].socket.getsockname()[1]
            task_status.started()
            await trio.sleep_forever()

    async def _carry(self, stream: trio.SocketStream) -> None:
        if self.is_down:
            return
        behind = await trio.open_tcp_stream("127.0.0.1", self._behind)
        self._open += [stream, behind]

        async def one_way(source: trio.SocketStream, sink: trio.SocketStream) -> None:
            try:
                async for data in source:
                    await sink.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one_way, stream, behind)
            nursery.start_soon(one_way, behind, stream)
        self._open = [each for each in self._open if each not in (stream, behind)]

    async def cut(self) -> None:
        """Cut every connection, and take no other until `mend`."""
        self.is_down = True
        for stream in list(self._open):
            await stream.aclose()

    def mend(self) -> None:
        """Take connections again."""
        self.is_down = False


@asynccontextmanager
async def live_run(
    folder: Path, trace: Path, port: int, *more: str
) -> AsyncIterator[tuple[str, trio.Process]]:
    """`replay run --live`; the link that it prints, and its process."""
    words = [
        sys.executable, "-m", "replay.cli", "run", str(trace), "--target", f"http://127.0.0.1:{port}", "--live=127.0.0.1:0",
        "-o", str(folder), "--plain", *more,
    ]  # fmt: skip
    process = await trio.lowlevel.open_process(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    text = b""
    try:
        with trio.fail_after(60):
            while not (link := re.search(rb"live page: (http\S+)\s", text)):
                data = await process.stderr.receive_some()
                assert data, text
                text += data
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_drain, process.stderr)
            yield link[1].decode(), process
            nursery.cancel_scope.cancel()
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        with trio.CancelScope(shield=True):
            await process.wait()


async def _drain(stream: Any) -> None:
    async for _ in stream:
        pass


def through(link: str, wire: Wire) -> str:
    """The link by way of the proxy, as by way of a tunnel."""
    return f"http://127.0.0.1:{wire.port}/#{urlsplit(link).fragment}"


async def rows_of(tab: Tab) -> list[list[str]]:
    """The table of exact figures, the first second first."""
    found: list[list[str]] = json.loads(await tab.run(ROWS))
    return found[::-1]


def as_shown(row: dict[str, Any]) -> list[str]:
    """A row of timeline.jsonl as the page's table should have it."""
    return [
        "" if row.get(name) is None else f"{row[name]:g}" if isinstance(row[name], float) else str(row[name])
        for name in COLUMNS
    ]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    write_trace(
        tmp_path / "t.trace", [Row(n * 10_000_000, target=b"/items/%d" % (n % 5)) for n in range(1_200)]
    )
    return tmp_path / "t.trace"


@pytest.mark.timing  # A sink that gets no CPU for LEAVE_S is given up, and the run says so.
def test_it_shows_exact_figures_survives_a_cut_and_keeps_the_report(tmp_path: Path, trace: Path) -> None:
    async def main() -> None:
        with Sink(capacity=20_000) as target:
            async with (
                live_run(tmp_path / "run", trace, target.port, "--slo", "p99<10s", "--slo", "p50<1us") as (
                    link,
                    process,
                ),
                browser_tab(tmp_path) as tab,
                trio.open_nursery() as nursery,
            ):
                wire = Wire(urlsplit(link).port or 0)
                await nursery.start(wire.serve)
                await tab.look(width=1280)
                await tab.call("Page.navigate", url=through(link, wire))
                await tab.until("document.querySelectorAll('#seconds tbody tr').length >= 3")
                await tab.until("document.querySelectorAll('figure svg').length >= 6")
                assert "RUNNING" in await tab.run("document.querySelector('h1').textContent")
                await wire.cut()
                await tab.until("document.getElementById('state')?.textContent.includes('no connection')")
                before = len(await rows_of(tab))
                wire.mend()
                await tab.until(f"document.querySelectorAll('#seconds tbody tr').length > {before}")
                await _accessible(tab)
                await tab.until("document.documentElement.dataset.over")
                with trio.fail_after(30):
                    await process.wait()
                await wire.cut()
                await _keeps_its_report(tab, tmp_path)
                assert not [line for line in tab.console if "ERR_" not in line], tab.console
                assert {urlsplit(url).netloc for url in tab.asked} == {f"127.0.0.1:{wire.port}"}
                assert urlsplit(link).fragment not in "".join(url.partition("#")[0] for url in tab.asked)
                nursery.cancel_scope.cancel()

    trio.run(main)


async def _keeps_its_report(tab: Tab, folder: Path) -> None:
    timeline = [json.loads(line) for line in (folder / "run" / "timeline.jsonl").read_text().splitlines()]
    assert await rows_of(tab) == [as_shown(row) for row in timeline]
    shown = await tab.run("document.body.innerText")
    document = json.loads((folder / "run" / "run.json").read_text())
    accounts = document["accounts"]
    assert (
        f"planned {accounts['planned']:,} = sent {accounts['sent']:,} + unsent {accounts['unsent']:,}"
        in shown
    )
    assert document["validity"]["verdict"] in await tab.run("document.querySelector('h1').textContent")
    assert "1 of 2 objectives missed" in shown
    assert "breach of p50<1us" in shown
    assert "without a connection" in await tab.run("document.getElementById('state').textContent")
    for width, dark in ((390, True), (390, False), (1280, True)):
        await tab.look(width=width, dark=dark)
        assert await tab.run("document.documentElement.scrollWidth - innerWidth") <= 0
        paper = await tab.run("+getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]")
        assert (paper < 128) == dark


async def _accessible(tab: Tab) -> None:
    """No fault that axe calls serious or critical, where axe is there."""
    if not AXE:
        return
    await tab.run(Path(AXE).read_text() + ";1")
    found = await tab.run(
        "axe.run().then((r) => JSON.stringify(r.violations.map((v) => [v.impact, v.id, v.nodes[0].html])))"
    )
    assert not [each for each in json.loads(found) if each[0] in ("serious", "critical")], found


def test_a_link_without_its_key_says_so(tmp_path: Path, trace: Path) -> None:
    async def main() -> None:
        with Sink(capacity=20_000) as target:
            async with (
                live_run(tmp_path / "run", trace, target.port) as (link, _),
                browser_tab(tmp_path) as tab,
            ):
                await tab.call("Page.navigate", url=link.partition("#")[0])
                await tab.until("document.getElementById('state')?.textContent.includes('has no key')")
                assert not await rows_of(tab)

    trio.run(main)
