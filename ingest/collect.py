"""From the images of one upload to prepared arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ingest.arrays import Split, dropping, finish
from ingest.decoding import Pass, Record
from ingest.errors import DataFormatError, LabelsInvalidError
from ingest.images import ColourFoundError
from ingest.pool import ordered
from ingest.splits import settle

Tell = Callable[[str], None]


def silent(_: str) -> None:
    """Tells nobody."""


class Collector:
    """Turns the records of one upload into prepared arrays."""

    def __init__(
        self, source: Mapping[str, Any], target: Path, options: Mapping[str, Any], *, kind: str, layout: str, tell: Tell
    ) -> None:
        self._source, self._target, self._options = source, target, options
        self._kind, self._layout, self._tell = kind, layout, tell

    def collect(
        self,
        records: Callable[[], Iterator[Record]],
        *,
        rename: Callable[[list[str]], list[str]] | None = None,
        class_names: Callable[[], list[str] | None] = lambda: None,
    ) -> None:
        """Prepare all records; they are asked for again if the first ones are grey and later ones are not.

        Args:
            rename: from the labels of data without splits to names of classes, where that takes all labels.
            class_names: the names that belong to labels that are numbers, once all were read.
        Raises: IngestError.
        """
        try:
            passed = self._read(records(), grey=True)
        except ColourFoundError:
            passed = self._read(records(), grey=False)
        with passed:
            if passed.image is None:
                raise DataFormatError(f"{self._source['filename']} has no images", self._layout)
            splits, names = passed.splits(rename)
            with dropping(splits):
                if names is None:
                    names = class_names()
                    self._check_numbers(splits, names)
                self._finish(splits, passed.image, names)

    def _check_numbers(self, splits: Mapping[str, Split], names: list[str] | None) -> None:
        for key, split in splits.items():
            if names is not None and int(split.labels.max(initial=0)) >= len(names):
                raise LabelsInvalidError(
                    f"the {key} split of {self._source['filename']} holds label {split.labels.max()} and names "
                    f"{len(names)} classes",
                    "labels are 0 to classes - 1",
                )

    def _finish(self, came: dict[str, Split], image: tuple[int, int, int], names: list[str] | None) -> None:
        splits, facts = settle(self._target, came, image, self._source["filename"], self._layout)
        finish(self._target, self._source, splits, kind=self._kind, image=image, class_names=names, facts=facts)

    def _read(self, records: Iterator[Record], *, grey: bool) -> Pass:
        passed = Pass(self._source["filename"], self._target, self._options, self._layout, grey=grey)
        try:
            for answer in ordered(passed.work, passed.jobs(records)):
                passed.take(answer)
                self._tell(f"{passed.done} images prepared")
        except BaseException:
            passed.close()
            raise
        return passed
