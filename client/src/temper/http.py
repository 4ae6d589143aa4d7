"""Requests that are tried again: exponential backoff with jitter, and Retry-After where the server says when."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

import httpx

from temper.errors import NoConnectionError, RefusedError, TemperError
from temper.wire import Wire

TRIES = 8
"""Failures in a row after which it is given up; the pauses between them add up to about a minute."""

_WORTH_TELLING = 2  # failures in a row
_STRANGE_TRIES = 3  # of a service that never answered: more likely there is none
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 20.0
_LONGEST_RETRY_AFTER = 30.0  # whoever has to wait longer than that is told so
_BROKEN = (httpx.NetworkError, httpx.TimeoutException, httpx.RemoteProtocolError, httpx.ProxyError)


def path(*parts: str) -> str:
    """An address from parts that may hold anything."""
    return "/" + "/".join(quote(part, safe="") for part in parts)


class Http:
    """Sends requests over a wire."""

    def __init__(self, wire: Wire, url: str, tell: Callable[[str], None]) -> None:
        """``url``: only to name it in errors. ``tell``: why one waits, where it takes longer than a moment."""
        self.wire, self.tell, self._url = wire, tell, url
        self._met = False

    async def call(self, method: str, path: str, **how: Any) -> httpx.Response:
        """The whole answer to a request that may be sent more than once. Raises: NoConnectionError, RefusedError."""
        patience = self.patience()
        while True:
            try:
                return await self.once(method, path, **how)
            except TemperError as error:
                await patience(error)

    async def head(self, path: str, **how: Any) -> httpx.Response:
        """The head of an answer. Raises: RefusedError in the server's words, which only an answer with a body has."""
        try:
            return await self.call("HEAD", path, **how)
        except RefusedError as error:
            async with self.stream("GET", path, **how):
                raise error

    async def ask(self, method: str, path: str, *fields: str, **how: Any) -> dict[str, Any]:
        """The answer as JSON: an object with these fields at least. Raises: as ``call`` and ``content``."""
        return self.content(await self.call(method, path, **how), *fields)

    def content(self, response: httpx.Response, *fields: str) -> dict[str, Any]:
        """An answer's JSON. Raises: NoConnectionError for what no Temper says, such as the page of a proxy."""
        try:
            content = response.json()
        except ValueError:
            content = None
        if not isinstance(content, dict) or not set(fields) <= set(content):
            raise self.stranger(response)
        return content

    def stranger(self, response: httpx.Response) -> NoConnectionError:
        """The error for an answer that is not Temper's."""
        return NoConnectionError(f"{response.url} answers, but not as Temper does: is that its address?", passing=False)

    async def once(self, method: str, path: str, **how: Any) -> httpx.Response:
        """The whole answer to one try. Raises: NoConnectionError, RefusedError."""
        async with self.stream(method, path, **how) as response:
            await self.wire.read(response)
        return response

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, pieces: Iterable[bytes] | None = None, **how: Any
    ) -> AsyncIterator[httpx.Response]:
        """An answer whose body is still to come. Raises: NoConnectionError, also where it breaks; RefusedError."""
        try:
            response = await self.wire.send(method, path, pieces=pieces, **how)
            self._met = True
            try:
                if not response.is_success:  # a redirection too: the key goes nowhere else
                    await self.wire.read(response)
                    raise RefusedError.of(response, _retry_after(response))
                yield response
            finally:
                await self.wire.close(response)
        except _BROKEN as error:
            raise NoConnectionError(f"no answer from {self._url}: {_words(error)}") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise NoConnectionError(f"cannot ask {self._url}: {_words(error)}", passing=False) from error

    def patience(self) -> Patience:
        """For one thing that may fail several times."""
        return Patience(self)

    @property
    def tries(self) -> int:
        """How often one thing is tried."""
        return TRIES if self._met else _STRANGE_TRIES


class Patience:
    """Counts failures in a row; waits after each, longer and longer."""

    def __init__(self, http: Http) -> None:
        self._http, self._failed = http, 0

    def renew(self) -> None:
        """It got on: the next failure is the first again."""
        self._failed = 0

    async def __call__(self, error: TemperError) -> None:
        """Wait. Raises: ``error`` where trying again is of no use, or was tried often enough."""
        self._failed += 1
        after = error.retry_after or 0.0
        if self._failed == _WORTH_TELLING and error.passing:
            self._http.tell(f"{error}; trying again")
        if not error.passing or self._failed >= self._http.tries or after > _LONGEST_RETRY_AFTER:
            raise error
        await self._http.wire.sleep(pause(self._failed, after, random.random()))  # noqa: S311  spreads requests


def pause(failed: int, retry_after: float, chance: float) -> float:
    """Seconds to wait after so many failures in a row: never less than ``retry_after``; ``chance`` in [0, 1)."""
    backoff = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** (failed - 1))
    if retry_after:
        return retry_after + chance * _FIRST_PAUSE
    return backoff * (1 + chance) / 2


def _retry_after(response: httpx.Response) -> float | None:
    """In seconds; the header has those, or a date."""
    value = response.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
