"""Downloads arrive whole and as they were, or not at all."""

from __future__ import annotations

import asyncio
import hashlib

import httpx
import pytest

from temper import AsyncClient, Client, DamagedError, ExistsError, RefusedError
from tests.client.test_uploads import Interrupting


@pytest.fixture
def checkpoint(service, done):
    """The bytes, as httpx gets them."""
    return service.client.get(f"/jobs/{done}/checkpoint").content


@pytest.fixture
def part(tmp_path, checkpoint):
    """Where they lie meanwhile."""
    return tmp_path / f".hardened.pt.{hashlib.sha256(checkpoint).hexdigest()[:16]}.part"


def test_it_goes_on_where_connections_broke(through, cutting, done, checkpoint, tmp_path):
    cutting.cuts.extend([("down", 300_000), ("down", 0), ("down", 200_000)])
    path = through.job(done).download(tmp_path / "hardened.pt")
    assert path.read_bytes() == checkpoint
    assert cutting.broken == 3
    assert cutting.passed["down"] < len(checkpoint) + 100_000
    assert [entry.name for entry in tmp_path.iterdir()] == ["hardened.pt"]


def test_three_at_once_to_one_place(url, done, checkpoint, tmp_path):
    async def fetch():
        async with AsyncClient(url) as client:
            job = await client.job(done)
            await asyncio.gather(*(job.download(tmp_path / "hardened.pt") for _ in range(3)))

    asyncio.run(fetch())
    assert (tmp_path / "hardened.pt").read_bytes() == checkpoint
    assert [entry.name for entry in tmp_path.iterdir()] == ["hardened.pt"]


def test_another_process_goes_on(url, through, cutting, done, checkpoint, tmp_path, part):
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Client(url, progress=Interrupting(400_000, stop)) as client:
        client.job(done).download(tmp_path / "hardened.pt")
    assert list(tmp_path.iterdir()) == [part]
    through.job(done).download(tmp_path / "hardened.pt")
    assert (tmp_path / "hardened.pt").read_bytes() == checkpoint
    assert cutting.passed["down"] < len(checkpoint) - 300_000


def test_bytes_that_are_not_those_are_never_kept(client, done, checkpoint, tmp_path, part):
    part.write_bytes(b"not what was sent")
    with pytest.raises(DamagedError, match="SHA-256"):
        client.job(done).download(tmp_path / "hardened.pt")
    assert list(tmp_path.iterdir()) == []
    client.job(done).download(tmp_path / "hardened.pt")
    assert (tmp_path / "hardened.pt").read_bytes() == checkpoint


def test_another_file_is_not_replaced_unless_asked(client, done, checkpoint, tmp_path):
    path = tmp_path / "mine.pt"
    path.write_bytes(b"my own weights")
    with pytest.raises(ExistsError, match=r"mine\.pt"):
        client.job(done).download(path)
    assert path.read_bytes() == b"my own weights"
    client.job(done).download(path, overwrite=True)
    assert path.read_bytes() == checkpoint


def test_the_same_file_is_not_fetched_again(through, cutting, done, tmp_path):
    through.job(done).download(tmp_path / "hardened.pt")
    before = cutting.passed["down"]
    through.job(done).download(tmp_path / "hardened.pt")
    assert cutting.passed["down"] - before < 20_000


def test_names_and_formats(client, service, done, tmp_path):
    job = client.job(done)
    assert job.download(tmp_path).name == f"{done}-checkpoint.pt"
    converted = job.download(tmp_path, format="safetensors")
    assert converted.name == f"{done}-checkpoint.safetensors"
    listed = {item["name"]: item for item in job.artifacts()}
    assert hashlib.sha256(converted.read_bytes()).hexdigest() == listed["checkpoint.safetensors"]["sha256"]
    images = job.download(tmp_path / "images", artifact="images.parquet")
    assert images.read_bytes() == service.client.get(f"/jobs/{done}/artifacts/images.parquet").content


def test_an_artifact_that_is_none(client, done, tmp_path):
    with pytest.raises(RefusedError) as error:
        client.job(done).download(tmp_path, artifact="../report")
    assert error.value.status == httpx.codes.NOT_FOUND
    assert list(tmp_path.iterdir()) == []
