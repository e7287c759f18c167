"""The application of `replay serve`, and its server."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio
from hypercorn.trio import serve
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from replay.errors import InputError, ReplayError, reason_of
from replay.web.guard import Guard
from replay.web.guarded import Guarded
from replay.web.listen import config_of

from .pages import Page, error_page, list_page, one_run, two_groups
from .trends import Known, runs_of_builds, trends_page

AT_ONCE = 2
"""Maximum number of pages that are generated at the same time."""


def pages_app(root: Path, guard: Guard) -> ASGIApp:
    """Return the application that serves the runs below a folder.

    `/` lists the runs, `/run?name=` shows one, and `/compare?base=&new=` compares two groups. `/trends` shows each
    scenario over time, and `/builds?load=&base=&new=` compares the runs of two builds.
    """
    limit = trio.CapacityLimiter(AT_ONCE)

    async def answer(make: Callable[[], Page]) -> Response:
        status = 200
        try:
            content, policy = await trio.to_thread.run_sync(make, limiter=limit)
        except ReplayError as error:
            status, (content, policy) = 404, error_page(error)
        except OSError as error:
            status, (content, policy) = (
                404,
                error_page(InputError(f"a file cannot be read: {reason_of(error)}")),
            )
        policy += "; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
        headers = {"Content-Security-Policy": policy}
        return Response(content, status, media_type="text/html; charset=utf-8", headers=headers)

    async def runs(request: Request) -> Response:
        wanted = request.query_params.get("q", "")
        return await answer(lambda: list_page(root, wanted))

    async def run(request: Request) -> Response:
        name = request.query_params.get("name", "")
        return await answer(lambda: one_run(root, name))

    async def compare(request: Request) -> Response:
        base, new = (request.query_params.getlist(side) for side in ("base", "new"))
        return await answer(lambda: two_groups(root, base, new))

    known = Known()

    async def trends(request: Request) -> Response:
        return await answer(lambda: trends_page(root, known))

    async def builds(request: Request) -> Response:
        load, base, new = (request.query_params.get(key, "") for key in ("load", "base", "new"))

        def compared() -> Page:
            rows = known.rows(root)
            return two_groups(root, *(runs_of_builds(rows, load, build) for build in (base, new)))

        return await answer(compared)

    routes = [
        Route("/", runs),
        Route("/run", run),
        Route("/compare", compare),
        Route("/trends", trends),
        Route("/builds", builds),
    ]
    app = Starlette(routes=routes)
    app.router.redirect_slashes = False
    return Guarded(app, guard)


async def serve_pages(root: Path, made: socket.socket, host: str) -> None:
    """Serve the pages on the socket `made` until cancelled."""
    app: Any = pages_app(root, Guard(host))
    await serve(app, config_of(made), shutdown_trigger=trio.sleep_forever, mode="asgi")
