"""Keys and sessions as they come with a request; wrong keys are counted by the address that they come from."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import time
from collections import OrderedDict

from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection

from api.browsers import SAFE_METHODS, check_origin
from api.rates import Buckets
from api.refusals import InvalidKeyError, RateLimitedError, TooManyFailuresError
from jobs.database import AWAY
from jobs.keys import KEY, KeyRepository, Known

_NOTE_SECONDS = 60.0
_KEPT = 10_000
_LOGINS_PER_MINUTE = 30  # of one key, each of which leaves a row


class Credentials:
    """Looks at them."""

    def __init__(self, keys: KeyRepository, wrong_per_minute: int) -> None:
        self._keys, self._failures, self._wrong_per_minute = keys, Buckets(), wrong_per_minute
        self._logins = Buckets()
        self._good: OrderedDict[tuple[str, str], None] = OrderedDict()  # addresses, and keys that were valid there
        self._noted: dict[str, float] = {}
        self._noting: set[asyncio.Task[None]] = set()

    async def identify(self, request: HTTPConnection) -> Known | None:
        """Whose request it is; None if it has neither a key nor a session that goes on.

        Raises: InvalidKeyError, TooManyFailuresError; CrossSiteError for a change that another site's page asks for
            by the browser's session.
        """
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        if kind:
            return await self.check(request, token.strip() if kind.lower() == "bearer" else "")
        session = request.cookies.get(cookie_name(request))
        if not session:
            return None
        if request.scope["method"] not in SAFE_METHODS:
            check_origin(request.scope, certain=True)
        # one that is over is no attack: the browser sends it until somebody logs in again
        return await run_in_threadpool(self._keys.find_session, session)

    async def check(self, request: HTTPConnection, token: str) -> Known:
        """Whose key it is. Once an address sent many wrong ones, only those that were valid there before are looked at.

        Raises: InvalidKeyError, TooManyFailuresError.
        """
        address = _network(request.client.host if request.client else "")
        wait = self._failures.wait(address, self._wrong_per_minute)
        if wait and (address, token) not in self._good:
            raise TooManyFailuresError(wait)
        known = await run_in_threadpool(self._keys.find, token) if KEY.fullmatch(token) else None
        if known is None:
            self._good.pop((address, token), None)
            self._failures.take(address, self._wrong_per_minute)
            raise InvalidKeyError
        self._good[address, token] = None
        self._good.move_to_end((address, token))
        if len(self._good) > _KEPT:
            self._good.popitem(last=False)
        return known

    async def check_login(self, request: HTTPConnection, token: str) -> Known:
        """As ``check``, for a new session. Raises: RateLimitedError where the key began too many."""
        known = await self.check(request, token)
        taken = self._logins.take(known.key_id, _LOGINS_PER_MINUTE)
        if taken.wait:
            raise RateLimitedError(taken.wait)
        return known

    def note(self, known: Known) -> None:
        """The key is used: written down now and then, and no answer waits for it."""
        if time.monotonic() - self._noted.get(known.key_id, -_NOTE_SECONDS) >= _NOTE_SECONDS:
            self._noted[known.key_id] = time.monotonic()
            task = asyncio.create_task(self._write(known.key_id))
            self._noting.add(task)
            task.add_done_callback(self._noting.discard)

    async def _write(self, key_id: str) -> None:
        with contextlib.suppress(*AWAY):
            await run_in_threadpool(self._keys.used, key_id)


def cookie_name(request: HTTPConnection) -> str:
    """Behind TLS one that no other host and no plain connection can set."""
    return "__Host-temper" if request.scope["scheme"] == "https" else "temper"


def _network(address: str) -> str:
    """A host, or with IPv6 the network that one host has to itself."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    # a proxy that listens on both writes ::ffff:192.0.2.1, and all of IPv4 would be one network
    return str(parsed.ipv4_mapped or ipaddress.ip_network(f"{parsed}/64", strict=False))
