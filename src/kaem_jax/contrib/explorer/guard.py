"""Keeps a server on this machine from answering pages of other origins."""

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse

__all__ = ["Guard"]

_HOST = re.compile(r"(127\.0\.0\.1|localhost)(:\d+)?", re.IGNORECASE)
_HEADERS = {
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

Message = MutableMapping[str, Any]


class Guard:
    """An ASGI application that passes on only what a page of this very server, or a person, may have asked.

    A page of another site that makes its own name point to 127.0.0.1 (DNS rebinding) sends that name as Host; one that
    asks us directly is another origin, which browsers say. Both get status 403.
    """

    def __init__(self, app: Callable[..., Awaitable[None]]):
        self.app = app

    async def __call__(self, scope: Message, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        if scope["type"] != "http":  # the start and the end of the server; there are no web sockets
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if (refusal := _refusal(headers)) is not None:
            await PlainTextResponse(refusal, 403, _HEADERS)(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                raw = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
                message["headers"] = [*message["headers"], *raw]
            await send(message)

        await self.app(scope, receive, send_with_headers)


def _refusal(headers: Headers) -> str | None:
    """Why a request is not answered; None if it is."""
    host = headers.get("host", "")
    if not _HOST.fullmatch(host):
        return "kaem explore answers only requests to 127.0.0.1 or localhost"
    origin = headers.get("origin")
    if (origin is not None and origin != f"http://{host}") or headers.get("sec-fetch-site", "none") not in (
        "none",
        "same-origin",
    ):
        return "kaem explore answers only its own page; open its address by typing it"
    return None
