"""Work shared among the cores that are there: results in the order of the jobs, bytes in and bytes out.

Processes, since decoding small images is mostly Python. In a sandbox, where nobody may fork, they are those that the
leash started beside this one; they need nothing but two pipes, and end when this process does. Large blocks of arrays
need no more than a thread.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TypeVar, cast

Work = Callable[[bytes], bytes]
T = TypeVar("T")
# descriptors of processes that wait to help (ingest.helper): where jobs go and results come from, "5,6;7,8"
SPARES = "TEMPER_INGEST_SPARES"
_ALONE = 0.2  # seconds of work before it is worth starting anything
_AHEAD = 3  # jobs that wait for each process; their results, of kilobytes, must fit into a pipe
_MOST = 8


class WorkerDiedError(Exception):
    """A process that helped was killed: by the kernel for want of memory, most likely."""


def ordered(work: Work, jobs: Iterable[bytes], cores: int | None = None) -> Iterator[bytes]:
    """``work`` of each job, in order. ``cores`` None: as many as this process may use."""
    cores = cores or min(_MOST, len(os.sched_getaffinity(0)))
    todo, begun = iter(jobs), time.monotonic()
    for job in todo:
        yield work(job)
        if cores > 1 and time.monotonic() > begun + _ALONE:
            break
    else:
        return
    helpers: list[_Helper] = []
    try:
        _gather(helpers, work, cores)
        yield from _shared(helpers, todo) if helpers else map(work, todo)
    finally:
        for helper in helpers:
            helper.end()


def _gather(helpers: list[_Helper], work: Work, count: int) -> None:
    """Those that were started for this process, once; else forked ones, where a sandbox allows any."""
    for ends in filter(None, os.environ.pop(SPARES, "").split(";")):
        ask, answer = map(int, ends.split(","))
        helpers.append(_Helper(Connection(ask, readable=False), Connection(answer, writable=False)))
        helpers[-1].teach(work)
    with contextlib.suppress(PermissionError):
        while len(helpers) < count:
            helpers.append(_forked(work, helpers))


def _shared(helpers: list[_Helper], jobs: Iterator[bytes]) -> Iterator[bytes]:
    waiting: deque[_Helper] = deque()
    for helper, job in zip(cycle(helpers), jobs, strict=False):
        if len(waiting) >= _AHEAD * len(helpers):
            yield waiting.popleft().result()
        helper.ask(job)
        waiting.append(helper)
    while waiting:
        yield waiting.popleft().result()


def ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items; the next one is being made, in a thread, while this one is used."""
    end = object()
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield cast(T, item)


class _Helper:
    """A process at the other end of two pipes."""

    def __init__(self, ask: Connection, answer: Connection, process: BaseProcess | None = None) -> None:
        self._ask, self._answer, self._process = ask, answer, process

    @property
    def ends(self) -> tuple[Connection, Connection]:
        """Of the pipes, on this side."""
        return self._ask, self._answer

    def teach(self, work: Work) -> None:
        self._tell(lambda: self._ask.send(work))

    def ask(self, job: bytes) -> None:
        self._tell(lambda: self._ask.send_bytes(job))

    def _tell(self, send: Callable[[], None]) -> None:
        try:
            send()
        except BrokenPipeError as error:
            raise WorkerDiedError from error

    def result(self) -> bytes:
        try:
            return self._answer.recv_bytes()
        except EOFError as error:
            raise WorkerDiedError from error

    def end(self) -> None:
        """Returns when it has ended, and let go of all files."""
        self._ask.close()
        with contextlib.suppress(EOFError):
            while True:
                self._answer.recv_bytes()
        self._answer.close()
        if self._process:
            self._process.join()


def _forked(work: Work, others: list[_Helper]) -> _Helper:
    context = get_context("fork")
    jobs, ask = context.Pipe(duplex=False)
    answer, results = context.Pipe(duplex=False)
    ours = [ask, answer, *(end for helper in others for end in helper.ends)]
    process = context.Process(target=_begin, args=(work, jobs, results, ours), daemon=True)
    process.start()
    jobs.close()
    results.close()
    return _Helper(ask, answer, process)


def _begin(work: Work, jobs: Connection, results: Connection, others: list[Connection]) -> None:
    for end in others:  # or no pipe would ever be seen to close
        end.close()
    serve(work, jobs, results)


def serve(work: Work, jobs: Connection, results: Connection) -> None:
    """Do jobs until there are no more."""
    try:
        while True:
            results.send_bytes(work(jobs.recv_bytes()))
    except (EOFError, BrokenPipeError):
        return
