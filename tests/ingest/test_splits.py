"""Which images train and which test, and what the manifest says of equal ones."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from ingest.data import prepare_data
from ingest.errors import IngestError
from ingest.splits import split_of_shard
from tests.hostile.archives import tarred, zipped
from tests.hostile.data import npz
from tests.hostile.images import png, tree

OPTIONS = {"format": None, "resize": None, "crop": None, "interpolation": "bilinear"}
RNG = np.random.default_rng(5)


def prepare(folder, content: bytes, name="data.zip") -> dict:
    (folder / name).write_bytes(content)
    target = folder / "input"
    target.mkdir(exist_ok=True)
    prepare_data({"filename": name}, folder / name, target, OPTIONS)
    return json.loads((target / "data.json").read_text())


def stored(folder, split) -> tuple[np.ndarray, np.ndarray]:
    return np.load(folder / "input" / f"x_{split}.npy"), np.load(folder / "input" / f"y_{split}.npy")


def rows(x) -> list[bytes]:
    return [hashlib.sha256(row.tobytes()).digest() for row in x]


def labelled(count=100, classes=5):
    return RNG.integers(0, 256, (count, 9, 8), np.uint8), np.arange(count) % classes


def test_one_split_is_divided_by_class(tmp_path):
    x, y = labelled()
    manifest = prepare(tmp_path, npz({"x": x, "y": y}), "data.npz")
    assert manifest["stratified"]
    assert manifest["counts"] == {"train": 80, "test": 20}
    assert manifest["per_class"] == {"train": [16] * 5, "test": [4] * 5}
    whole = dict(zip(rows(x), y.tolist(), strict=True))
    found = []
    for split in ("train", "test"):
        values, labels = stored(tmp_path, split)
        found += rows(values)
        assert [whole[row] for row in rows(values)] == labels.tolist()
    assert sorted(found) == sorted(whole)


def test_the_same_data_is_divided_in_the_same_way(tmp_path):
    x, y = labelled()
    tests = []
    for number, job_seed in enumerate((0, 1)):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "spec.json").write_text(json.dumps({"seed": job_seed}))
        prepare(folder, npz({"x_train": x, "y_train": y}), "data.npz")
        tests.append(rows(stored(folder, "test")[0]))
    assert tests[0] == tests[1]
    assert tests[0] != rows(x[:20][:, None])  # drawn, not cut off


def test_equal_images_stay_on_one_side(tmp_path):
    x, y = labelled(50)
    x, y = np.concatenate([x, x, x]), np.concatenate([y, y, y])
    manifest = prepare(tmp_path, npz({"x": x, "y": y}), "data.npz")
    assert manifest["leaks"] == 0
    assert manifest["duplicates"] == {"train": 80, "test": 20}


def test_equal_images_are_counted(tmp_path):
    x, y = labelled(40)
    arrays = {"x_train": np.concatenate([x, x[:7]]), "y_train": np.concatenate([y, y[:7]])}
    arrays |= {"x_test": np.concatenate([x[:3], 255 - x[:6], 255 - x[:2]]), "y_test": np.arange(11) % 5}
    manifest = prepare(tmp_path, npz(arrays), "data.npz")
    assert manifest["duplicates"] == {"train": 7, "test": 2}
    assert manifest["leaks"] == 3
    members = tree()
    members["test/cat/again.png"] = members["train/cat/0.png"]
    assert prepare(tmp_path, zipped(members))["leaks"] == 1


def test_val_is_the_test_split_where_there_is_none(tmp_path):
    members = tree(splits=("train", "val"))
    manifest = prepare(tmp_path, zipped(members))
    assert manifest["counts"] == {"train": 8, "test": 8}
    assert manifest["left_out"] == {}
    manifest = prepare(tmp_path, zipped({**members, **tree(splits=("test",), count=3)}))
    assert manifest["counts"] == {"train": 8, "test": 6}
    assert manifest["left_out"] == {"val": 8}


def test_arrays_are_not_resized(tmp_path):
    (tmp_path / "data.npz").write_bytes(npz({"x": labelled()[0], "y": labelled()[1]}))
    with pytest.raises(IngestError, match=r"data\.resize and data\.crop are for image files"):
        prepare_data({"filename": "data.npz"}, tmp_path / "data.npz", tmp_path, {**OPTIONS, "crop": 8})


def test_test_alone_is_not_divided(tmp_path):
    assert prepare(tmp_path, zipped(tree(splits=("test",))))["counts"] == {"test": 8}


def test_classes_without_splits_are_the_folders_below_what_all_share(tmp_path):
    members = tree("archive/pets/", splits=("",), classes=("cat/a", "cat/b", "dog"))
    manifest = prepare(tmp_path, tarred(members), "data.tar")
    assert manifest["class_names"] == ["cat", "dog"]
    assert [sum(manifest["per_class"][split][0] for split in ("train", "test"))] == [8]


def test_a_class_with_one_image_cannot_be_divided(tmp_path):
    members = {**tree(splits=("",)), "fish/1.png": png(77), "fish/2.png": png(77)}
    with pytest.raises(IngestError, match=r"class 2 of data\.zip has one image only"):
        prepare(tmp_path, zipped(members))


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000-of-00005.parquet", "train"),
        ("data/validation-0.parquet", "val"),
        ("imagenet-val-000001.tar", "val"),
        ("test/0001.tar", "test"),
        ("Testing.parquet", "test"),
        ("latest.parquet", "all"),
        ("0001.tar", "all"),
    ],
)
def test_splits_of_shards(name, split):
    assert split_of_shard(name) == split
