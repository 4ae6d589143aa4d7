"""The same for those who wait: each method runs its namesake of ``temper.core`` over a blocking wire."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from temper.core import AsyncClient, AsyncJob
from temper.display import Display
from temper.wire import BlockingWire, iterate, run

C = TypeVar("C")
T = TypeVar("T")
P = ParamSpec("P")


class _Blocking(Generic[C]):
    _core: C


def _result(method: Callable[Concatenate[C, P], Coroutine[Any, Any, T]]) -> Callable[Concatenate[_Blocking[C], P], T]:
    @wraps(method)
    def call(self: _Blocking[C], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return run(method(self._core, *args, **kwargs))

    return call


def _items(
    method: Callable[Concatenate[C, P], AsyncIterator[T]],
) -> Callable[Concatenate[_Blocking[C], P], Iterator[T]]:
    @wraps(method)
    def call(self: _Blocking[C], /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return iterate(method(self._core, *args, **kwargs))

    return call


def _job(
    method: Callable[Concatenate[C, P], Coroutine[Any, Any, AsyncJob]],
) -> Callable[Concatenate[_Blocking[C], P], Job]:
    @wraps(method)
    def call(self: _Blocking[C], /, *args: P.args, **kwargs: P.kwargs) -> Job:
        return Job(run(method(self._core, *args, **kwargs)))

    return call


def _jobs(
    method: Callable[Concatenate[C, P], AsyncIterator[AsyncJob]],
) -> Callable[Concatenate[_Blocking[C], P], Iterator[Job]]:
    @wraps(method)
    def call(self: _Blocking[C], /, *args: P.args, **kwargs: P.kwargs) -> Iterator[Job]:
        return map(Job, iterate(method(self._core, *args, **kwargs)))

    return call


class Client(_Blocking[AsyncClient]):
    """A Temper service. Use it as a context manager, or close it.

    ``url``: TEMPER_URL if left out, or http://localhost:8000; ``api_key``: TEMPER_API_KEY. ``progress``: bars and live
    lines on standard error; where None, if that is a terminal.

    All methods raise: NoConnectionError, once trying again did not help; RefusedError with the server's sentences.
    """

    def __init__(
        self, url: str | None = None, api_key: str | None = None, *, progress: bool | Display | None = None
    ) -> None:
        self._core = AsyncClient(url, api_key, progress=progress, wire=BlockingWire)

    submit = _job(AsyncClient.submit)
    job = _job(AsyncClient.job)
    jobs = _jobs(AsyncClient.jobs)
    upload = _result(AsyncClient.upload)
    catalog = _result(AsyncClient.catalog)
    signing_keys = _result(AsyncClient.signing_keys)
    close = _result(AsyncClient.close)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Job(_Blocking[AsyncJob]):
    """A job. ``info`` is what the server last said of it."""

    def __init__(self, core: AsyncJob) -> None:
        self._core = core

    @property
    def info(self) -> dict[str, Any]:
        """As GET /jobs/ID has it."""
        return self._core.info

    @property
    def id(self) -> str:
        """As in addresses."""
        return self._core.id

    @property
    def state(self) -> str:
        """As of the last answer: queued, running, paused, succeeded, failed or cancelled."""
        return self._core.state

    @property
    def failure(self) -> dict[str, Any] | None:
        """Why it failed: code, blame, detail, hint."""
        return self._core.failure

    refresh = _result(AsyncJob.refresh)
    events = _items(AsyncJob.events)
    wait = _result(AsyncJob.wait)
    report = _result(AsyncJob.report)
    artifacts = _result(AsyncJob.artifacts)
    download = _result(AsyncJob.download)
    log_lines = _items(AsyncJob.log_lines)
    cancel = _result(AsyncJob.cancel)
    pause = _result(AsyncJob.pause)
    resume = _result(AsyncJob.resume)
    delete = _result(AsyncJob.delete)
