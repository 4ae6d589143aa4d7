"""Where a search stands: all that was measured and decided, so that a resumed job goes on with it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from core.cost import Cost

FILE = "search.json"


@dataclass(frozen=True)
class Tried:
    """A finished training. ``clean`` and ``robust`` count held-out images; None if it ``failed``, and why.

    ``fb``: passes of the training alone; ``seconds`` of the budget: with the choice of its epoch and the measuring.
    """

    candidate: str
    rung: int
    images: int
    epochs: int
    clean: int | None
    robust: int | None
    seconds: float
    fb: int
    failed: str | None = None


@dataclass
class SearchState:
    """``seconds``: of the budget, spent so far; ``begun``: so many were when the training ``current`` began.

    ``steps``: batches of all finished trainings; ``rungs``: so many are done and told of. ``cut`` says where the
    budget ended the search; ``epochs``: what the winner's training got; ``cost``: the passes of all but that.
    """

    scale: float | None = None
    seconds: float = 0.0
    begun: float = 0.0
    current: str | None = None
    steps: int = 0
    rungs: int = 0
    tried: list[Tried] = field(default_factory=list)
    cut: str | None = None
    epochs: int | None = None
    final: Tried | None = None
    cost: dict[str, int] = field(default_factory=lambda: asdict(Cost()))

    def find(self, rung: int, candidate: str) -> Tried | None:
        """What this candidate came to in this rung, if it has been tried there."""
        return next((t for t in self.tried if (t.rung, t.candidate) == (rung, candidate)), None)

    def latest(self, candidate: str) -> Tried | None:
        """What the candidate came to in the last rung where it was tried."""
        return next((t for t in reversed(self.tried) if t.candidate == candidate), None)

    def book(self, cost: Cost) -> None:
        """Add passes to those of the search."""
        for key, value in asdict(cost).items():
            self.cost[key] += value

    def save(self, folder: Path, digest: str) -> None:
        """Write to a temporary name and rename; ``digest`` says which job's search this is."""
        folder.mkdir(exist_ok=True)
        temporary = folder / "search.tmp"
        temporary.write_text(json.dumps({"spec": digest, **asdict(self)}))
        temporary.replace(folder / FILE)

    @classmethod
    def restore(cls, folder: Path, digest: str) -> SearchState:
        """The saved search, or a fresh one if there is none.

        Raises: ValueError if it was saved under another spec.
        """
        if not (folder / FILE).exists():
            return cls()
        saved: dict[str, Any] = json.loads((folder / FILE).read_text())
        if saved.pop("spec") != digest:
            raise ValueError("the saved search belongs to another spec")
        tried = [Tried(**each) for each in saved.pop("tried")]
        final = saved.pop("final")
        return cls(**saved, tried=tried, final=Tried(**final) if final else None)
