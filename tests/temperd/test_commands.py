"""The server command: named datasets, and what it refuses."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from typer.testing import CliRunner

from temperd.__main__ import app

RUNNER = CliRunner()


def write_idx(path, array):
    """The file format of MNIST and Fashion-MNIST."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.tobytes())


@pytest.fixture
def raw(tmp_path, arrays):
    folder = tmp_path / "source" / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for split, name in (("train", "train"), ("test", "t10k")):
        write_idx(folder / f"{name}-images-idx3-ubyte", arrays[f"x_{split}"])
        write_idx(folder / f"{name}-labels-idx1-ubyte", arrays[f"y_{split}"])
    return tmp_path / "source"


def test_a_fetched_dataset_is_what_torchvision_reads(tmp_path, raw, arrays):
    data_dir = tmp_path / "data"
    command = ["datasets", "fetch", "fashion-mnist", "--data-dir", str(data_dir), "--source", str(raw)]
    result = RUNNER.invoke(app, command)
    assert result.exit_code == 0, result.output
    with np.load(data_dir / "datasets" / "fashion-mnist.npz") as fetched:
        assert set(fetched) == set(arrays)
        assert all(np.array_equal(fetched[key], arrays[key]) for key in arrays)
    assert [path.name for path in (data_dir / "datasets").iterdir()] == ["fashion-mnist.npz"]


def test_an_unknown_dataset(tmp_path):
    result = RUNNER.invoke(app, ["datasets", "fetch", "fashon", "--data-dir", str(tmp_path)])
    assert result.exit_code == 2
    assert "fashion-mnist" in result.output


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::"])
def test_without_keys_it_listens_on_loopback_only(host, tmp_path):
    result = RUNNER.invoke(app, ["serve", "--host", host, "--data-dir", str(tmp_path / "data")])
    assert result.exit_code == 2
    assert "loopback" in result.output
    assert not (tmp_path / "data").exists()


def test_a_host_that_is_none(tmp_path):
    result = RUNNER.invoke(app, ["serve", "--host", "my host", "--data-dir", str(tmp_path / "data")])
    assert result.exit_code == 2
    assert "--host" in result.output


def test_migrate_makes_the_schema(tmp_path):
    for _ in range(2):
        assert RUNNER.invoke(app, ["migrate", "--data-dir", str(tmp_path / "new")]).exit_code == 0
    assert (tmp_path / "new" / "temper.db").exists()
