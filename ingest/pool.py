"""Work shared among the cores that are there: results in the order of the jobs, bytes in and bytes out.

Processes, since decoding small images is mostly Python; forked, so that they need nothing but two pipes. They end when
this process does. Large blocks of arrays need no more than a thread.
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
        # a sandbox may allow no processes: then all is done here
        with contextlib.suppress(PermissionError):
            for _ in range(cores):
                helpers.append(_Helper(work, helpers))
        yield from _shared(helpers, todo) if helpers else map(work, todo)
    finally:
        for helper in helpers:
            helper.end()


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
    def __init__(self, work: Work, others: list[_Helper]) -> None:
        context = get_context("fork")
        theirs_in, self._ask = context.Pipe(duplex=False)
        self._answer, theirs_out = context.Pipe(duplex=False)
        ours = [end for helper in (*others, self) for end in (helper._ask, helper._answer)]
        self._process: BaseProcess = context.Process(
            target=_serve, args=(work, theirs_in, theirs_out, ours), daemon=True
        )
        self._process.start()
        theirs_in.close()
        theirs_out.close()

    def ask(self, job: bytes) -> None:
        try:
            self._ask.send_bytes(job)
        except BrokenPipeError as error:
            raise WorkerDiedError from error

    def result(self) -> bytes:
        try:
            return self._answer.recv_bytes()
        except EOFError as error:
            raise WorkerDiedError from error

    def end(self) -> None:
        self._ask.close()
        self._answer.close()
        self._process.join()


def _serve(work: Work, jobs: Connection, results: Connection, others: list[Connection]) -> None:
    for end in others:  # or no pipe would ever be seen to close
        end.close()
    try:
        while True:
            results.send_bytes(work(jobs.recv_bytes()))
    except (EOFError, BrokenPipeError):
        return
