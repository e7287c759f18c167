"""Wraps an application with the checks and headers that every answer needs."""

from __future__ import annotations

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .guard import HEADERS, STRICT, Guard

_ALL_HEADERS = {**HEADERS, "Content-Security-Policy": STRICT}


class Guarded:
    """Sends the guard's refusals, and adds the headers that an answer does not have.

    `private` is the path that needs the key; empty if none does.
    """

    def __init__(self, app: ASGIApp, guard: Guard, *, private: str = "") -> None:
        self._app, self._guard, self._private = app, guard, private

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, by the application or with a refusal. Web sockets are closed at once."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                ours = [(name.lower().encode(), value.encode()) for name, value in _ALL_HEADERS.items()]
                message["headers"] = [*message["headers"], *(pair for pair in ours if pair[0] not in given)]
            await send(message)

        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        server = str((scope.get("server") or ("", 0))[0])
        is_private, scheme = scope["path"] == self._private, scope["scheme"]
        refusal = self._guard.refusal(scope["method"], headers, server, is_private=is_private, scheme=scheme)
        if refusal is None:
            await self._app(scope, receive, send_guarded)
            return
        more = {"Allow": "GET, HEAD"} if refusal.status == 405 else {}
        more |= {"WWW-Authenticate": "Bearer"} if refusal.status == 401 else {}
        answer = PlainTextResponse(refusal.words + "\n", refusal.status, more)
        await answer(scope, receive, send_guarded)
