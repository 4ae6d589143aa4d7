"""What commands share: how they are made, what they print and where, and how they end when something is wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any, ParamSpec

import typer
from rich.console import Console, RenderableType

from temper import exits
from temper.blocking import Client
from temper.display import Display, Live, Plain
from temper.errors import NoConnectionError, RefusedError, TemperError
from temper.exits import Exit
from temper.plain import plain

P = ParamSpec("P")

_HERE = {
    "checkpoint": "name the file: temper submit CHECKPOINT --data FILE",
    "data": "name the file, --data FILE, or what the server has, --dataset NAME",
}
"""What is missing, where the server tells how it is sent over HTTP."""

_UNBROKEN = 1000  # columns: where no terminal says how wide it is, lines are not broken


def command(app: typer.Typer, name: str | None = None) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """A command whose errors are one sentence and a status."""

    def register(function: Callable[P, None]) -> Callable[P, None]:
        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> None:
            try:
                function(*args, **kwargs)
            except typer.BadParameter as error:
                if not kwargs.get("as_json"):
                    raise
                typer.echo(json.dumps({"error": "usage", "detail": error.format_message()}), err=True)
                raise typer.Exit(Exit.USAGE) from error
            except BrokenPipeError:  # who read it has enough
                raise
            except (TemperError, OSError) as error:
                complain(error, as_json=bool(kwargs.get("as_json")))
                raise typer.Exit(exits.of_error(error)) from error
            except KeyboardInterrupt as error:
                say("interrupted; what was submitted goes on, and what was sent is not sent again", err=True)
                raise typer.Exit(Exit.INTERRUPTED) from error

        return app.command(name)(call)

    return register


def offer(*words: str) -> Callable[[str], list[str]]:
    """For completion only: which of them there are is the server's to say."""
    return lambda incomplete: [word for word in words if word.startswith(incomplete)]


@contextmanager
def client_at(url: str, *, as_json: bool) -> Iterator[Client]:
    """Shows how far things are: on the terminal if there is one, else in lines; nothing beside JSON."""
    display = Display()
    if not as_json:
        console = Console(highlight=False)
        display = Live(console) if console.is_terminal else Plain(say, partial(say, err=True))
    with Client(url, progress=display) as client:
        yield client


def complain(error: TemperError | OSError, *, as_json: bool) -> None:
    """In one line for each thing that is wrong, on standard error."""
    if as_json:
        told = error.as_json() if isinstance(error, TemperError) else {"error": "file", "detail": str(error)}
        typer.echo(json.dumps(told), err=True)
        return
    if isinstance(error, RefusedError) and error.errors:
        for row in ({"field": "", "message": "", **each} for each in error.errors):
            here = _HERE.get(row["field"]) if row["message"].startswith("send the file") else None
            say(f"temper: {row['field']}: {here or row['message']}", err=True)
            if row["field"].startswith("model.architecture"):
                say(
                    'temper: or timm/NAME, torchvision/NAME, and for a module of your own "$(temper layers FILE:NAME)"',
                    err=True,
                )
    elif isinstance(error, OSError) and error.filename is not None:
        say(f"temper: {error.filename}: {error.strerror}", err=True)
    else:
        elsewhere = isinstance(error, NoConnectionError) and error.passing
        say(f"temper: {error}{'; another address is told by --url or TEMPER_URL' if elsewhere else ''}", err=True)
    if isinstance(error, RefusedError) and error.status == 401:
        say("temper: the key is taken from the environment: export TEMPER_API_KEY=...", err=True)
    if isinstance(error, RefusedError) and error.status >= 500 and error.request_id:
        say(f"temper: for its operator: {error.request_id}", err=True)


def say(line: object, *, err: bool = False) -> None:
    """A line that steers no terminal."""
    typer.echo(plain(line), err=err)


def show(what: RenderableType) -> None:
    """A table or text, as wide as the terminal is."""
    terminal = Console(highlight=False)
    (terminal if terminal.is_terminal else Console(highlight=False, width=_UNBROKEN)).print(what)


def print_json(value: Any, indent: int | None = 2) -> None:
    """For programs."""
    typer.echo(json.dumps(value, indent=indent))
    sys.stdout.flush()  # who reads it live reads it at once
