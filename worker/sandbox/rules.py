"""What a child may do. Rules travel from the supervisor to the leash as one JSON argument."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Kind = Literal["ingest", "engine", "ranks"]

_GIB = 2**30
_FILE_BYTES = 256 * _GIB  # ImageNet at 224 pixels has 193
_INGEST_CPU_SECONDS = 4 * 3600
_RANKS_PROCESSES = 10_000


@dataclass(frozen=True)
class Rules:
    """Everything that is not named here is refused.

    ``kind``: ``ingest`` and ``engine`` are one process each, ``ranks`` an engine on several devices. ``read``: files,
    and folders with all that is in them; ``write``: folders. All of them must exist. ``hidden``: folders that are not
    read though the code lies around them. ``limits``: by name, as in ``resource.RLIMIT_*``.
    """

    kind: Kind
    read: tuple[str, ...]
    write: tuple[str, ...]
    hidden: tuple[str, ...] = ()
    limits: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> str:
        """One argument."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Rules:
        """Of ``to_json``."""
        fields: dict[str, Any] = json.loads(text)
        for key in ("read", "write", "hidden"):
            fields[key] = tuple(fields[key])
        return cls(**fields)


def ingest_rules(folder: Path, home: Path, uploads: list[Path], hidden: list[Path], memory: int) -> Rules:
    """For what touches raw uploads.

    Args:
        folder: the attempt's; its ``input`` is what ingest writes.
        home: an own folder for temporary files.
        uploads: files, or folders of datasets.
        memory: bytes that the process may have. Files that it maps do not count: data may be larger than memory.
    """
    return Rules(
        kind="ingest",
        read=_strings([folder / "spec.json", folder / "ingest.json", *uploads]),
        write=_strings([folder / "input", home]),
        hidden=_strings(hidden),
        limits={"core": 0, "cpu": _INGEST_CPU_SECONDS, "data": memory, "fsize": _FILE_BYTES, "nofile": 256},
    )


def engine_rules(folder: Path, home: Path, hidden: list[Path], *, devices: int, from_scratch: bool) -> Rules:
    """For training: it reads what ingest left, never an upload. Memory has no limit, which CUDA would not bear.

    Args:
        from_scratch: it makes the weights itself, and leaves them beside what ingest left.
    """
    limits = {"core": 0, "fsize": _FILE_BYTES, "nofile": 4096}
    written = [folder / "state", folder / "output", folder / "ranks", home]
    return Rules(
        kind="ranks" if devices > 1 else "engine",
        read=_strings([folder / "spec.json", folder / "input"]),
        write=_strings([*written, folder / "input"] if from_scratch else written),
        hidden=_strings(hidden),
        limits={**limits, "nproc": _RANKS_PROCESSES} if devices > 1 else limits,
    )


def _strings(paths: list[Path]) -> tuple[str, ...]:
    return tuple(str(path) for path in paths)
