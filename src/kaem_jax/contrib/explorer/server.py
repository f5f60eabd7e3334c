"""The server of the page, which asks a session and answers in JSON. It needs the extra `explore`."""

import base64
import json
import socket
import threading
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from kaem_jax.contrib.explorer.guard import Guard
from kaem_jax.contrib.explorer.page import render
from kaem_jax.contrib.explorer.session import Session
from kaem_jax.contrib.explorer.upload import read_upload
from kaem_jax.data import fit_of
from kaem_jax.errors import ConfigError

__all__ = ["HOST", "listen", "make_app", "serve", "warm_up"]

HOST = "127.0.0.1"
_MAX_BODY = 20_000_000  # bytes of a request: photographs are smaller

Answer = Callable[[dict[str, Any]], dict[str, Any]]


def make_app(session: Session) -> Starlette:
    """The ASGI application of a session.

    `POST /api/NAME` takes and gives JSON: decode, draw, curves, path, held_out, read. `POST /api/upload?seed=N` takes
    the bytes of an image file. What cannot be answered gets status 400 and `{"error": sentence}`.
    """
    page = render(session.describe(), ("served.js",), {}, connects=True)
    one_at_a_time = threading.Lock()  # posteriors take all cores, and handles must stay quick

    def read(x: np.ndarray, seed: int) -> dict[str, Any]:
        with one_at_a_time:
            found = session.read(x, seed)
        return found | {
            "image": _base64(found["image"]),
            "reconstruction": _base64(found["reconstruction"]),
            "latents": found["latents"].tolist(),
            "clusters": _listed(found["clusters"]),
        }

    def decode(asked: dict[str, Any]) -> dict[str, Any]:
        images, clusters = session.decode(_floats(asked, "latents"))
        return {"images": [_base64(image) for image in images], "clusters": _listed(clusters)}

    def draw(asked: dict[str, Any]) -> dict[str, Any]:
        is_locked = _floats(asked, "locked") != 0
        z = session.draw(
            _integer(asked, "seed"), _floats(asked, "latent"), is_locked, _cluster(asked), _integer(asked, "num")
        )
        return {"latents": z.tolist()}

    def path(asked: dict[str, Any]) -> dict[str, Any]:
        first, second = _floats(asked, "first"), _floats(asked, "second")
        return {"latents": session.path(first, second, str(asked.get("kind")), _integer(asked, "num")).tolist()}

    def held_out(asked: dict[str, Any]) -> dict[str, Any]:
        found = session.held_out(_integer(asked, "first"), _integer(asked, "num"))
        return found | {"images": [_base64(image) for image in found["images"]]}

    answers: dict[str, Answer] = {
        "curves": lambda asked: session.curves(_cluster(asked)),
        "decode": decode,
        "draw": draw,
        "held_out": held_out,
        "path": path,
        "read": lambda asked: read(session.datum(_integer(asked, "index")), _integer(asked, "seed")),
    }

    async def show(request: Request) -> Response:
        del request
        return HTMLResponse(page, headers={"Cache-Control": "no-store"})

    def route(name: str, answer: Answer) -> Route:
        async def endpoint(request: Request) -> Response:
            return await _answered(request, lambda body: answer(_object(body)))

        return Route(f"/api/{name}", endpoint, methods=["POST"])

    async def upload(request: Request) -> Response:
        def answer(body: bytes) -> dict[str, Any]:
            seed = _seed(request.query_params.get("seed", "0"))
            return read(read_upload(body, session.run.model.data_shape, fit_of(session.run.config.data)), seed)

        return await _answered(request, answer)

    return Starlette(
        routes=[
            Route("/", show),
            Route("/api/upload", upload, methods=["POST"]),
            *(route(name, answer) for name, answer in answers.items()),
        ],
        middleware=[Middleware(Guard)],
    )


def warm_up(session: Session) -> None:
    """Compiles what handles and draws need, so that the first answers come as quickly as all others."""
    latent, unlocked = np.zeros((1, session.size), np.float32), np.zeros(session.size, bool)
    for num in (1, 2):
        session.decode(np.repeat(latent, num, axis=0))
    session.draw(0, latent[0], unlocked)


def listen(port: int) -> socket.socket:
    """A socket on 127.0.0.1 that waits for a server; port 0 takes a free one.

    Raises:
      ConfigError: the port is taken, or not allowed.
    """
    found = socket.socket()
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((HOST, port))
        found.listen()
    except (OSError, OverflowError) as error:
        found.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"--port={port} cannot be used ({reason}); give another one, or 0 for any") from None
    return found


def serve(session: Session, at: socket.socket) -> None:
    """Answers until it is interrupted, and raises KeyboardInterrupt then."""
    uvicorn.Server(uvicorn.Config(make_app(session), log_level="warning", lifespan="off")).run(sockets=[at])


async def _answered(request: Request, answer: Callable[[bytes], dict[str, Any]]) -> Response:
    try:
        body = await _body(request)
        return JSONResponse(await run_in_threadpool(answer, body))
    except ValueError as error:
        return JSONResponse({"error": " ".join(str(error).split())[:500]}, 400)
    except Exception as error:  # such as too little memory: the page shows it, the terminal tells where
        traceback.print_exc()
        return JSONResponse({"error": f"The server could not answer: {type(error).__name__}: {error}"[:500]}, 500)


async def _body(request: Request) -> bytes:
    """The bytes of a request, refused as soon as they are too many."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > _MAX_BODY:
            raise ValueError(f"at most {_MAX_BODY / 1e6:.0f} MB can be sent")
        parts.append(part)
    return b"".join(parts)


def _object(body: bytes) -> dict[str, Any]:
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("the request is not JSON") from None
    if not isinstance(asked, dict):
        raise ValueError("the request is not a JSON object")
    return asked


def _floats(asked: dict[str, Any], name: str) -> np.ndarray:
    """Numbers as float32; whether they are as many as they must be, the session says."""
    try:
        with np.errstate(over="ignore"):
            return np.asarray(asked.get(name), np.float32)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is not an array of numbers") from None


def _integer(asked: dict[str, Any], name: str) -> int:
    value = asked.get(name)
    if type(value) is not int:
        raise ValueError(f"{name}={value!r} is not an integer")
    return value


def _seed(text: str) -> int:
    if not (text.isdecimal() and len(text) < 12):
        raise ValueError(f"seed={text!r} is not an integer")
    return int(text)


def _cluster(asked: dict[str, Any]) -> int | None:
    return None if asked.get("cluster") is None else _integer(asked, "cluster")


def _listed(values: np.ndarray | None) -> list[Any] | None:
    return None if values is None else values.tolist()


def _base64(image: np.ndarray) -> str:
    """Pixels row by row, C bytes each."""
    return base64.b64encode(image.tobytes()).decode()
