"""The server of the page: it passes requests to a session and answers in JSON. It needs the extra `explore`."""

import functools
import json
import socket
import threading
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from kaem_jax.app.data import fit_of
from kaem_jax.app.data.folder import read_upload
from kaem_jax.app.explorer.page import render
from kaem_jax.app.explorer.session import Session
from kaem_jax.errors import ConfigError

HOST = "127.0.0.1"


def make_app(session: Session) -> Starlette:
    """The ASGI application of a session.

    `POST /api/NAME` calls the session's method with the arguments in a JSON object. `POST /api/upload` takes the bytes
    of an image file and answers as `Session.read` does. A `ValueError` gets status 400 and `{"error": sentence}`.
    """
    page = render(session.describe(), "served.js", {}, is_live=True)
    one_at_a_time = threading.Lock()  # posteriors take all cores, and handles must stay quick

    def read_held_out(body: bytes) -> Any:
        with one_at_a_time:
            return session.read_held_out(**json.loads(body))

    def upload(body: bytes) -> Any:
        x = read_upload(body, session.run.model.data_shape, fit_of(session.run.config.data))
        with one_at_a_time:
            return session.read(x)

    async def show(request: Request) -> Response:
        return HTMLResponse(page)

    def answer_of(method: Callable[..., Any]) -> Callable[[bytes], Any]:
        return lambda body: method(**json.loads(body))

    methods = (session.curves, session.decode, session.draw, session.held_out, session.path)
    answers = {method.__name__: answer_of(method) for method in methods}
    answers |= {"read_held_out": read_held_out, "upload": upload}
    return Starlette(
        routes=[
            Route("/", show),
            *(
                Route(f"/api/{name}", functools.partial(_answered, answer), methods=["POST"])
                for name, answer in answers.items()
            ),
        ],
        middleware=[
            # Another site may let its own name point to 127.0.0.1 (DNS rebinding), but its requests have that name.
            Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"]),
            Middleware(BaseHTTPMiddleware, dispatch=_guard),
        ],
    )


async def _guard(request: Request, proceed: Callable[[Request], Awaitable[Response]]) -> Response:
    """Refuses requests from other origins, which browsers name in a header."""
    own = (None, f"http://{request.headers['host']}")
    site = request.headers.get("sec-fetch-site", "none")
    if request.headers.get("origin") not in own or site not in ("none", "same-origin"):
        return PlainTextResponse("kaem explore answers only its own page; open its address by typing it", 403)
    return await proceed(request)


async def _answered(answer: Callable[[bytes], Any], request: Request) -> Response:
    try:
        return JSONResponse(await run_in_threadpool(answer, await request.body()))
    except ValueError as error:
        return JSONResponse({"error": str(error)[:500]}, 400)
    except Exception as error:  # such as too little memory: the page shows it, the terminal tells where
        traceback.print_exc()
        return JSONResponse({"error": f"The server could not answer: {type(error).__name__}: {error}"[:500]}, 500)


def listen(port: int) -> socket.socket:
    """Opens a listening socket on 127.0.0.1 for a server; port 0 takes a free port.

    Raises:
      ConfigError: the port is taken, or not allowed.
    """
    try:
        return socket.create_server((HOST, port))
    except (OSError, OverflowError) as error:
        raise ConfigError(f"--port={port} cannot be used ({error}); give another one, or 0 for any") from None


def serve(session: Session, at: socket.socket) -> None:
    """Answers requests until it is interrupted, and then raises KeyboardInterrupt."""
    uvicorn.Server(uvicorn.Config(make_app(session), log_level="warning", lifespan="off")).run(sockets=[at])
