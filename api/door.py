"""Who asks, and may they ask so often, and send so much? Every request passes here before an endpoint sees it."""

from __future__ import annotations

from collections import Counter

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.browsers import check_open
from api.caller import Caller
from api.credentials import Credentials
from api.errors import problem_of
from api.rates import Buckets
from api.refusals import RateLimitedError, TooManyAtOnceError
from jobs.errors import UploadTooLargeError
from jobs.limits import Limits
from jobs.scopes import SCOPES
from jobs.tables import DEFAULT_TENANT

PUBLIC = frozenset(
    {
        "/healthz",
        "/readyz",
        "/login",
        "/logout",
        "/openapi.json",
        "/docs",
        "/docs/{name}",
        "/signing-keys",
        "/static/{name:path}",
    }
)
"""Routes without a scope."""

# whoever asks: the answer is the same, also while the database is away
_NOBODY = frozenset({"/healthz", "/readyz", "/login"})
_STRANGERS_BYTES = 1 << 16
_MOST_OPEN = 200  # requests of one tenant at one time, in one process: each stream asks the database again and again


class Door:
    """Middleware. ``credentials`` is None for an open service, where everybody is the default tenant."""

    def __init__(self, app: ASGIApp, credentials: Credentials | None, limits: Limits) -> None:
        self._app, self._credentials, self._limits, self._rates = app, credentials, limits, Buckets()
        self._open: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, with "temper.caller" in the scope: a Caller, or None for a stranger."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._credentials is None:
            check_open(scope)
            caller = Caller(DEFAULT_TENANT, None, SCOPES, self._limits)
            await self._pass(caller, scope, receive, send)
            return
        known = None if scope["path"] in _NOBODY else await self._credentials.identify(HTTPConnection(scope))
        if known is None:
            await self._pass(None, scope, receive, send)
            return
        limits = self._limits.of(known.limits)
        taken = self._rates.take(known.tenant_id, limits.requests_per_minute or 1)

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(taken.headers)
            await send(message)

        if taken.wait:
            await problem_of(RateLimitedError(taken.wait))(scope, receive, counted)
            return
        if self._open[known.tenant_id] >= _MOST_OPEN:
            error = TooManyAtOnceError(f"{_MOST_OPEN} requests of this tenant are not answered to their ends yet")
            await problem_of(error)(scope, receive, counted)
            return
        self._credentials.note(known)
        caller = Caller(known.tenant_id, known.key_id, known.scopes, limits, known.session)
        self._open[known.tenant_id] += 1
        try:
            await self._pass(caller, scope, receive, counted)
        finally:
            self._open[known.tenant_id] -= 1
            self._open += Counter()  # forgets those at zero

    async def _pass(self, caller: Caller | None, scope: Scope, receive: Receive, send: Send) -> None:
        scope["temper.caller"] = caller
        most = caller.limits.max_upload_bytes if caller else _STRANGERS_BYTES
        await self._app(scope, receive if most is None else _bounded(scope, receive, most), send)


def _bounded(scope: Scope, receive: Receive, most: int) -> Receive:
    """The same body, with an end. Raises: UploadTooLargeError, at once where the request says how long it is."""
    length = Headers(scope=scope).get("content-length", "")
    if length.isdecimal() and int(length) > most:
        raise UploadTooLargeError(most)
    received = 0

    async def bounded() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > most:
            raise UploadTooLargeError(most)
        return message

    return bounded
