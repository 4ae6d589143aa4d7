"""Damaged files, thousands of ways: every one is accepted or refused with a code, none crashes a parser."""

from __future__ import annotations

import io
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

from ingest.checkpoint import prepare_checkpoint
from ingest.errors import IngestError
from ingest.image_folder import prepare_image_folder
from ingest.npz import prepare_npz

ROUNDS = 400
OPTIONS = {"resize": None, "crop": None, "interpolation": "bilinear"}


def pt() -> bytes:
    file = io.BytesIO()
    torch.save({"state_dict": {"a.weight": torch.ones(3, 2), "a.bias": torch.zeros(3)}, "epoch": 3}, file)
    return file.getvalue()


def safetensors() -> bytes:
    return save({"a": torch.ones(3, 2), "b": torch.zeros(4, dtype=torch.float16)}, metadata={"x": "y"})


def npz() -> bytes:
    file = io.BytesIO()
    x, y = np.zeros((6, 8, 8), np.uint8), np.arange(6) % 2
    np.savez_compressed(file, x_train=x, y_train=y, x_test=x, y_test=y)
    return file.getvalue()


def images() -> dict[str, bytes]:
    file = io.BytesIO()
    Image.new("RGB", (9, 8), (1, 2, 3)).save(file, "PNG")
    return {
        f"{split}/{label}/{n}.png": file.getvalue() for split in ("train", "test") for label in "ab" for n in (0, 1)
    }


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in images().items():
            archive.writestr(name, content)
    return file.getvalue()


def tarred(mode: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name, content in images().items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def checkpoint(path, target):
    prepare_checkpoint({"filename": "f", "sha256": "", "size": 0}, path, target)


def arrays(path, target):
    prepare_npz({"filename": "f"}, path, target)


def folder(path, target):
    prepare_image_folder({"filename": "f"}, path, target, OPTIONS)


CASES = {
    "pt": (pt, checkpoint),
    "safetensors": (safetensors, checkpoint),
    "npz": (npz, arrays),
    "zip": (zipped, folder),
    "tar": (lambda: tarred("w"), folder),
    "tgz": (lambda: tarred("w:gz"), folder),
    "txz": (lambda: tarred("w:xz"), folder),
}


def damaged(whole: bytes, rng: np.random.Generator) -> bytes:
    """Cut, flipped, overwritten, doubled: one to four faults."""
    content = bytearray(whole)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(0, max(1, len(content))))
        fault = rng.integers(0, 5)
        if fault == 0:
            del content[at:]
        elif fault == 1 and content:
            content[min(at, len(content) - 1)] ^= 1 << int(rng.integers(0, 8))
        elif fault == 2:
            content[at : at + 4] = rng.bytes(4)
        elif fault == 3:
            content[at : at + 8] = b"\xff" * 8
        else:
            content[at:at] = content[: int(rng.integers(0, 60))]
    return bytes(content)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", CASES)
def test_damaged_files_are_refused_with_a_code(kind, tmp_path):
    make, prepare = CASES[kind]
    whole = make()
    path, target = tmp_path / "file", tmp_path / "out"
    target.mkdir()
    path.write_bytes(whole)
    prepare(path, target)  # undamaged, it is accepted
    refused = 0
    for seed in range(ROUNDS):
        content = damaged(whole, np.random.default_rng(seed))
        path.write_bytes(content)
        try:
            prepare(path, target)
        except IngestError as error:
            assert error.code != "upload_invalid"
            assert error.detail
            refused += 1
        except Exception as error:
            raise AssertionError(f"seed {seed}: {type(error).__name__}: {error}") from error
    assert refused > ROUNDS / 4


def test_npy_headers_that_are_hostile_python(tmp_path):
    for header in ("[" * 300, "-" * 5000, "{[]: 1}", "{'descr': '|u1', 'fortran_order': False, 'shape': (-5, 8, 8)}"):
        text = header.encode() + b" " * (-(len(header) + 10) % 64) + b"\n"
        content = b"\x93NUMPY\x02\x00" + len(text).to_bytes(4, "little") + text
        with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
            for name in ("x_test", "y_test"):
                archive.writestr(f"{name}.npy", content)
        with pytest.raises(IngestError):
            arrays(tmp_path / "x.npz", tmp_path)


def test_a_pickle_whose_key_is_a_tower_of_tuples(tmp_path):
    tower = b"\x80\x02}" + b")" + b"\x85" * 300_000 + b"K\x01s."
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("archive/data.pkl", tower)
    with pytest.raises(IngestError):
        checkpoint(tmp_path / "x.pt", tmp_path)
