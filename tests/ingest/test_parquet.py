"""Parquet pages are judged before anything of them is unpacked."""

from __future__ import annotations

import pytest
from pyarrow import parquet

from ingest.errors import IngestError
from ingest.parquet_pages import largest_page
from tests.hostile.images import png
from tests.hostile.parquets import table, written

COLUMNS = {"image.bytes", "label"}


@pytest.mark.parametrize(
    "options", [{}, {"use_dictionary": False}, {"data_page_version": "2.0"}, {"row_group_size": 3}]
)
def test_the_largest_page_is_found(options, tmp_path):
    images = [png(n) for n in range(12)]
    path = tmp_path / "x.parquet"
    path.write_bytes(written(table([n % 2 for n in range(12)], images), **options))
    values = sum(len(image) + 4 for image in images[: options.get("row_group_size", 12)])
    assert values <= largest_page(path, COLUMNS, "x") <= values + 200
    assert largest_page(path, {"label"}, "x") < 200
    assert parquet.ParquetFile(path).metadata.num_rows == 12


def test_a_page_that_is_too_large_is_not_unpacked(tmp_path):
    path = tmp_path / "x.parquet"
    images = [png(n) + bytes(1 << 20) for n in range(120)]
    path.write_bytes(written(table([n % 2 for n in range(120)], images), use_dictionary=False, compression="zstd"))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(IngestError, match="a page of x unpacks to 1258") as error:
        largest_page(path, COLUMNS, "x")
    assert error.value.code == "upload_too_large"
