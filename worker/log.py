"""Lines of the training log on their way to the database."""

from __future__ import annotations

import time

_FLUSH_SECONDS = 1.0
_MOST_BYTES = 4 << 20  # of one attempt


class LogBuffer:
    """Collects lines and gives them back once a second, as one piece; very long logs are cut off."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._bytes = 0
        self._taken = time.monotonic()

    def add(self, line: str) -> None:
        """One line, without its end."""
        if self._bytes > _MOST_BYTES:
            return
        line = line.replace("\0", "\ufffd")  # which Postgres stores nowhere
        self._bytes += len(line) + 1
        self._lines.append(line if self._bytes <= _MOST_BYTES else "... the rest of this attempt's log is left out")

    def take(self, *, now: bool) -> str:
        """What came since the last time; empty if that was less than a second ago, unless ``now``."""
        if not self._lines or (not now and time.monotonic() - self._taken < _FLUSH_SECONDS):
            return ""
        text = "\n".join(self._lines) + "\n"
        self._lines, self._taken = [], time.monotonic()
        return text
