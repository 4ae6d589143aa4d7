"""python -m ingest as the supervisor runs it: named datasets, how far it is, and memory that does not grow."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from ingest.__main__ import main
from ingest.pool import WorkerDiedError
from tests.hostile.archives import zipped
from tests.hostile.data import npz
from tests.hostile.images import encoded, picture, png, tree
from tests.hostile.parquets import table, written

ROOT = Path(__file__).parents[2]
DATA = {"format": None, "dataset": None, "resize": None, "crop": None, "interpolation": "bilinear"}


def workdir(folder: Path, *, upload: Path | None = None, dataset: str | None = None, datasets: tuple[Path, ...] = ()):
    folder.mkdir(exist_ok=True)
    data = {"path": str(upload), "filename": upload.name, "sha256": "", "size": 0} if upload else None
    request = {"checkpoint": None, "data": data, "datasets": [str(place) for place in datasets]}
    (folder / "ingest.json").write_text(json.dumps(request))
    (folder / "spec.json").write_text(json.dumps({"data": {**DATA, "dataset": dataset}}))
    return folder


def unpacked(root: Path, members: dict[str, bytes]) -> None:
    for name, content in members.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def test_datasets_in_folders_of_the_operators(tmp_path):
    first, second = tmp_path / "fetched", tmp_path / "nas"
    unpacked(second / "pets", {**tree(), ".cache/x": b"x", "README.md": b"x"})
    labels = [n % 2 for n in range(10)]
    for split in ("train", "test"):
        images = [png(n + len(split)) for n in range(10)]
        unpacked(second / "hub", {f"data/{split}-00000-of-00001.parquet": written(table(labels, images))})
    x, y = np.arange(9 * 64, dtype=np.uint8).reshape(9, 8, 8), np.arange(9) % 3
    unpacked(first, {"digits.npz": npz({"x_test": x, "y_test": y})})
    unpacked(second, {"cats.zip": zipped(tree())})
    for name, kind in {"pets": "imagefolder", "hub": "parquet", "digits": "npz", "cats": "imagefolder"}.items():
        folder = workdir(tmp_path / f"work-{name}", dataset=name, datasets=(first, second))
        assert main([str(folder)]) == 0
        manifest = json.loads((folder / "input" / "data.json").read_text())
        assert manifest["format"] == kind
        assert len(manifest["source"]["sha256"]) == 64
    assert sorted(path.name for path in second.iterdir()) == ["cats.zip", "hub", "pets"]


def test_a_dataset_that_is_in_no_folder(tmp_path, capsys):
    folder = workdir(tmp_path / "work", dataset="../nas/pets", datasets=(tmp_path,))
    (tmp_path / "pets.zip").write_bytes(zipped(tree()))
    assert main([str(folder)]) == 64
    failure = json.loads(capsys.readouterr().out)
    assert failure["code"] == "dataset_missing"
    assert "there: pets, work" in failure["detail"]


def test_it_says_how_far_it_is(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("ingest.__main__._TELL_SECONDS", 0)
    monkeypatch.setattr("ingest.decoding._CHUNK", 3)
    (tmp_path / "pets.zip").write_bytes(zipped(tree()))
    assert main([str(workdir(tmp_path / "work", upload=tmp_path / "pets.zip"))]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["type"] for line in lines] == ["log"] * 6
    assert [line["line"] for line in lines][-2:] == ["15 images prepared", "16 images prepared"]


def test_a_job_whose_helper_was_killed_is_not_the_users_fault(tmp_path, monkeypatch):
    def killed(*_: object) -> None:
        raise WorkerDiedError

    monkeypatch.setattr("ingest.collect.ordered", killed)
    (tmp_path / "pets.zip").write_bytes(zipped(tree()))
    assert main([str(workdir(tmp_path / "work", upload=tmp_path / "pets.zip"))]) == 70


_PEAK = """
import os, resource, sys
from pathlib import Path
from ingest.__main__ import main
import pyarrow.parquet, numpy.random
def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024
before = peak()
status = main([sys.argv[1]])
print("PEAK", status, peak() - before, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024 - before)
"""


def growth(folder: Path) -> float:
    """Megabytes that the process, or one that helps it, grows by."""
    done = subprocess.run([sys.executable, "-c", _PEAK, folder], capture_output=True, text=True, cwd=ROOT, check=True)
    status, *grown = done.stdout.rsplit("PEAK", 1)[1].split()
    assert status == "0", done.stdout + done.stderr
    return max(map(float, grown))


@pytest.mark.long
@pytest.mark.parametrize("kind", ["npz", "fortran", "zip", "parquet"])
def test_a_gigabyte_in_flat_memory(kind, tmp_path):
    path = tmp_path / f"data.{'npz' if kind == 'fortran' else kind}"
    if kind in ("npz", "fortran"):
        block = np.random.default_rng(0).integers(0, 256, (1000, 128, 128, 3), np.uint8)
        x = np.lib.format.open_memmap(
            tmp_path / "x.npy", "w+", np.uint8, (20_000, 128, 128, 3), fortran_order=kind == "fortran"
        )
        for start in range(0, 20_000, 1000):
            x[start : start + 1000] = np.roll(block, start // 1000, axis=1)
        x.flush()
        del x
        np.save(tmp_path / "y.npy", np.arange(20_000) % 10)
        with zipfile.ZipFile(path, "w") as archive:
            for name in ("x", "y"):
                archive.write(tmp_path / f"{name}.npy", f"{name}.npy")
                (tmp_path / f"{name}.npy").unlink()
    elif kind == "zip":
        # half a megabyte each, of which one in two thousand is an image of its own
        images = [encoded(picture(n, size=(420, 420))) for n in range(8)]
        with zipfile.ZipFile(path, "w") as archive:
            for n in range(2000):
                archive.writestr(f"{n % 2}/{n}.png", images[n % 8] + n.to_bytes(4, "little"))
    else:
        images = [encoded(picture(n, size=(420, 420))) for n in range(100)]
        content = table([n % 2 for n in range(100)], images)
        with parquet.ParquetWriter(path, content.schema, use_dictionary=False) as writer:
            for _ in range(20):
                writer.write_table(content)
    assert path.stat().st_size > 900 << 20
    # Parquet's writer makes one page of a row group, 53 MB here, which is there packed, unpacked and as values
    assert growth(workdir(tmp_path / "work", upload=path)) < (250 if kind == "parquet" else 150)
