"""What an evaluation has found out so far, image by image, in a form that survives a kill."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core.cost import Cost

Mask = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


@dataclass
class Tally:
    """One attack, image by image; all arrays are (n,).

    ``distance``: norm of the verified adversarial example, NaN without one. ``prediction``: the label that the model
    gives it, -1 without one. ``queries``: how often the model was asked.
    """

    attacked: Mask
    fooled: Mask
    queries: Integers
    distance: Floats
    prediction: Integers

    @classmethod
    def of(cls, attacked: Mask) -> Tally:
        """An attack that is to be tried on these images."""
        n = len(attacked)
        return cls(
            attacked.copy(),
            np.zeros(n, bool),
            np.zeros(n, np.int64),
            np.full(n, np.nan, np.float32),
            np.full(n, -1, np.int64),
        )

    @property
    def standing(self) -> Mask:
        """Attacked, and not fooled so far."""
        return self.attacked & ~self.fooled

    def to_json(self) -> dict[str, list[Any]]:
        """Plain lists; NaN as null."""
        lists = {part.name: getattr(self, part.name).tolist() for part in fields(self)}
        lists["distance"] = [None if np.isnan(value) else value for value in lists["distance"]]
        return lists

    @classmethod
    def from_json(cls, data: dict[str, list[Any]]) -> Tally:
        """The inverse of ``to_json``."""
        return cls(
            np.array(data["attacked"], bool),
            np.array(data["fooled"], bool),
            np.array(data["queries"], np.int64),
            np.array(data["distance"], np.float32),
            np.array(data["prediction"], np.int64),
        )


@dataclass
class Place:
    """Where within an attack the evaluation stands: wave of images, run, and which images that run is done with.

    ``last`` are the results that the next run goes on from, (n, c, h, w) with the rows of this wave filled.
    """

    wave: int
    run: int
    done: Mask
    last: dict[int, Floats] = field(default_factory=dict)


@dataclass
class Ledger:
    """A whole evaluation in progress."""

    predictions: Integers | None = None  # clean; None: not yet made
    randomised: bool = False
    tallies: list[Tally] = field(default_factory=list)
    place: Place | None = None  # within the last tally's attack; None: it is finished
    cost: Cost = field(default_factory=Cost)
    seconds: float = 0.0
    steps: int = 0  # batches attacked and further results made: how far the evaluation has got
    extras: dict[str, Any] = field(default_factory=dict)  # curve, diagnosis, corruptions, as JSON

    def save(self, path: Path, digest: str) -> None:
        """Write to a temporary name and rename; ``digest`` says which evaluation this is."""
        arrays: dict[str, npt.NDArray[Any]] = {}
        if self.predictions is not None:
            arrays["predictions"] = self.predictions
        for number, tally in enumerate(self.tallies):
            arrays |= {f"tally-{number}-{part.name}": getattr(tally, part.name) for part in fields(tally)}
        if self.place is not None:
            arrays["done"] = self.place.done
            if self.place.last:
                arrays["last-rows"] = np.array(list(self.place.last), np.int64)
                arrays["last"] = np.stack(list(self.place.last.values()))
        header = {
            "digest": digest,
            "tallies": len(self.tallies),
            "place": [self.place.wave, self.place.run] if self.place else None,
            "randomised": self.randomised,
            "cost": asdict(self.cost),
            "seconds": self.seconds,
            "steps": self.steps,
            "extras": self.extras,
        }
        temporary = path.with_suffix(".tmp")
        path.parent.mkdir(exist_ok=True)
        with temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, header=np.array(json.dumps(header)), **arrays)
        temporary.replace(path)

    @classmethod
    def restore(cls, path: Path, digest: str) -> Ledger:
        """The saved evaluation, or a fresh one if there is none.

        Raises: ValueError if what was saved is another evaluation.
        """
        if not path.exists():
            return cls()
        with np.load(path, allow_pickle=False) as saved:
            header = json.loads(str(saved["header"]))
            if header["digest"] != digest:
                raise ValueError("the saved evaluation belongs to another spec")
            tallies = [
                Tally(*(saved[f"tally-{number}-{part.name}"] for part in fields(Tally)))
                for number in range(header["tallies"])
            ]
            place = None
            if header["place"] is not None:
                rows = saved["last-rows"].tolist() if "last-rows" in saved else []
                last = dict(zip(rows, saved["last"], strict=True)) if rows else {}
                wave, run = header["place"]
                place = Place(wave, run, saved["done"], last)
            predictions = saved.get("predictions")
        return cls(
            predictions,
            header["randomised"],
            tallies,
            place,
            Cost(**header["cost"]),
            header["seconds"],
            header["steps"],
            header["extras"],
        )
