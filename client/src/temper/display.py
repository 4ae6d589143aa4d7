"""Progress for people: bars and a live line in a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from temper.course import Course
from temper.events import Event
from temper.files import Report
from temper.plain import plain

_ROOMY = 120
"""Columns of a terminal in which the numbers of a job leave room for more."""

Begin = Callable[[int], Report]
Show = Callable[[Event], None]


class Display:
    """Shows how far things are. This one shows nothing."""

    @contextmanager
    def bar(self, title: str) -> Iterator[Begin]:
        """For bytes: ``begin(total)`` gives what is told how many are done."""
        yield lambda _total: lambda _done: None

    @contextmanager
    def watch(self, job_id: str) -> Iterator[Show]:
        """For a job: told every event."""
        yield lambda _event: None

    def tell(self, sentence: str) -> None:
        """Why nothing goes on for a while."""


class Plain(Display):
    """A line for each thing that happened, and for each tenth of the way."""

    def __init__(self, print_line: Callable[[str], None], print_aside: Callable[[str], None]) -> None:
        """``print_aside``: for what is none of the results."""
        self._print, self._print_aside = print_line, print_aside

    @contextmanager
    def watch(self, job_id: str) -> Iterator[Show]:
        """As Display has it."""
        course, tenths = Course(), 0

        def show(event: Event) -> None:
            nonlocal tenths
            line = course.see(event)
            if line is None and int(10 * course.fraction) > tenths:
                line = f"{course.phase} {course.fraction:.0%}  {course.numbers}"
            tenths = max(tenths, int(10 * course.fraction))
            if line is not None:
                self._print(f"{job_id}: {line}")

        yield show

    def tell(self, sentence: str) -> None:
        """As Display has it."""
        self._print_aside(sentence)


class Live(Display):
    """Bars, and above them a line for each thing that happened."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def bar(self, title: str) -> Iterator[Begin]:
        """As Display has it."""
        with self._progress(
            BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn(), TimeRemainingColumn()
        ) as progress:

            def begin(total: int) -> Report:
                task = progress.add_task(escape(title), total=total)
                return lambda done: progress.update(task, completed=done)

            yield begin

    @contextmanager
    def watch(self, job_id: str) -> Iterator[Show]:
        """As Display has it."""
        course = Course()
        share, numbers = TextColumn("{task.percentage:3.0f}%"), TextColumn("{task.fields[numbers]}", markup=False)
        roomy = [BarColumn(20), share, TimeElapsedColumn(), numbers]
        with self._progress(*(roomy if self._console.width >= _ROOMY else [share, numbers])) as bars:
            task = bars.add_task(job_id, total=1.0, numbers="")

            def show(event: Event) -> None:
                line = course.see(event)
                if line is not None:
                    bars.console.print(line, markup=False, highlight=False)
                done = 1.0 if course.state == "succeeded" else course.fraction
                shown = course.phase if course.state == "running" and course.phase else course.state
                bars.update(task, completed=done, description=shown, numbers=course.numbers)

            yield show

    def tell(self, sentence: str) -> None:
        """As Display has it."""
        self._console.print(plain(sentence), markup=False, highlight=False)

    def _progress(self, *columns: ProgressColumn) -> Progress:
        return Progress(TextColumn("{task.description}"), *columns, console=self._console, transient=True)


def silent_or_live(wanted: bool | None) -> Display:
    """What ``Client(progress=...)`` asks for."""
    live = sys.stderr.isatty() if wanted is None else wanted
    return Live(Console(stderr=True)) if live else Display()
