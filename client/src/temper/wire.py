"""How requests go out: one interface, over httpx's blocking client or its asynchronous one.

All that this library does is written once, as coroutines over a Wire. Those of BlockingWire never wait for an event
loop: they block, and so each coroutine over it runs to its end in one step (``run``), without any loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from typing import Any, ParamSpec, Protocol, TypeVar

import httpx

T = TypeVar("T")
P = ParamSpec("P")


class Wire(Protocol):
    """Requests, time, and work on files. Raises: httpx's errors."""

    async def send(self, method: str, path: str, *, pieces: Iterable[bytes] | None, **how: Any) -> httpx.Response:
        """The answer's head; ``pieces``: the body. ``how``: as httpx's build_request takes it."""

    async def read(self, response: httpx.Response) -> None:
        """The rest of an answer."""

    def chunks(self, response: httpx.Response) -> AsyncIterator[bytes]:
        """The rest of an answer, piece by piece."""

    def lines(self, response: httpx.Response) -> AsyncIterator[str]:
        """The rest of an answer, line by line."""

    async def close(self, response: httpx.Response) -> None:
        """Nothing more of this answer."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""

    async def apart(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Work on files, in the way of nobody."""

    async def end(self) -> None:
        """Close all connections."""


class BlockingWire:
    """For one that waits."""

    def __init__(self, **settings: Any) -> None:
        """``settings``: httpx.Client's."""
        self._client = httpx.Client(**settings)

    async def send(self, method: str, path: str, *, pieces: Iterable[bytes] | None, **how: Any) -> httpx.Response:
        """Blocks."""
        if pieces is not None:
            how["content"] = iter(pieces)
        return self._client.send(self._client.build_request(method, path, **how), stream=True)

    async def read(self, response: httpx.Response) -> None:
        """Blocks."""
        response.read()

    async def chunks(self, response: httpx.Response) -> AsyncIterator[bytes]:
        """Blocks at each."""
        for chunk in response.iter_bytes():
            yield chunk

    async def lines(self, response: httpx.Response) -> AsyncIterator[str]:
        """Blocks at each."""
        for line in response.iter_lines():
            yield line

    async def close(self, response: httpx.Response) -> None:
        """At once."""
        response.close()

    async def sleep(self, seconds: float) -> None:
        """Blocks."""
        time.sleep(seconds)

    async def apart(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Here and now."""
        return work(*args, **kwargs)

    async def end(self) -> None:
        """At once."""
        self._client.close()


class AsyncWire:
    """For many at a time, in asyncio."""

    def __init__(self, **settings: Any) -> None:
        """``settings``: httpx.AsyncClient's."""
        self._client = httpx.AsyncClient(**settings)

    async def send(self, method: str, path: str, *, pieces: Iterable[bytes] | None, **how: Any) -> httpx.Response:
        """As Wire has it."""

        async def content(some: Iterable[bytes]) -> AsyncIterator[bytes]:
            for piece in some:
                yield piece

        if pieces is not None:
            how["content"] = content(pieces)
        return await self._client.send(self._client.build_request(method, path, **how), stream=True)

    async def read(self, response: httpx.Response) -> None:
        """As Wire has it."""
        await response.aread()

    def chunks(self, response: httpx.Response) -> AsyncIterator[bytes]:
        """As Wire has it."""
        return response.aiter_bytes()

    def lines(self, response: httpx.Response) -> AsyncIterator[str]:
        """As Wire has it."""
        return response.aiter_lines()

    async def close(self, response: httpx.Response) -> None:
        """As Wire has it."""
        await response.aclose()

    async def sleep(self, seconds: float) -> None:
        """As Wire has it."""
        await asyncio.sleep(seconds)

    async def apart(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """In a thread."""
        return await asyncio.to_thread(work, *args, **kwargs)

    async def end(self) -> None:
        """As Wire has it."""
        await self._client.aclose()


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine over a BlockingWire."""
    try:
        work.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    work.close()
    raise RuntimeError("a coroutine over a blocking wire waited for an event loop")


def iterate(items: AsyncIterator[T]) -> Iterator[T]:
    """The items of an asynchronous generator over a BlockingWire."""

    async def following() -> T:
        return await anext(items)

    try:
        while True:
            try:
                item = run(following())
            except StopAsyncIteration:
                return
            yield item
    finally:
        close = getattr(items, "aclose", None)
        if close is not None:
            run(close())
