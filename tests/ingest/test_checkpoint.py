"""Checkpoints: read without torch, byte for byte as torch reads them; code is refused with the way out."""

from __future__ import annotations

import dataclasses
import json
import pickle
import struct
import subprocess
import sys
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ingest.checkpoint import prepare_checkpoint
from ingest.checkpoint_errors import CheckpointOverlapError, CheckpointTooLargeError
from ingest.errors import (
    CheckpointFormatError,
    CheckpointNotFiniteError,
    CheckpointNotPlainError,
    IngestError,
)
from tests.hostile.pickles import state_dict
from tests.hostile.zips import pack, torch_members

SOURCE = {"filename": "model.pt", "sha256": "0" * 64, "size": 1}


def prepare(path: Path, target: Path):
    target.mkdir(exist_ok=True)
    prepare_checkpoint(SOURCE, path, target)
    return load_file(target / "checkpoint.safetensors"), json.loads((target / "checkpoint.json").read_text())


def save(path: Path, content, **options) -> Path:
    torch.save(content, path, **options)
    return path


def test_every_dtype_and_layout_reads_as_torch_reads_it(tmp_path):
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(6, 4, generator=generator)
    flat = torch.randn(10, generator=generator)
    state = OrderedDict(
        float=base,
        double=base.double(),
        half=base.half(),
        bfloat=base.bfloat16(),
        long=torch.arange(5),
        int=torch.arange(5, dtype=torch.int32),
        short=torch.arange(5, dtype=torch.int16),
        int8=torch.arange(5, dtype=torch.int8),
        uint8=torch.arange(5, dtype=torch.uint8),
        bool=torch.tensor([True, False]),
        scalar=torch.tensor(3.5),
        empty=torch.zeros(0, 3),
        transposed=base.t(),
        part=torch.randn(6, 4, generator=generator)[2:5, 1:3],
        first=flat[:6].view(2, 3),
        second=flat[6:],
        channels_last=torch.randn(2, 3, 4, 5, generator=generator).to(memory_format=torch.channels_last),
        shared=base,
        parameter=nn.Parameter(base),
    )
    tensors, manifest = prepare(save(tmp_path / "all.pt", state), tmp_path / "out")
    assert [entry["key"] for entry in manifest["tensors"]] == list(state)
    for key, value in state.items():
        assert tensors[key].dtype == value.dtype
        assert torch.equal(tensors[key], value.detach())


def test_a_real_networks_state_dict_with_metadata(tmp_path):
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(3, 2))
    tensors, _ = prepare(save(tmp_path / "net.pt", net.state_dict()), tmp_path / "out")
    net.load_state_dict(tensors, strict=True)


def test_newer_pickle_protocols(tmp_path):
    path = save(tmp_path / "p4.pt", {"a": torch.ones(2)}, pickle_protocol=4)
    assert torch.equal(prepare(path, tmp_path / "out")[0]["a"], torch.ones(2))


def test_safetensors(tmp_path):
    state = {"b": torch.ones(2, 2), "a": torch.zeros(3, dtype=torch.bfloat16)}
    save_file(state, tmp_path / "m.safetensors", metadata={"note": "x"})
    tensors, manifest = prepare(tmp_path / "m.safetensors", tmp_path / "out")
    assert manifest["metadata"] == {"note": "x"}
    assert manifest["format"] == "safetensors"
    assert tensors.keys() == state.keys()


class Canary:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path):
    canary = tmp_path / "canary"
    for name, content in (("value", {"a": torch.ones(1), "b": Canary(canary)}), ("alone", Canary(canary))):
        path = save(tmp_path / f"{name}.pt", content)
        with pytest.raises(CheckpointNotPlainError) as error:
            prepare(path, tmp_path / "out")
        assert "torch.save(model.state_dict()" in error.value.hint
    assert not canary.exists()
    pickle.loads(pickle.dumps(Canary(canary)))
    assert canary.exists(), "the canary must be able to sing"


def legacy(path: Path) -> Path:
    return save(path, {"a": torch.ones(1)}, _use_new_zipfile_serialization=False)


def torchscript(path: Path) -> Path:
    torch.jit.script(nn.Linear(2, 2)).save(path)
    return path


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: save(path, nn.Linear(2, 2)), "torch.nn.modules.linear.Linear"),
        (legacy, "legacy"),
        (torchscript, "TorchScript"),
        (lambda path: path.write_bytes(pickle.dumps({"a": 1})) and path, "pickle"),
    ],
    ids=["module", "legacy", "torchscript", "pickle"],
)
def test_code_is_refused_with_the_line_that_mends_it(make, words, tmp_path):
    with pytest.raises(CheckpointNotPlainError, match=words) as error:
        prepare(make(tmp_path / "code.pt"), tmp_path / "out")
    assert "torch.save(" in error.value.hint


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_weights_that_are_not_finite(value, dtype, tmp_path):
    state = {"fine": torch.ones(2), "bad": torch.tensor([1, value]).to(dtype)}
    with pytest.raises(CheckpointNotFiniteError, match="'bad'"):
        prepare(save(tmp_path / "nan.pt", state), tmp_path / "out")
    save_file(state, tmp_path / "nan.safetensors")
    with pytest.raises(CheckpointNotFiniteError, match="'bad'"):
        prepare(tmp_path / "nan.safetensors", tmp_path / "out")


def rewrite(path: Path, **records: bytes) -> Path:
    """The same archive with some records replaced."""
    with zipfile.ZipFile(path) as archive:
        contents = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, records.get(name.partition("/")[2], content))
    return path


def test_a_tensor_beyond_its_record(tmp_path):
    path = save(tmp_path / "short.pt", {"a": torch.ones(100)})
    with pytest.raises(CheckpointFormatError, match="wrong size"):
        prepare(rewrite(path, **{"data/0": b"1234"}), tmp_path / "out")


def test_an_expanded_view_asks_for_more_than_its_record(tmp_path):
    content = torch.ones(1).expand(1_000_000_000)
    with pytest.raises(CheckpointOverlapError, match="expanded"):
        prepare(save(tmp_path / "bomb.pt", {"a": content}), tmp_path / "out")


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04 not really", b"hello world, this is text", b"\x10\0\0\0\0\0\0\0{broken json!!!!", b"\xff" * 40],
    ids=["empty", "zip", "text", "header", "length"],
)
def test_damaged_files(content, tmp_path):
    path = tmp_path / "bad"
    path.write_bytes(content)
    with pytest.raises(IngestError):
        prepare(path, tmp_path / "out")


def test_a_zip_that_is_no_checkpoint(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.ones(3))
    with pytest.raises(CheckpointFormatError, match=r"no data\.pkl"):
        prepare(tmp_path / "x.npz", tmp_path / "out")


@pytest.mark.parametrize("content", [{}, {"a": 1}, [torch.ones(1)], {"epoch": 3}, {1: torch.ones(1)}])
def test_no_state_dict(content, tmp_path):
    with pytest.raises(CheckpointFormatError, match="state dict"):
        prepare(save(tmp_path / "x.pt", content), tmp_path / "out")


def test_truncated_at_any_byte_is_an_error_of_ours(tmp_path):
    whole = save(tmp_path / "whole.pt", {"a": torch.ones(50), "b": torch.zeros(2)}).read_bytes()
    for length in range(0, len(whole), 37):
        (tmp_path / "part.pt").write_bytes(whole[:length])
        with pytest.raises(IngestError):
            prepare(tmp_path / "part.pt", tmp_path / "out")


def large(path: Path, megabytes: int) -> Path:
    """A checkpoint of one tensor of zeros."""
    shape = (megabytes * 256, 1024)
    with path.open("wb") as file:
        if path.suffix == ".safetensors":
            header = json.dumps(
                {"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, megabytes * 2**20]}}
            ).encode()
            file.write(len(header).to_bytes(8, "little") + header)
            file.truncate(8 + len(header) + megabytes * 2**20)
            return path
    return save(path, {"a": torch.zeros(shape)})


_PEAK = """
import re, sys
from pathlib import Path
from ingest.checkpoint import prepare_checkpoint
peak = lambda: int(re.search("VmHWM: *(\\d+)", Path("/proc/self/status").read_text().replace("\\t", " "))[1]) / 1024
before = peak()
prepare_checkpoint({"filename": "f", "sha256": "", "size": 0}, Path(sys.argv[1]), Path(sys.argv[2]))
print(peak() - before)
"""


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt"])
def test_memory_does_not_grow_with_the_file(name, tmp_path):
    path = large(tmp_path / name, 128)
    done = subprocess.run([sys.executable, "-c", _PEAK, path, tmp_path], check=True, capture_output=True, text=True)
    assert float(done.stdout) < 24  # MiB
    assert (tmp_path / "checkpoint.safetensors").stat().st_size > 128 * 2**20


def test_a_large_strided_tensor_reads_as_torch_reads_it(tmp_path):
    """It takes several blocks, and lies at an odd place in its record."""
    values = torch.arange(3_000_001, dtype=torch.int32)[1:].view(-1, 3).t()[:, 7:]
    tensors, _ = prepare(save(tmp_path / "t.pt", {"a": values}), tmp_path / "out")
    assert torch.equal(tensors["a"], values)


def test_records_of_more_than_four_gigabytes_have_their_sizes_in_another_field(tmp_path):
    """torch writes a 64-bit description after such a record, and a 64-bit field in the directory."""
    path = tmp_path / "wide.pt"
    pickle_, values = state_dict(), struct.pack("<4f", 1, 2, 3, 4)
    wide = struct.pack("<2H2Q", 1, 16, 16, 16)
    described = struct.pack("<4sI2Q", b"PK\x07\x08", zlib.crc32(values), 16, 16)
    members = torch_members(pickle_, {"0": values})
    members[-1] = dataclasses.replace(
        members[-1], size=0xFFFFFFFF, extra=wide, flags=8, local_size=0xFFFFFFFF, local_extra=wide, following=described
    )
    path.write_bytes(pack(members))
    assert prepare(path, tmp_path / "out")[0]["a"].tolist() == [1, 2, 3, 4]


def test_every_code_is_listed_once_and_comes_with_its_line():
    def below(kind):
        return [kind, *(inner for sub in kind.__subclasses__() for inner in below(sub))]

    kinds = {kind for kind in below(IngestError) if kind.__module__ == "ingest.checkpoint_errors"}
    shared = {kind for kind in kinds if "code" not in vars(kind)}
    assert shared == {CheckpointTooLargeError}
    assert len({kind.code for kind in kinds}) == len(kinds)
    assert all(kind.code.startswith("checkpoint_") for kind in kinds - shared)
    assert all(kind("detail").hint for kind in kinds)
