"""One file of a corpus: how it is made, and what ingest must say to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Kind = Literal["checkpoint", "data"]

# What a payload that ran would leave behind: a file of this name in the working directory. Relative, so that the
# corpus has the same bytes everywhere; whoever opens it stands in an empty folder and looks for it afterwards.
CANARY = "canary-was-here"


Write = Callable[[Path], None]


def having(content: bytes | Callable[[], bytes]) -> Write:
    """Writes these bytes, or what is made when they are wanted."""

    def write(path: Path) -> None:
        path.write_bytes(content() if callable(content) else content)

    return write


@dataclass(frozen=True)
class Hostile:
    """A file that must be refused, with exactly ``code``.

    Args:
        name: unique in the corpus, words with dashes.
        filename: what the user calls it.
        write: writes the file to the path it is given.
        code: the stable code of the refusal.
        kind: which of a job's two uploads it is.
        options: the job's ``data`` options that differ from the defaults (``format``, ``resize``, ...).
    """

    name: str
    filename: str
    write: Write
    code: str
    kind: Kind
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Honest:
    """A file that real users have: accepted, or refused with the line that mends it.

    Args:
        name, filename, write, kind, options: as in Hostile.
        code: None if it is accepted, otherwise the code of the refusal.
        hint: words that the refusal's hint must contain.
    """

    name: str
    filename: str
    write: Write
    kind: Kind
    code: str | None = None
    hint: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
