"""Hostile Parquet files."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import pyarrow
from pyarrow import parquet

from tests.hostile.images import png

Made = bytes | Callable[[], bytes]
_LARGE, _FORMAT, _IMAGE, _LABELS = "upload_too_large", "data_format", "image_invalid", "labels_invalid"
_IMAGE_TYPE = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])


def table(labels: Any, images: list[bytes] | None = None, names: list[str] | None = None) -> pyarrow.Table:
    """A table as the library datasets writes it."""
    images = images or [png(n) for n in range(len(labels))]
    rows = pyarrow.array([{"bytes": image, "path": f"{n}.png"} for n, image in enumerate(images)], _IMAGE_TYPE)
    made = pyarrow.table({"image": rows, "label": labels})
    if names is None:
        return made
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    return made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def written(content: pyarrow.Table, **options: Any) -> bytes:
    """The table as a file."""
    file = io.BytesIO()
    parquet.write_table(content, file, **options)
    return file.getvalue()


def parquets() -> dict[str, tuple[Made, str]]:
    """Content and code by name."""
    labels = [n % 2 for n in range(12)]
    good = written(table(labels))
    footer = int.from_bytes(good[-8:-4], "little")
    nested = pyarrow.table({"image": [[b"x"], [b"y"]], "label": [0, 1]})
    return {
        "parquet-of-482-megabytes-in-some-kilobytes": (_dictionary_bomb, _LARGE),
        "parquet-page-of-500-megabytes": (_page_bomb, _LARGE),
        "parquet-cut-off": (good[: len(good) // 2], _FORMAT),
        "parquet-footer-cut-off": (good[: -8 - footer // 2] + good[-8:], _FORMAT),
        "parquet-footer-of-gigabytes": (good[:-8] + b"\xff\xff\xff\x7f" + good[-4:], _FORMAT),
        "parquet-footer-of-noise": (good[: -8 - footer] + bytes(range(256)) * (footer // 256 + 1) + good[-8:], _FORMAT),
        "parquet-pages-of-noise": (good[:4] + b"\xa5" * (len(good) - 12 - footer) + good[-8 - footer :], _FORMAT),
        "parquet-encrypted": (good[:-4].replace(b"PAR1", b"PARE", 1) + b"PARE", _FORMAT),
        "parquet-nested-images": (written(nested), _FORMAT),
        "parquet-without-images": (written(pyarrow.table({"text": ["a", "b"], "label": [0, 1]})), _FORMAT),
        "parquet-without-labels": (written(table(labels).drop_columns("label")), _FORMAT),
        "parquet-labels-of-floats": (written(table([float(n) for n in labels])), _LABELS),
        "parquet-labels-nan": (written(table([float("nan")] * 12)), _LABELS),
        "parquet-labels-null": (written(table([None, *labels[1:]])), _LABELS),
        "parquet-labels-of-lists": (written(table([[n] for n in labels])), _LABELS),
        "parquet-labels-beyond-their-names": (written(table([*labels[1:], 7], names=["cat", "dog"])), _LABELS),
        "parquet-images-that-are-none": (written(table(labels, [b"text"] * 12)), _IMAGE),
        "parquet-images-that-are-null": (written(table(labels, [None] * 12)), _FORMAT),
        "parquet-without-rows": (written(table(labels).slice(0, 0)), _FORMAT),
    }


def _dictionary_bomb() -> bytes:
    """One megabyte, referred to five hundred times."""
    image = png() + bytes(1 << 20)
    labels = [n % 2 for n in range(482)]
    return written(table(labels, [image] * 482), compression="zstd", dictionary_pagesize_limit=8 << 20)


def _page_bomb() -> bytes:
    """One page of rows that are each a megabyte of zeros."""
    image = png() + bytes(1 << 20)
    labels = [n % 2 for n in range(482)]
    return written(table(labels, [image] * 482), compression="zstd", use_dictionary=False, data_page_size=1 << 30)
