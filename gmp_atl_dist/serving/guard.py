"""Around every answer: the token, the host name, headers against misuse of the pages, and counting."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gmp_atl_dist.serving.counters import Counters
from gmp_atl_dist.serving.refusals import Refusal, internal_error

PATHS = frozenset(
    {"/", "/docs", "/healthz", "/metrics", "/openapi.json", "/v1/model", "/v1/predict"}
)
OPEN_PATHS = frozenset({"/", "/docs", "/healthz", "/openapi.json"})
"""Without a token. They hold nothing of the model; the page asks for the token."""
STATIC = "/static/"

_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        b"connect-src 'self'; media-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"permissions-policy", b"microphone=(self), camera=(), geolocation=()"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
)

_log = logging.getLogger(__name__)


def digest_of(token: str) -> str:
    """sha256 of a token. The server keeps this alone, so the token cannot be read from its memory."""
    return hashlib.sha256(token.encode()).hexdigest()


def is_loopback(host: str) -> bool:
    """The name or address means this machine alone."""
    host = host.strip("[]").lower()
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """ASGI middleware.

    Args:
        app: what answers.
        token_sha256: :func:`digest_of` the token; None: no token is needed, and then only requests
            to a loopback name are answered, so that no web page can reach the server by a name of its own.
        counters: counts answers.
    """

    def __init__(self, app: ASGIApp, token_sha256: str | None, counters: Counters) -> None:
        self._app = app
        self._token_sha256 = token_sha256
        self._counters = counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = str(scope["path"])
        # Whatever else clients ask for must not become names in the metrics.
        counted = path if path in PATHS else "static" if path.startswith(STATIC) else "other"

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._counters.request(counted, int(message["status"]))
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        refusal = self._refusal(scope, path)
        if refusal is None:
            try:
                await self._app(scope, receive, guarded)
                return
            except Exception:
                _log.exception("a request to %s failed", counted)
                refusal = internal_error()
        self._counters.refused(refusal.code)
        answer = JSONResponse(refusal.body(), refusal.status, dict(refusal.headers))
        await answer(scope, receive, guarded)

    def _refusal(self, scope: Scope, path: str) -> Refusal | None:
        headers = {bytes(name).lower(): bytes(value) for name, value in scope["headers"]}
        if self._token_sha256 is None:
            host = headers.get(b"host", b"").decode("latin-1")
            name = host if host.endswith("]") else host.rpartition(":")[0] or host
            if not is_loopback(name):
                return Refusal(
                    400,
                    "wrong_host",
                    "this server has no token, so it answers to localhost and 127.0.0.1 only",
                )
            return None
        if path in OPEN_PATHS or path.startswith(STATIC):
            return None
        kind, _, given = headers.get(b"authorization", b"").partition(b" ")
        found = hashlib.sha256(given.strip()).hexdigest()
        if kind.lower() == b"bearer" and hmac.compare_digest(found, self._token_sha256):
            return None
        return Refusal(
            401,
            "no_token",
            "this server needs its token; send the header 'Authorization: Bearer TOKEN'",
        )
