"""Honest data, as real tools write it and real users send it."""

from __future__ import annotations

import io
import json
import tarfile
import unicodedata
import zipfile
from typing import Any

import numpy as np
import pyarrow
from PIL import Image, TiffImagePlugin

from tests.hostile import archives as a
from tests.hostile.data import npz
from tests.hostile.entry import Honest, having
from tests.hostile.images import encoded, picture, png, raw_png, tree
from tests.hostile.parquets import table, written


def entries() -> list[Honest]:
    """All of them."""
    return [*_folders(), *_kinds_of_images(), *_arrays(), *_shards(), *_to_mend()]


def _accepted(name: str, filename: str, content: bytes, **options: Any) -> Honest:
    return Honest(name, filename, having(content), "data", options=options)


def _folders() -> list[Honest]:
    mac = {**tree("pets/"), "__MACOSX/pets/train/cat/._0.png": b"\0\5\x16\7", "pets/.DS_Store": b"\0\0\0\1Bud1"}
    upper = {name.replace(".png", ".PNG"): content for name, content in tree().items()}
    windows = [a.entry(name.replace("/", "\\").encode(), content) for name, content in tree("Bilder/").items()]
    decomposed = {
        unicodedata.normalize("NFD", name): each for name, each in tree(classes=("Äpfel", "Hündchen")).items()
    }
    notes = {"README.md": b"# Pets", "LICENSE": b"MIT", "train/labels.csv": b"0,cat", "Thumbs.db": b"x"}
    empty = {"data/": b"", "data/train/": b"", "data/train/cat/": b"", "data/train/cat/old/": b"", "data/models/": b""}
    streamed = io.BytesIO()
    with zipfile.ZipFile(_Unseekable(streamed), "w") as archive:  # as `zip -r - folder` in a pipe
        for name, content in tree().items():
            archive.writestr(name, content, zipfile.ZIP_DEFLATED)
    return [
        _accepted("zip-from-macos", "pets.zip", a.zipped(mac, zipfile.ZIP_DEFLATED)),
        _accepted("zip-uppercase-endings", "pets.zip", a.zipped(upper)),
        _accepted("zip-from-windows-with-backslashes", "Bilder.zip", a.bare_zip(*windows)),
        _accepted("zip-with-two-folders-around", "pets.zip", a.zipped(tree("data/pets/"))),
        _accepted("zip-with-val-in-place-of-test", "pets.zip", a.zipped(tree(splits=("train", "val")))),
        _accepted("zip-with-train-val-and-test", "pets.zip", a.zipped(tree(splits=("train", "val", "test")))),
        _accepted("zip-with-capital-splits", "pets.zip", a.zipped(tree(splits=("Train", "Test")))),
        _accepted("zip-of-classes-without-splits", "pets.zip", a.zipped(tree("pets/", splits=("",)))),
        _accepted("zip-of-train-alone", "pets.zip", a.zipped(tree(splits=("train",)))),
        _accepted("zip-of-test-alone", "pets.zip", a.zipped(tree(splits=("test",)))),
        _accepted("zip-with-nested-empty-folders", "data.zip", a.zipped({**empty, **tree("data/")})),
        _accepted("zip-with-notes-beside", "pets.zip", a.zipped({**tree(), **notes})),
        _accepted("zip-unicode-classes", "obst.zip", a.zipped(decomposed)),
        _accepted("zip-classes-with-spaces", "pets.zip", a.zipped(tree(classes=("tabby cat", "dog (large)")))),
        _accepted("zip-written-to-a-pipe", "pets.zip", streamed.getvalue()),
        _accepted("zip-folders-below-the-class", "pets.zip", a.zipped(tree(classes=("cat/indoor", "dog/outdoor")))),
        _accepted("tar-of-the-current-folder", "pets.tar", a.tarred(tree("./"))),
        _accepted("tar-gz", "pets.tar.gz", a.tarred(tree("pets/"), "w:gz")),
        _accepted("tar-xz", "pets.tar.xz", a.tarred(tree("pets/"), "w:xz")),
        _accepted("tar-bz2", "pets.tar.bz2", a.tarred(tree("pets/"), "w:bz2")),
        _accepted("tar-zst", "pets.tar.zst", pyarrow.compress(a.tarred(tree()), "zstd", asbytes=True)),
        _accepted("tar-old-gnu-with-long-names", "pets.tar", a.tarred(tree("p" * 120 + "/"), form=tarfile.GNU_FORMAT)),
        _accepted("tar-posix-with-long-unicode-names", "pets.tar", a.tarred(tree("ä" * 120 + "/"))),
        _accepted("tar-from-macos", "pets.tar", a.tarred({"./._train": b"\0\5\x16\7", **tree("./")})),
    ]


class _Unseekable(io.RawIOBase):
    def __init__(self, file: io.BytesIO) -> None:
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        return self._file.write(content)


def _kinds_of_images() -> list[Honest]:
    def with_one(name: str, image: bytes, **options: Any) -> Honest:
        return _accepted(f"image-{name}", "pets.zip", a.zipped({**tree(), "train/cat/x.png": image}), **options)

    rotated = Image.Exif()
    rotated[0x0112] = 6
    with_gps = Image.Exif()
    with_gps[0x8825] = {1: "N", 2: (TiffImagePlugin.IFDRational(1, 2),) * 3}
    palette = picture(5).quantize(16)
    grey = {name: png(n, "L") for n, name in enumerate(tree())}
    photos = {name.replace(".png", ".jpeg"): encoded(picture(n, size=(300 + n, 200)), "JPEG") for n, name in
              enumerate(tree())}  # fmt: skip
    return [
        with_one("palette", encoded(palette)),
        with_one("palette-transparent", encoded(palette, transparency=3)),
        with_one("palette-of-one-bit", encoded(picture(5).quantize(2), bits=1)),
        with_one("grey-among-colour", png(5, "L")),
        with_one("grey-of-two-bits", raw_png(12, 10, depth=2)),
        with_one("alpha", png(5, "RGBA")),
        with_one("grey-with-alpha", png(5, "LA")),
        with_one("black-and-white", png(5, "1")),
        with_one("interlaced", raw_png(12, 10, colour=2)),
        with_one("jpeg-called-png", encoded(picture(5), "JPEG")),
        with_one("jpeg-progressive", encoded(picture(5), "JPEG", progressive=True)),
        with_one("jpeg-grey", encoded(picture(5, "L"), "JPEG")),
        with_one("jpeg-cmyk", encoded(picture(5, "CMYK"), "JPEG")),
        with_one("jpeg-exif-rotated", encoded(picture(5), "JPEG", exif=rotated)),
        with_one("jpeg-of-a-phone-with-gps", encoded(picture(5), "JPEG", exif=with_gps)),
        with_one("webp", encoded(picture(5), "WEBP")),
        with_one("webp-lossless-with-alpha", encoded(picture(5, "RGBA"), "WEBP", lossless=True)),
        with_one("png-with-text-and-resolution", encoded(picture(5), dpi=(72, 72), icc_profile=b"x" * 500)),
        _accepted("images-all-grey", "digits.zip", a.zipped(grey)),
        _accepted("images-grey-but-the-last", "digits.zip", a.zipped({**grey, "train/cat/z.png": png(99)})),
        _accepted("photos-of-many-sizes-resized", "photos.zip", a.zipped(photos), resize=64, crop=64),
    ]


def _arrays() -> list[Honest]:
    rng = np.random.default_rng(3)
    x, y = rng.integers(0, 256, (40, 12, 11, 3), np.uint8), np.arange(40) % 4

    def sent(x: Any = x, y: Any = y) -> dict[str, Any]:
        return {"x_train": x[:30], "y_train": y[:30], "x_test": x[30:], "y_test": y[30:]}

    plain = io.BytesIO()
    np.savez(plain, **sent())
    medical = {"train_images": x[:20], "train_labels": y[:20, None], "val_images": x[20:30],
               "val_labels": y[20:30, None], "test_images": x[30:], "test_labels": y[30:, None]}  # fmt: skip
    return [
        _accepted("npz-stored", "data.npz", plain.getvalue()),
        _accepted("npz-compressed", "data.npz", npz(sent())),
        _accepted("npz-grey-without-channels", "data.npz", npz(sent(x[..., 0]))),
        _accepted("npz-floats", "data.npz", npz(sent(x / 255))),
        _accepted("npz-half-precision", "data.npz", npz(sent((x / 255).astype(np.float16)))),
        _accepted("npz-fortran-order", "data.npz", npz(sent(np.asfortranarray(x), y))),
        _accepted("npz-labels-of-one-column", "data.npz", npz(sent(y=y[:, None]))),
        _accepted("npz-labels-of-uint8", "data.npz", npz(sent(y=y.astype(np.uint8)))),
        _accepted("npz-labels-big-endian", "data.npz", npz(sent(y=y.astype(">i4")))),
        _accepted("npz-capital-names", "data.npz", npz({name.title(): value for name, value in sent().items()})),
        _accepted("npz-as-medmnist-has-it", "pathmnist.npz", npz(medical)),
        _accepted("npz-one-split", "data.npz", npz({"x": x, "y": y})),
        _accepted("npz-train-alone", "data.npz", npz({"x_train": x, "y_train": y})),
        _accepted("npz-test-alone", "data.npz", npz({"x_test": x, "y_test": y})),
    ]


def _shards() -> list[Honest]:
    labels = [n % 2 for n in range(20)]
    named = table(labels, names=["cat", "dog"])
    plain = pyarrow.table({"img": [png(n) for n in range(20)], "fine_label": labels, "coarse_label": labels})
    text = table([["cat", "dog"][n] for n in labels])
    category = pyarrow.table({"image": text["image"], "label": text["label"].dictionary_encode()})
    shards = {
        f"data/{split}-0000{n}-of-00002.parquet": written(
            table(labels, [png(start + k) for k in range(20)], ["cat", "dog"])
        )
        for start, (split, n) in enumerate((split, n) for split in ("train", "test") for n in range(2))
    }

    def samples(start: int = 0, count: int = 20, *, where: str = "", field: str = "") -> dict[str, bytes]:
        found = {}
        for n in range(start, start + count):
            found[f"{where}{n:05}.jpg"] = encoded(picture(n), "JPEG")
            label = json.dumps({field: n % 2, "caption": "a cat"}) if field else f"{n % 2}\n"
            found[f"{where}{n:05}.{'json' if field else 'cls'}"] = label.encode()
        return found

    tars = {f"train-{n:06}.tar": a.tarred(samples(20 * n)) for n in range(2)} | {
        "val-000000.tar": a.tarred(samples(90))
    }
    return [
        _accepted("parquet-of-hugging-face", "train.parquet", written(named)),
        _accepted("parquet-of-plain-bytes", "cifar.parquet", written(plain)),
        _accepted("parquet-labels-as-text", "pets.parquet", written(text)),
        _accepted("parquet-labels-as-categories", "pets.parquet", written(category)),
        _accepted("parquet-small-row-groups", "pets.parquet", written(named, row_group_size=3, compression="zstd")),
        _accepted("parquet-shards-in-a-zip", "dataset.zip", a.zipped(shards)),
        _accepted("parquet-shards-in-a-tar", "dataset.tar", a.tarred(shards)),
        _accepted("webdataset", "pets.tar", a.tarred(samples())),
        _accepted("webdataset-with-json", "pets.tar", a.tarred(samples(field="label"))),
        _accepted(
            "webdataset-by-folders", "pets.tar", a.tarred({**samples(where="train/"), **samples(50, where="val/")})
        ),
        _accepted("webdataset-shards-in-a-zip", "pets.zip", a.zipped(tars)),
        _accepted("webdataset-shards-in-a-tar", "pets.tar", a.tarred(tars)),
    ]


def _to_mend() -> list[Honest]:
    x, y = np.zeros((20, 10, 9, 3), np.uint8), np.arange(20) % 2

    def refused(name: str, filename: str, content: bytes, code: str, hint: str) -> Honest:
        return Honest(name, filename, having(content), "data", code, hint)

    def arrays(x: Any = x, y: Any = y) -> bytes:
        return npz({"x_train": x, "y_train": y, "x_test": x, "y_test": y})

    def with_one(image: bytes) -> bytes:
        return a.zipped({**tree(), "train/cat/x.png": image})

    shape, labels, form, image = "data_shape", "labels_invalid", "data_format", "image_invalid"
    unsafe = "archive_unsafe"
    link = a.tar_header(b"train/cat/1.png", 0, b"2", b"../../1.png") + bytes(1024)
    deep = Image.fromarray(np.zeros((10, 12), np.uint16))
    sizes = {**tree(), "train/cat/x.png": png(size=(50, 40))}
    classes = {**tree(splits=("train",)), **tree(splits=("test",), classes=("cat",))}
    return [
        refused(f"mend-{name}", filename, content, code, hint)
        for name, (filename, content, code, hint) in {
            "channels-first": ("x.npz", arrays(x.transpose(0, 3, 1, 2)), shape, "np.transpose(x_train, (0, 2, 3, 1))"),
            "one-hot": ("x.npz", arrays(y=np.eye(2)[y]), labels, "y_train.argmax(axis=1)"),
            "labels-as-floats": ("x.npz", arrays(y=y.astype(float)), labels, "y_train.astype(np.int64)"),
            "pixels-to-255-as-floats": ("x.npz", arrays(x + 200.0), "pixels_out_of_range", "x_train / 255"),
            "pixels-as-int64": ("x.npz", arrays(x.astype(int)), shape, "x_train.astype(np.uint8)"),
            "labels-from-one": ("x.npz", arrays(y=y + 1), labels, "subtract the smallest"),
            "names-of-arrays": ("x.npz", npz({"features": x, "targets": y}), form, "x_train=..., y_train=..."),
            "many-sizes": ("pets.zip", a.zipped(sizes), shape, "data.resize"),
            "16-bits": ("scans.zip", with_one(encoded(deep)), image, "-depth 8"),
            "gif": ("pets.zip", with_one(encoded(picture(), "GIF")), image, ".save('image.png')"),
            "images-without-classes": ("pets.zip", a.zipped({f"{n}.png": png(n) for n in range(9)}), form, "a class"),
            "classes-that-differ": ("pets.zip", a.zipped(classes), labels, "same classes"),
            "npz-in-a-zip": ("data.zip", a.zipped({"data.npz": arrays()}), form, "send data.npz itself"),
            "encrypted-zip": (
                "pets.zip",
                a.bare_zip(a.entry(b"c/1.png", png(), flags=1)),
                unsafe,
                "without a password",
            ),
            "links-in-a-tar": ("pets.tar", link, unsafe, "--dereference"),
            "parquet-with-paths-alone": ("pets.parquet", written(table([0, 1], [None, None])), form, "not their paths"),
            "a-folder-as-rar": ("pets.rar", b"Rar!\x1a\7\1\0" + bytes(100), form, "zip or tar"),
        }.items()
    ]
