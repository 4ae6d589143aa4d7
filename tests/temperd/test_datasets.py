"""Named datasets: kept as torchvision's own readers read them, prepared by ingest, whole or not at all."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import json
import os
import pickle
import struct
import tarfile
import threading
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import typer
from PIL import Image
from scipy.io import savemat
from torchvision import datasets, transforms
from typer.testing import CliRunner

from ingest.__main__ import main as ingest
from ingest.datasets import available, find_dataset
from jobs.datasets import DATASETS
from jobs.settings import Settings
from temperd.__main__ import app
from temperd.datasets import fetch_dataset

RUNNER = CliRunner()
CIFAR10 = Path(__file__).parents[1] / "data" / "cifar10" / "images.npz"


@pytest.fixture(scope="module")
def colour():
    """300 real images, (n, 32, 32, 3)."""
    with np.load(CIFAR10) as data:
        return data["x"]


def save(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def arrays_of(train, test):
    return {"x_train": train[0], "y_train": train[1], "x_test": test[0], "y_test": test[1]}


# --- sources, as torchvision keeps them; where it knows the real files' MD5, it is told those of ours


def idx_source(root, reader, arrays):
    """The file format of MNIST and Fashion-MNIST."""
    for split, name in (("train", "train"), ("test", "t10k")):
        for array, what in ((arrays[f"x_{split}"], "images-idx3"), (arrays[f"y_{split}"], "labels-idx1")):
            header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            save(root / reader / "raw" / f"{name}-{what}-ubyte", header + array.tobytes())


def cifar_source(root, reader, key, images, labels, monkeypatch):
    """Pickled rows of 3072 bytes, all red values first; the last file is the test split."""
    files = [name for name, _ in reader.train_list + reader.test_list]
    folder = root / reader.base_folder
    for n, name in enumerate(files):
        rows = images[n::6].transpose(0, 3, 1, 2).reshape(-1, 3072)
        save(folder / name, pickle.dumps({"data": rows, key: labels[n::6]}))
    save(folder / reader.meta["filename"], pickle.dumps({reader.meta["key"]: ["a", "b"]}))
    sums = [[name, md5(folder / name)] for name in files]
    monkeypatch.setattr(reader, "train_list", sums[:-1])
    monkeypatch.setattr(reader, "test_list", sums[-1:])
    monkeypatch.setattr(reader, "meta", {**reader.meta, "md5": md5(folder / reader.meta["filename"])})
    parts = [np.arange(300)[n::6] for n in range(len(files))]
    return arrays_of(*((images[ids], np.array(labels)[ids]) for ids in (np.concatenate(parts[:-1]), parts[-1])))


def svhn_source(root, images, monkeypatch):
    """Matlab files, (32, 32, 3, n), in which the digit 0 is called 10."""
    labels = np.arange(300) % 10
    root.mkdir()
    for split, part in (("train", slice(0, 200)), ("test", slice(200, 300))):
        x, y = images[part].transpose(1, 2, 3, 0), np.where(labels == 0, 10, labels)[part, None].astype(np.uint8)
        savemat(root / f"{split}_32x32.mat", {"X": x, "y": y})
        row = datasets.SVHN.split_list[split]
        monkeypatch.setitem(datasets.SVHN.split_list, split, [*row[:2], md5(root / row[1])])
    return arrays_of((images[:200], labels[:200]), (images[200:], labels[200:]))


def image_tree(root, images, classes, splits=("train", "val")):
    """Real images enlarged to sizes that vary, as JPEG; one is a PNG in disguise, one has an upper-case ending."""
    for n, image in enumerate(images[: 12 * len(splits)]):
        split, label = splits[n % len(splits)], classes[n // len(splits) % len(classes)]
        file, size = io.BytesIO(), (40 + 3 * (n % 7), 40 + 5 * (n % 5))
        Image.fromarray(image).resize(size).save(file, "PNG" if n == 3 else "JPEG")
        save(root / split / label / f"{label}_{n}.{'JPEG' if n % 2 else 'jpeg'}", file.getvalue())
    return root


IDS = ["n01440764", "n02102040", "n02979186"]  # as Imagenette has them


@pytest.fixture
def imagenette(tmp_path, colour):
    root = tmp_path / "source" / "imagenette2"
    image_tree(root, colour, IDS)
    save(root / "noisy_imagenette.csv", b"path,label")
    return root.parent


@pytest.fixture
def imagenet(tmp_path, colour):
    return image_tree(tmp_path / "source", colour, IDS)


# --- arrays


def check_arrays(path, expected):
    with np.load(path) as kept:
        assert set(kept) == set(expected)
        for key, array in expected.items():
            assert kept[key].dtype == np.uint8
            assert np.array_equal(kept[key], array)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(("name", "reader"), [("fashion-mnist", "FashionMNIST"), ("mnist", "MNIST")])
def test_grey_digits_and_clothes(name, reader, tmp_path, arrays):
    idx_source(tmp_path / "source", reader, arrays)
    command = ["datasets", "fetch", name, "--data-dir", str(tmp_path / "d"), "--source", str(tmp_path / "source")]
    result = RUNNER.invoke(app, command)
    assert result.exit_code == 0, result.output
    check_arrays(tmp_path / "d" / "datasets" / f"{name}.npz", arrays)


@pytest.mark.parametrize(
    ("name", "reader", "key", "classes"),
    [("cifar10", datasets.CIFAR10, "labels", 10), ("cifar100", datasets.CIFAR100, "fine_labels", 100)],
)
def test_cifar(name, reader, key, classes, tmp_path, colour, monkeypatch):
    labels = [n % classes for n in range(300)]
    expected = cifar_source(tmp_path / "source", reader, key, colour, labels, monkeypatch)
    check_arrays(fetch_dataset(name, tmp_path / "kept", tmp_path / "source"), expected)


def test_svhn(tmp_path, colour, monkeypatch):
    expected = svhn_source(tmp_path / "source", colour, monkeypatch)
    check_arrays(fetch_dataset("svhn", tmp_path / "kept", tmp_path / "source"), expected)


# --- image folders


def run_ingest(tmp_path, example, name, **options):
    """What a job that names the dataset does first; returns the exit status and the folder of its arrays."""
    root = tmp_path / "work"
    root.mkdir(exist_ok=True)
    data = {"format": None, "dataset": name, "resize": None, "crop": None, "interpolation": "bilinear", **options}
    (root / "spec.json").write_text(json.dumps({"data": data}))
    checkpoint = {"path": str(example / "checkpoint.pt"), "filename": "checkpoint.pt", "sha256": "", "size": 1}
    request = {"checkpoint": checkpoint, "data": None, "datasets": [str(tmp_path / "kept")]}
    (root / "ingest.json").write_text(json.dumps(request))
    return ingest([str(root)]), root / "input"


def prepare(tmp_path, example, name):
    """The folder of the arrays, and the manifest."""
    status, folder = run_ingest(tmp_path, example, name, resize=36, crop=32)
    assert status == 0
    return folder, json.loads((folder / "data.json").read_text())


def check_prepared(folder, train, test):
    """Every pixel and label is torchvision's."""
    scale = transforms.Compose([transforms.Resize(36), transforms.CenterCrop(32)])
    for split, images in (("train", train), ("test", test)):
        x, y = (np.load(folder / f"{letter}_{split}.npy") for letter in "xy")
        assert len(x) == len(images)
        for row, (image, label) in enumerate(images):
            assert np.array_equal(x[row].transpose(1, 2, 0), np.asarray(scale(image)))
            assert y[row] == label


def test_imagenette(tmp_path, imagenette, example):
    path = fetch_dataset("imagenette", tmp_path / "kept", imagenette)
    assert [entry.name for entry in path.parent.iterdir()] == ["imagenette.zip"]
    folder, manifest = prepare(tmp_path, example, "imagenette")
    assert manifest["source"]["filename"] == "imagenette.zip"
    assert manifest["source"]["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert manifest["class_names"] == IDS
    # the real reader finds .jpeg only, in either case
    check_prepared(folder, *(datasets.Imagenette(imagenette, split=split) for split in ("train", "val")))


def test_imagenet_is_a_folder_of_ones_own(tmp_path, imagenet, example):
    command = ["datasets", "fetch", "imagenet", "--data-dir", str(tmp_path), "--source", str(imagenet)]
    result = RUNNER.invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "3 classes, 12 train images and 12 val images" in result.output
    (tmp_path / "datasets").rename(tmp_path / "kept")
    folder, _ = prepare(tmp_path, example, "imagenet")
    check_prepared(folder, *(datasets.ImageFolder(imagenet / split) for split in ("train", "val")))


def test_the_validation_split_is_enough_to_evaluate(tmp_path, colour, example):
    root = image_tree(tmp_path / "source", colour, IDS, splits=("val",))
    fetch_dataset("imagenet", tmp_path / "kept", root)
    _, manifest = prepare(tmp_path, example, "imagenet")
    assert manifest["counts"] == {"test": 12}


def test_images_that_vary_in_size_need_resize_and_crop(tmp_path, imagenet, example, capsys):
    fetch_dataset("imagenet", tmp_path / "kept", imagenet)
    status, _ = run_ingest(tmp_path, example, "imagenet")
    assert status == 64
    failure = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert failure["code"] == "data_shape"
    assert "data.resize and data.crop" in failure["hint"]
    assert all("data.resize and data.crop" in DATASETS[name].title for name in ("imagenet", "imagenette"))


@pytest.mark.parametrize("name", ["fashion-mnist", "imagenet"])
def test_the_same_source_gives_the_same_bytes(name, tmp_path, colour, arrays):
    idx_source(tmp_path / "source", "FashionMNIST", arrays)
    image_tree(tmp_path / "source", colour, IDS)
    first, second = (fetch_dataset(name, tmp_path / key, tmp_path / "source") for key in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:  # no file's age is in it
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


# --- downloads, from a server of our own


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def web(tmp_path, monkeypatch):
    """A folder and the address under which it is served."""
    folder = tmp_path / "web"
    folder.mkdir()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield folder, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def archive(path, source):
    with tarfile.open(path, "w:gz") as tar:
        for entry in source.iterdir():
            tar.add(entry, entry.name)
    return md5(path)


def test_cifar100_is_downloaded_and_nothing_else_stays(tmp_path, colour, monkeypatch, web):
    folder, address = web
    expected = cifar_source(tmp_path / "s", datasets.CIFAR100, "fine_labels", colour, [*range(100)] * 3, monkeypatch)
    checksum = archive(folder / datasets.CIFAR100.filename, tmp_path / "s")
    monkeypatch.setattr(datasets.CIFAR100, "url", f"{address}/{datasets.CIFAR100.filename}")
    monkeypatch.setattr(datasets.CIFAR100, "tgz_md5", checksum)
    check_arrays(fetch_dataset("cifar100", tmp_path / "kept", None), expected)


def test_imagenette_is_downloaded_and_nothing_else_stays(tmp_path, imagenette, monkeypatch, web):
    folder, address = web
    checksum = archive(folder / "imagenette2.tgz", imagenette)
    monkeypatch.setitem(datasets.Imagenette._ARCHIVES, "full", (f"{address}/imagenette2.tgz", checksum))
    path = fetch_dataset("imagenette", tmp_path / "kept", None)
    assert list((tmp_path / "kept").iterdir()) == [path]
    assert path.read_bytes() == fetch_dataset("imagenette", tmp_path / "other", imagenette).read_bytes()


@pytest.mark.parametrize("fault", ["damaged", "absent"])
def test_a_download_that_fails(fault, tmp_path, monkeypatch, web):
    folder, address = web
    if fault == "damaged":
        save(folder / "imagenette2.tgz", b"half a fi")
    monkeypatch.setitem(datasets.Imagenette._ARCHIVES, "full", (f"{address}/imagenette2.tgz", "0" * 32))
    with pytest.raises(typer.BadParameter, match="imagenette cannot be downloaded; --source takes a folder"):
        fetch_dataset("imagenette", tmp_path / "kept", None)
    assert list((tmp_path / "kept").iterdir()) == []


# --- refusals


def test_an_unknown_name_is_answered_with_the_known_ones(tmp_path):
    command = ["datasets", "fetch", "fashon", "--data-dir", str(tmp_path)]
    result = RUNNER.invoke(app, command)
    assert result.exit_code == 2
    assert all(name in result.output for name in DATASETS)
    assert list(tmp_path.iterdir()) == []


def test_imagenet_cannot_be_downloaded(tmp_path):
    with pytest.raises(typer.BadParameter, match="imagenet cannot be downloaded freely") as error:
        fetch_dataset("imagenet", tmp_path / "kept", None)
    assert error.value.param_hint == "--source"
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize("name", DATASETS)
def test_a_source_without_the_dataset_is_left_alone(name, tmp_path):
    """Nothing is downloaded into the user's folder."""
    source = tmp_path / "source"
    save(source / "notes.txt", b"not a dataset")
    with pytest.raises(typer.BadParameter, match=f"{name} cannot be read from"):
        fetch_dataset(name, tmp_path / "kept", source)
    assert [path.name for path in source.rglob("*")] == ["notes.txt"]
    assert list((tmp_path / "kept").iterdir()) == []


FAULTS = {
    "no val": (lambda root: (root / "val").rename(root / "test"), "there is no folder .*val"),
    "flat": (lambda root: [p.rename(root / "val" / p.name) for p in (root / "val").glob("*/*")], "no valid file"),
    "one class more": (lambda root: save(root / "train" / "n09" / "1.png", b"x"), "different classes.* n09"),
    "no image": (lambda root: save(root / "val" / IDS[0] / "x.png", b"text"), "x.png is no image of the formats PNG"),
    "other format": (lambda root: Image.new("L", (9, 9)).save(root / "train" / IDS[0] / "x.tif"), "x.tif is no image"),
}


@pytest.mark.parametrize(("spoil", "words"), FAULTS.values(), ids=FAULTS)
def test_a_folder_that_is_refused_replaces_nothing(spoil, words, tmp_path, imagenet):
    kept = fetch_dataset("imagenet", tmp_path / "kept", imagenet)
    before = kept.read_bytes()
    spoil(imagenet)
    with pytest.raises(typer.BadParameter, match=words):
        fetch_dataset("imagenet", tmp_path / "kept", imagenet)
    assert list((tmp_path / "kept").iterdir()) == [kept]
    assert kept.read_bytes() == before


def test_what_the_disk_cannot_hold(tmp_path, imagenet, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(typer.BadParameter, match="GB are free where datasets are kept"):
        fetch_dataset("imagenet", tmp_path / "kept", imagenet)
    assert list((tmp_path / "kept").iterdir()) == []


def test_folders_of_the_operators_come_after_what_was_fetched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TEMPER_DATASETS", f"/mnt/one{os.pathsep}two{os.pathsep}")
    folders = Settings(data_dir=Path("data")).dataset_folders
    assert folders == [tmp_path / "data" / "datasets", Path("/mnt/one"), tmp_path / "two"]


def test_what_lies_in_a_folder_is_there_by_name(tmp_path):
    files = ("a.npz", "b.zip", "c.tar", "d.tar.gz", "e.parquet", "F_1.tgz")
    for name in (*files, "notes.txt", ".hidden.zip"):
        save(tmp_path / "one" / name, b"")
    save(tmp_path / "two" / "photos" / "cat" / "1.png", b"x")
    save(tmp_path / "two" / "a.zip", b"later")
    (tmp_path / "one" / ".fetch-x").mkdir()
    folders = [tmp_path / "none", tmp_path / "one", tmp_path / "two"]
    assert set(available(folders)) == {"a", "b", "c", "d", "e", "F_1", "photos"}
    assert find_dataset("a", folders)["filename"] == "a.npz"
    photos = find_dataset("photos", folders)
    assert (photos["path"], photos["size"]) == (str(tmp_path / "two" / "photos"), 1)
    line = f"{hashlib.sha256(b'x').hexdigest()}  cat/1.png\n".encode()
    assert photos["sha256"] == hashlib.sha256(line).hexdigest()
