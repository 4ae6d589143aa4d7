"""Shows what is written to log files, each line under the name of who wrote it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

_UNSHOWN = {"event", "level", "logger", "timestamp", "exception"}


class Tail:
    """Follows files by name from their beginning; one need not be there yet."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = files
        self._shown = dict.fromkeys(files, 0)
        self._width = max(map(len, files))

    def show(self) -> None:
        """Print the whole lines that came since the last time."""
        for name, path in self._files.items():
            if not path.exists():
                continue
            with path.open("rb") as file:
                file.seek(self._shown[name])
                whole = file.read().rpartition(b"\n")[0]
            if whole:
                self._shown[name] += len(whole) + 1
                for line in whole.decode(errors="replace").splitlines():
                    typer.echo(f"{name:<{self._width}} | {readable(line)}")


def readable(line: str) -> str:
    """A line of JSON as one for a person; any other as it is."""
    try:
        entry: Any = json.loads(line)
    except ValueError:
        return line
    if not isinstance(entry, dict) or "event" not in entry:
        return line
    more = [f"{key}={value}" for key, value in entry.items() if key not in _UNSHOWN]
    if trace := entry.get("exception"):
        more.append(f"{trace[-1].get('exc_type')}: {trace[-1].get('exc_value')}")
    return " ".join([f"{entry.get('level', ''):<7}", str(entry["event"]), *more])
