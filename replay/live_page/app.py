"""The web application of the live page: `/` is the page, `/stream` the stream of messages. It is read-only."""

from __future__ import annotations

from collections.abc import Callable

import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from replay.web.guard import Guard
from replay.web.guarded import Guarded

from .feed import Feed, line
from .page import page

STREAM = "/stream"
VIEWERS_MAX = 200
BATCH = 200
"""Maximum number of messages that are sent in one piece."""

BEAT_S = 15.0
"""A silent stream sends an empty line at this interval, so that both ends notice if the other one is gone."""

Changed = Callable[[], trio.Event]
"""A function that returns the event of the next change of the feed."""


def live_app(feed: Feed, changed: Changed, guard: Guard) -> ASGIApp:
    """Return the application that serves the page and the stream of `feed`.

    It calls `changed` before it reads the feed, so that no change is missed between reading and waiting.
    """

    async def root(request: Request) -> Response:
        content, policy = page()
        return Response(
            content, media_type="text/html; charset=utf-8", headers={"Content-Security-Policy": policy}
        )

    async def stream(request: Request) -> Response:
        after = request.query_params.get("after", "0")
        if not (after.isascii() and after.isdigit() and len(after) <= 12):
            return PlainTextResponse("after= must be the id of a message, of at most 12 digits\n", 400)
        if request.method == "HEAD":
            return Response(media_type=Lines.media_type)
        if feed.viewers >= VIEWERS_MAX:
            return PlainTextResponse(f"there are {VIEWERS_MAX} viewers already\n", 503, {"Retry-After": "10"})
        return Lines(feed, changed, int(after))

    routes = [Route("/", root, methods=["GET"]), Route(STREAM, stream, methods=["GET"])]
    app = Starlette(routes=routes)
    app.router.redirect_slashes = False
    return Guarded(app, guard, private=STREAM)


class Lines(Response):
    """The stream: the messages after a number and the changed sections, as JSON lines, until the end of the feed."""

    media_type = "application/x-ndjson"

    def __init__(self, feed: Feed, changed: Changed, after: int) -> None:
        super().__init__(media_type=self.media_type)
        del self.headers["content-length"]
        self._feed, self._changed, self._number = feed, changed, after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send lines until the viewer disconnects, or until the feed has ended and all its lines are sent."""
        self._feed.viewers += 1
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_left, receive, nursery.cancel_scope)
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                await self._send_all(send)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                nursery.cancel_scope.cancel()
        finally:
            self._feed.viewers -= 1

    async def _send_all(self, send: Send) -> None:
        version = 0
        while True:
            changed, is_over = self._changed(), self._feed.is_over
            messages, self._number, lost = self._feed.messages_after(self._number, BATCH)
            sections, version = self._feed.sections_after(version)
            data = b"".join([line("lost", lost) if lost else b"", *messages, sections])
            if not data and is_over:
                data = line("over", True)
            if data:
                await send({"type": "http.response.body", "body": data, "more_body": True})
                if not messages and not sections:
                    return
                continue
            with trio.move_on_after(BEAT_S) as waited:
                await changed.wait()
            if waited.cancelled_caught:
                await send({"type": "http.response.body", "body": b"\n", "more_body": True})


async def _left(receive: Receive, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
