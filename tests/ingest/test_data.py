"""npz files and image folders: read exactly, and refused by name of file and field."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from ingest.__main__ import main
from ingest.data import prepare_data
from ingest.datasets import find_dataset
from ingest.errors import IngestError
from ingest.image_folder import prepare_image_folder
from ingest.npz import prepare_npz

RNG = np.random.default_rng(0)
OPTIONS = {"resize": None, "crop": None, "interpolation": "bilinear"}


def good(n=20, **changes):
    arrays = {
        "x_train": RNG.integers(0, 256, (n, 12, 10, 3), np.uint8),
        "y_train": np.arange(n) % 4,
        "x_test": RNG.integers(0, 256, (8, 12, 10, 3), np.uint8),
        "y_test": np.arange(8) % 4,
    }
    return {key: value for key, value in {**arrays, **changes}.items() if value is not None}


def prepare(tmp_path: Path, arrays) -> dict:
    path = tmp_path / "mine.npz"
    np.savez_compressed(path, **arrays)
    target = tmp_path / "input"
    target.mkdir(exist_ok=True)
    prepare_npz({"filename": "mine.npz"}, path, target)
    return json.loads((target / "data.json").read_text())


def test_npz_keeps_every_pixel(tmp_path):
    arrays = good()
    manifest = prepare(tmp_path, arrays)
    assert (manifest["channels"], manifest["height"], manifest["width"], manifest["num_classes"]) == (3, 12, 10, 4)
    for split in ("train", "test"):
        stored = np.load(tmp_path / "input" / f"x_{split}.npy", mmap_mode="r")
        assert np.array_equal(stored.transpose(0, 2, 3, 1), arrays[f"x_{split}"])
        assert np.array_equal(np.load(tmp_path / "input" / f"y_{split}.npy"), arrays[f"y_{split}"])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_in_zero_to_one(dtype, tmp_path):
    x = RNG.random((20, 12, 10, 3)).astype(dtype)
    prepare(tmp_path, good(x_train=x, x_test=x[:8]))
    stored = np.load(tmp_path / "input" / "x_train.npy")
    assert stored.dtype == np.float32
    assert np.array_equal(stored, x.transpose(0, 3, 1, 2).astype(np.float32))


def nan(x):
    return np.where(np.arange(x.size).reshape(x.shape) == 5, np.nan, x / 255).astype(np.float32)


BAD = [
    ("nan pixel", {"x_train": nan(good()["x_train"])}, "pixels_out_of_range", "x_train of mine.npz holds NaN"),
    ("0 to 255 as float", {"x_test": good()["x_test"].astype(np.float32)}, "pixels_out_of_range", "x_test of mine.npz"),
    ("negative", {"x_test": -np.ones((8, 12, 10, 3), np.float32)}, "pixels_out_of_range", "from -1 to -1"),
    ("int16", {"x_train": good()["x_train"].astype(np.int16)}, "data_shape", "x_train of mine.npz has dtype int16"),
    ("channels first", {"x_train": np.zeros((20, 3, 12, 10), np.uint8)}, "data_shape", "x_train of mine.npz has shape"),
    ("two channels", {"x_train": np.zeros((20, 12, 10, 2), np.uint8)}, "data_shape", "shape"),
    ("flat", {"x_train": np.zeros((20, 120), np.uint8)}, "data_shape", "shape"),
    ("tiny", {"x_train": np.zeros((20, 4, 4), np.uint8)}, "data_shape", "4x4"),
    ("shapes differ", {"x_train": np.zeros((20, 12, 12, 3), np.uint8)}, "data_shape", "different shapes"),
    ("count", {"y_train": np.arange(19) % 4}, "labels_invalid", "y_train of mine.npz has shape (19,) for 20 images"),
    ("float labels", {"y_train": np.full(20, np.nan)}, "labels_invalid", "y_train of mine.npz has dtype float64"),
    ("one-hot", {"y_train": np.eye(4, dtype=int)[np.arange(20) % 4]}, "labels_invalid", "(20, 4)"),
    ("negative label", {"y_train": np.arange(20) - 1}, "labels_invalid", "holds -1"),
    ("huge label", {"y_train": np.arange(20) * 100_000}, "labels_invalid", "holds 1900000"),
    ("one class", {"y_train": np.full(20, 3)}, "labels_invalid", "the train split of mine.npz has one class only (3)"),
    ("empty", {"x_test": np.zeros((0, 12, 10, 3), np.uint8), "y_test": np.zeros(0, int)}, "labels_invalid", "empty"),
    ("nothing", {f"{name}_{split}": None for name in "xy" for split in ("train", "test")}, "data_format", "no x_test"),
    ("no labels", {"y_train": None}, "data_format", "no array y_train"),
    ("objects", {"y_train": np.array([{}] * 20, object)}, "data_format", "dtype object"),
]


@pytest.mark.parametrize(("change", "code", "words"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_npz(change, code, words, tmp_path):
    with pytest.raises(IngestError) as error:
        prepare(tmp_path, good(**change))
    assert error.value.code == code
    assert words in error.value.detail


@pytest.mark.parametrize(
    ("change", "way"),
    [
        ({"y_train": np.array([f"class {n % 4}" for n in range(20)])}, "np.unique(y, return_inverse=True)"),
        ({"x_train": (good()["x_train"] / 255 - 0.5) / 0.25}, "x_train * std + mean"),
        ({"x_train": good()["x_train"].astype(np.float32)}, "x_train / 255"),
    ],
    ids=["names", "normalised", "bytes"],
)
def test_what_a_loader_hands_out_is_told_how_it_is_sent(change, way, tmp_path):
    with pytest.raises(IngestError) as error:
        prepare(tmp_path, good(**change))
    assert way in error.value.hint


def test_a_file_of_torch_is_told_apart_from_damaged_ones(tmp_path):
    torch.save({"x": torch.zeros(4)}, tmp_path / "data.pt")
    with pytest.raises(IngestError, match=r"written by torch\.save") as error:
        prepare_data({"filename": "data.pt"}, tmp_path / "data.pt", tmp_path, OPTIONS)
    assert "np.savez" in error.value.hint


def test_channels_first_says_how_to_transpose(tmp_path):
    with pytest.raises(IngestError) as error:
        prepare(tmp_path, good(x_train=np.zeros((20, 3, 12, 10), np.uint8)))
    assert "np.transpose(x_train, (0, 2, 3, 1))" in error.value.hint


def test_a_header_that_asks_for_terabytes_is_refused_before_allocating(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 28, 28)})
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("x_train", "y_train", "x_test", "y_test"):
            archive.writestr(f"{name}.npy", header.getvalue())
    with pytest.raises(IngestError) as error:
        prepare_npz({"filename": "bomb.npz"}, path, tmp_path)
    assert error.value.code == "upload_too_large"


# --- image folders


def png(value: int, size=(16, 12), mode="RGB", kind="PNG") -> bytes:
    file = io.BytesIO()
    Image.new(
        mode,
        size,
        value if mode in ("L", "1", "P", "I;16") else (value, 0, 255 - value)[: len(mode)] + (128,) * (mode == "RGBA"),
    ).save(file, kind)
    return file.getvalue()


def tree(image=png) -> dict[str, bytes]:
    return {
        f"set/{split}/{label}/{n}.png": image(10 * n + 100 * (label == "dog"))
        for split in ("train", "test")
        for label in ("cat", "dog")
        for n in range(3)
    }


def pack(path: Path, members: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as archive:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


def prepare_folder(tmp_path, path, **options) -> dict:
    target = tmp_path / "input"
    target.mkdir(exist_ok=True)
    prepare_image_folder({"filename": path.name}, path, target, {**OPTIONS, **options})
    return json.loads((target / "data.json").read_text())


@pytest.mark.parametrize("suffix", ["zip", "tar", "tgz"])
def test_image_folders(suffix, tmp_path):
    clutter = {"__MACOSX/set/._x": b"x", "set/.DS_Store": b"x", "set/train/cat/.hidden.png": b"x"}
    manifest = prepare_folder(tmp_path, pack(tmp_path / f"images.{suffix}", {**tree(), **clutter}))
    assert manifest["class_names"] == ["cat", "dog"]
    assert (manifest["channels"], manifest["height"], manifest["width"]) == (3, 12, 16)
    assert manifest["counts"] == {"train": 6, "test": 6}
    x, y = (np.load(tmp_path / "input" / f"{name}_train.npy") for name in "xy")
    assert sorted(zip(y.tolist(), x[:, 0, 0, 0].tolist(), strict=True)) == [
        (0, 0), (0, 10), (0, 20), (1, 100), (1, 110), (1, 120),
    ]  # fmt: skip


def test_grey_stays_grey_and_mixed_becomes_colour(tmp_path):
    grey = prepare_folder(tmp_path, pack(tmp_path / "grey.zip", tree(lambda v: png(v, mode="L"))))
    assert grey["channels"] == 1
    members = tree(lambda v: png(v, mode="L"))
    members["set/train/cat/0.png"] = png(0, mode="P")
    members["set/train/cat/1.png"] = png(0, mode="RGBA")
    assert prepare_folder(tmp_path, pack(tmp_path / "mixed.zip", members))["channels"] == 3


def test_resize_and_crop_are_torchvisions(tmp_path):
    from torchvision import transforms

    gradient = Image.fromarray(RNG.integers(0, 256, (40, 60, 3), np.uint8))
    file = io.BytesIO()
    gradient.save(file, "PNG")
    members = tree(lambda _: file.getvalue())
    prepare_folder(tmp_path, pack(tmp_path / "big.zip", members), resize=20, crop=16)
    expected = transforms.Compose([transforms.Resize(20), transforms.CenterCrop(16)])(gradient)
    stored = np.load(tmp_path / "input" / "x_test.npy")[0].transpose(1, 2, 0)
    assert np.array_equal(stored, np.asarray(expected))


def test_sizes_that_differ_need_resize(tmp_path):
    members = {**tree(), "set/test/dog/9.png": png(1, size=(20, 20))}
    path = pack(tmp_path / "sizes.zip", members)
    with pytest.raises(IngestError) as error:
        prepare_folder(tmp_path, path)
    assert "data.resize" in error.value.hint
    assert prepare_folder(tmp_path, path, resize=12, crop=12)["height"] == 12


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"1.png": png(1)}, "1.png lies in no class's folder"),
        ({**tree(), "set/cat/x.png": png(1)}, "mixes images with and without a split; one of them is set/cat/x.png"),
        ({**tree(), "set/train/cat/x.png": b"not an image"}, "set/train/cat/x.png is no image"),
        ({**tree(), "set/train/cat/x.png": png(1)[:45]}, "x.png cannot be read"),
        ({**tree(), "set/train/cat/x.png": png(1, mode="I;16")}, "more than 8 bits"),
        ({key: value for key, value in tree().items() if "cat" in key}, r"one class only \(cat\)"),
        ({"cat/1.png": png(1), "dog/1.png": png(2), "dog/2.png": png(3)}, "class 0 of bad.zip has one image only"),
        ({"README": b"nothing"}, "no images"),
    ],
    ids=["layout", "mixed", "text", "truncated", "16-bit", "one class", "one image", "no image"],
)
def test_bad_image_folders(members, words, tmp_path):
    with pytest.raises(IngestError, match=words):
        prepare_folder(tmp_path, pack(tmp_path / "bad.zip", members))


def test_links_in_a_tar_are_refused(tmp_path):
    path = pack(tmp_path / "links.tar", tree())
    with tarfile.open(path, "a") as archive:
        info = tarfile.TarInfo("set/train/cat/link.png")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(IngestError, match="link or a device"):
        prepare_folder(tmp_path, path)


def test_neither_zip_nor_tar(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"nothing of the kind")
    with pytest.raises(IngestError, match=r"x\.zip cannot be read"):
        prepare_folder(tmp_path, tmp_path / "x.zip")


@pytest.mark.parametrize("free", [10 << 20, 200 << 20])
def test_what_the_disk_cannot_hold_is_refused_before_it_is_full(free, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    monkeypatch.setattr("ingest.decoding._CHUNK", 2)
    if free > 128 << 20:
        assert prepare_folder(tmp_path, pack(tmp_path / "images.zip", tree()))["counts"] == {"train": 6, "test": 6}
        assert prepare(tmp_path, good())["counts"] == {"train": 20, "test": 8}
        return
    for refused in (
        lambda: prepare_folder(tmp_path, pack(tmp_path / "images.zip", tree())),
        lambda: prepare(tmp_path, good()),
    ):
        with pytest.raises(IngestError, match=r"do not fit on the server's disk, which has 0\.0 GB left") as error:
            refused()
        assert error.value.code == "upload_too_large"


@pytest.mark.parametrize("suffix", ["npz", "zip"])
def test_a_dataset_is_described_like_an_upload(suffix, tmp_path):
    (tmp_path / f"mine.{suffix}").write_bytes(b"content")
    sha256 = "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"
    expected = {"path": str(tmp_path / f"mine.{suffix}"), "filename": f"mine.{suffix}", "sha256": sha256, "size": 7}
    assert find_dataset("mine", [tmp_path]) == expected
    for name in ("other", "../mine", "*"):
        with pytest.raises(IngestError, match=r"not on this server \(there: mine\)"):
            find_dataset(name, [tmp_path])


def test_a_dataset_that_was_not_fetched(tmp_path, capsys, example):
    (tmp_path / "spec.json").write_text(json.dumps({"data": {"format": None, "dataset": "cifar10", **OPTIONS}}))
    checkpoint = {"path": str(example / "checkpoint.pt"), "filename": "c.pt", "sha256": "", "size": 1}
    request = {"checkpoint": checkpoint, "data": None, "datasets": [str(tmp_path)]}
    (tmp_path / "ingest.json").write_text(json.dumps(request))
    assert main([str(tmp_path)]) == 64
    failure = json.loads(capsys.readouterr().out)
    assert failure["code"] == "dataset_missing"
    assert failure["hint"] == "temperd datasets fetch cifar10"
