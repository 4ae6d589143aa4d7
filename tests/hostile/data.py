"""Hostile data: archives that lead elsewhere or never end, images that are none, arrays and labels that lie."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.hostile import archives as a
from tests.hostile.entry import Hostile, having
from tests.hostile.images import RNG, chunk, encoded, picture, png, raw_png, tree
from tests.hostile.parquets import parquets

_UNSAFE, _LARGE, _FORMAT, _IMAGE = "archive_unsafe", "upload_too_large", "data_format", "image_invalid"
_SHAPE, _LABELS, _PIXELS = "data_shape", "labels_invalid", "pixels_out_of_range"
Made = bytes | Callable[[], bytes]


def entries() -> list[Hostile]:
    """All of them."""
    return [
        *(_entry(name, "zip", content, code) for name, (content, code) in _zips().items()),
        *(_entry(name, "tar", content, code) for name, (content, code) in _tars().items()),
        *(_entry(name, "zip", _with(content), code) for name, (content, code) in _images().items()),
        *(_entry(name, "npz", content, code) for name, (content, code) in _arrays().items()),
        *(_entry(name, "parquet", content, code) for name, (content, code) in parquets().items()),
        *(_entry(name, "tar", content, code) for name, (content, code) in _samples().items()),
    ]


def _entry(name: str, suffix: str, content: Made, code: str) -> Hostile:
    return Hostile(name, f"data.{suffix}", having(content), code, "data")


def _zips() -> dict[str, tuple[Made, str]]:
    honest = [a.entry(name.encode(), content) for name, content in tree().items()]
    image = png()

    def named(*names: bytes) -> bytes:
        return a.bare_zip(*honest, *(a.entry(name, png(900 + n)) for n, name in enumerate(names)))

    def bomb(name: bytes) -> dict[str, object]:
        zeros = png() + bytes(60 << 20)
        return a.entry(b"train/cat/" + name, a.deflated(zeros), size=len(zeros), crc=zlib.crc32(zeros), method=8)

    many = a.entry(b"train/cat/quoted.png", bytes(60_000))
    inner = a.zipped(tree())
    for _ in range(5):
        inner = a.zipped({f"train/cat/{n}.zip": inner for n in range(3)}, zipfile.ZIP_DEFLATED)
    whole = a.zipped(tree())
    return {
        "zip-slip": (named(b"../../outside/1.png"), _UNSAFE),
        "zip-slip-in-the-middle": (named(b"train/cat/../../../1.png"), _UNSAFE),
        "zip-slip-with-backslashes": (named(b"train\\..\\..\\1.png"), _UNSAFE),
        "zip-absolute-name": (named(b"/etc/cron.d/1.png"), _UNSAFE),
        "zip-drive-letter": (named(b"C:\\Windows\\1.png"), _UNSAFE),
        "zip-name-with-nul": (named(b"train/cat/1.png\0.exe"), _UNSAFE),
        "zip-name-with-escape-codes": (named(b"train/cat/\x1b[2J.png"), _UNSAFE),
        "zip-name-of-a-megabyte": (named(b"train/cat/" + b"a" * 60_000), _UNSAFE),
        "zip-symlink": (
            a.bare_zip(*honest, a.entry(b"train/cat/link.png", b"/etc/passwd", mode=0o120777)),
            _UNSAFE,
        ),
        "zip-device": (a.bare_zip(*honest, a.entry(b"train/cat/null.png", b"", mode=0o020666)), _UNSAFE),
        "zip-fifo": (a.bare_zip(*honest, a.entry(b"train/cat/fifo.png", b"", mode=0o010666)), _UNSAFE),
        "zip-same-name-twice": (named(b"train/cat/x.png", b"train/cat/x.png"), _UNSAFE),
        "zip-names-differ-in-case": (named(b"train/cat/x.png", b"train/cat/X.PNG"), _UNSAFE),
        "zip-names-differ-in-normal-form": (
            named("train/cat/é.png".encode(), "train/cat/é.png".encode()),
            _UNSAFE,
        ),
        "zip-encrypted": (a.bare_zip(*honest, a.entry(b"train/cat/x.png", image, flags=1)), _UNSAFE),
        "zip-bomb": (lambda: a.bare_zip(*honest, bomb(b"x.png"), bomb(b"y.png")), _LARGE),
        "zip-bomb-of-one-gigabyte": (
            lambda: a.bare_zip(
                *honest, a.entry(b"train/cat/x.png", a.deflated(bytes(4 << 20)), size=1 << 30, crc=0, method=8)
            ),
            _LARGE,
        ),
        "zip-size-that-lies-low": (
            lambda: a.bare_zip(
                *honest, a.entry(b"train/cat/x.png", a.deflated(bytes(200 << 20)), size=1000, crc=0, method=8)
            ),
            _FORMAT,
        ),
        "zip-quoted-overlap": (
            a.bare_zip(
                many, *({**many, "name": b"train/cat/q%d.png" % n, "offset": 0, "quoted": True} for n in range(500))
            ),
            _UNSAFE,
        ),
        "zip-of-zips": (inner, _FORMAT),
        "zip-entry-outside": (a.bare_zip(*honest, a.entry(b"train/cat/x.png", image, offset=2**32 - 2)), _FORMAT),
        "zip-entry-in-the-directory": (
            a.bare_zip(*honest, {**a.entry(b"train/cat/x.png", image), "offset": 2500}),
            _FORMAT,
        ),
        "zip-wrong-checksum": (a.bare_zip(*honest, a.entry(b"train/cat/x.png", image, crc=1)), _FORMAT),
        "zip-method-of-the-future": (a.bare_zip(*honest, a.entry(b"train/cat/x.png", image, method=99)), _FORMAT),
        "zip-cut-off": (whole[: len(whole) // 2], _FORMAT),
        "zip-with-a-count-that-lies": (whole[:-12] + b"\xff\xff\xff\x7f" + whole[-8:], _FORMAT),
        "zip-empty": (a.bare_zip(), _FORMAT),
        "zip-a-class-folder-without-images": (a.zipped({**tree(), "train/fish/": b""}), _LABELS),
    }


def _tars() -> dict[str, tuple[Made, str]]:
    honest = a.tarred(tree(), form=tarfile.USTAR_FORMAT).rstrip(b"\0")
    honest = a.padded(honest)
    image = a.padded(png(900))
    size = len(png(900))

    def adding(*parts: bytes) -> bytes:
        return honest + b"".join(parts) + bytes(1024)

    def extended(records: bytes) -> bytes:
        return a.tar_header(b"pax", len(records), b"x") + a.padded(records)

    member = a.tar_header(b"train/cat/x.png", size) + image
    compressed = a.tarred(tree(), "w:gz")
    sparse = b"22 GNU.sparse.major=1\n" + b"22 GNU.sparse.minor=0\n" + b"31 GNU.sparse.realsize=9999999\n"
    return {
        "tar-slip": (adding(a.tar_header(b"../../x.png", size), image), _UNSAFE),
        "tar-slip-in-an-extended-header": (adding(extended(b"21 path=../../../x.p\n"), member), _UNSAFE),
        "tar-slip-in-a-long-name": (
            adding(a.tar_header(b"././@LongLink", 12, b"L"), a.padded(b"../../../x.p"), member),
            _UNSAFE,
        ),
        "tar-absolute-name": (adding(a.tar_header(b"/etc/x.png", size), image), _UNSAFE),
        "tar-symlink": (adding(a.tar_header(b"train/cat/x.png", 0, b"2", b"/etc/passwd")), _UNSAFE),
        "tar-hard-link": (adding(a.tar_header(b"train/cat/x.png", 0, b"1", b"/etc/shadow")), _UNSAFE),
        "tar-character-device": (adding(a.tar_header(b"train/cat/x.png", 0, b"3")), _UNSAFE),
        "tar-block-device": (adding(a.tar_header(b"train/cat/x.png", 0, b"4")), _UNSAFE),
        "tar-fifo": (adding(a.tar_header(b"train/cat/x.png", 0, b"6")), _UNSAFE),
        "tar-sparse": (adding(a.tar_header(b"train/cat/x.png", 0, b"S")), _UNSAFE),
        "tar-sparse-in-an-extended-header": (adding(extended(sparse), member), _UNSAFE),
        "tar-size-of-terabytes": (adding(a.tar_header(b"train/cat/x.png", b"\x80" + bytes(5) + b"\xff" * 6)), _FORMAT),
        "tar-negative-size": (adding(a.tar_header(b"train/cat/x.png", b"\xff" * 12)), _FORMAT),
        "tar-size-in-an-extended-header": (adding(extended(b"27 size=999999999999999999\n"), member), _FORMAT),
        "tar-extended-header-of-a-gigabyte": (
            lambda: a.gzip_of_zeros(1 << 30, honest + a.tar_header(b"pax", 1 << 30, b"x")),
            _UNSAFE,
        ),
        "tar-long-name-of-a-gigabyte": (
            lambda: a.gzip_of_zeros(1 << 30, honest + a.tar_header(b"././@LongLink", 1 << 30, b"L")),
            _UNSAFE,
        ),
        "tar-extended-header-without-length": (adding(extended(b"path=x\n"), member), _FORMAT),
        "tar-names-differ-in-case": (adding(member, a.tar_header(b"train/CAT/X.png", size), image), _UNSAFE),
        "tar-gzip-bomb": (
            lambda: a.gzip_of_zeros(1 << 30, a.tar_header(b"notes.txt", 1 << 30)),
            _LARGE,
        ),
        "tar-cut-off": (honest[: len(honest) - 700], _FORMAT),
        "tar-gzip-cut-off": (compressed[: len(compressed) * 2 // 3], _FORMAT),
        "tar-gzip-damaged": (compressed[:2000] + b"\0" * 50 + compressed[2050:], _FORMAT),
        "tar-wrong-checksum": (adding(member[:20] + b"y" + member[21:]), _FORMAT),
        "tar-xz-that-asks-for-gigabytes": (
            b"\xfd7zXZ\x00\x00\x04\xe6\xd6\xb4F\x02\x00!\x01\x28\x00\x00\x00\xb7\xc8\x23\x9e" + bytes(200),
            _FORMAT,
        ),
    }


def _with(image: bytes) -> bytes:
    return a.zipped({**tree(), "train/cat/x.png": image})


def _images() -> dict[str, tuple[bytes, str]]:
    two = [picture(n) for n in (1, 2)]
    text = zlib.compress(bytes(200 << 20), 9)
    jpeg = encoded(picture(3), "JPEG")
    scan = jpeg.index(b"\xff\xda")
    huge_exif = b"\xff\xe1\xff\xff" + b"Exif\0\0II*\0\x08\0\0\0" + b"\xff\xff" * 32_000
    exif = jpeg[:2] + huge_exif[: 2 + 0xFFFF] + jpeg[2:]
    return {
        "png-of-169-megapixels": (raw_png(13_000, 13_000), _LARGE),
        "png-of-4-billion-pixels-a-side": (raw_png(2**31 - 1, 2**31 - 1, data=b"x"), _LARGE),
        "png-without-width": (raw_png(0, 10, data=zlib.compress(b"")), _IMAGE),
        "png-of-one-pixel-in-height": (raw_png(12, 1, colour=2), _SHAPE),
        "png-of-16-bits-grey": (raw_png(12, 10, depth=16), _IMAGE),
        "png-of-16-bits-colour": (raw_png(12, 10, depth=16, colour=2), _IMAGE),
        "png-with-text-of-200-megabytes": (
            raw_png(12, 10, depth=4, before=chunk(b"zTXt", b"a\0\0" + text)),
            _IMAGE,
        ),
        "png-with-international-text-of-200-megabytes": (
            raw_png(12, 10, depth=4, before=chunk(b"iTXt", b"a\0\1\0\0\0" + text)),
            _IMAGE,
        ),
        "png-cut-off": (png()[:-60], _IMAGE),
        "png-without-data": (raw_png(12, 10, data=zlib.compress(b"")), _IMAGE),
        "png-with-a-wrong-checksum": (png()[:-30] + b"\0" + png()[-29:], _IMAGE),
        "png-animated": (encoded(two[0], "PNG", save_all=True, append_images=two[1:]), _IMAGE),
        "webp-animated": (encoded(two[0], "WEBP", save_all=True, append_images=two[1:]), _IMAGE),
        "webp-cut-off": (encoded(two[0], "WEBP")[:60], _IMAGE),
        "gif-called-png": (encoded(two[0], "GIF"), _IMAGE),
        "bmp-called-png": (encoded(two[0], "BMP"), _IMAGE),
        "tiff-called-png": (encoded(two[0], "TIFF"), _IMAGE),
        "ico-called-png": (encoded(picture(size=(16, 16)), "ICO"), _IMAGE),
        "svg-called-png": (b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', _IMAGE),
        "psd-called-png": (b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 10, 10, 8, 3) + bytes(400), _IMAGE),
        "eps-called-png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nsystemdict begin\n", _IMAGE),
        "text-called-png": (b"not an image", _IMAGE),
        "empty-image": (b"", _IMAGE),
        "jpeg-cut-off": (jpeg[: scan + 20], _IMAGE),
        "jpeg-of-65-thousand-pixels-a-side": (
            _resized(jpeg, 65_000, 65_000),
            _LARGE,
        ),
        "jpeg-of-many-scans": (jpeg[:scan] + jpeg[scan:-2] * 300 + b"\xff\xd9", _IMAGE),
        "jpeg-with-exif-that-never-ends": (exif[: len(exif) // 2], _IMAGE),
        "image-of-another-size": (png(size=(30, 30)), _SHAPE),
    }


def _resized(jpeg: bytes, width: int, height: int) -> bytes:
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + struct.pack(">HH", height, width) + jpeg[at + 4 :]


def _good(**changes: Any) -> dict[str, Any]:
    x = RNG.integers(0, 256, (12, 10, 9, 3), np.uint8)
    arrays = {"x_train": x, "y_train": np.arange(12) % 3, "x_test": x[:6], "y_test": np.arange(6) % 3}
    return {name: value for name, value in {**arrays, **changes}.items() if value is not None}


def npz(arrays: dict[str, Any]) -> bytes:
    """An npz as numpy makes it."""
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def _header(shape: str, dtype: str = "'|u1'", fortran: bool = False) -> bytes:
    text = f"{{'descr': {dtype}, 'fortran_order': {fortran}, 'shape': {shape}}}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def _npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _arrays() -> dict[str, tuple[Made, str]]:
    def replaced(name: str, content: bytes) -> bytes:
        arrays = {f"{each}.npy": _npy(value) for each, value in _good().items()}
        return a.zipped({**arrays, f"{name}.npy": content}, zipfile.ZIP_DEFLATED)

    def sent(**changes: Any) -> bytes:
        return npz(_good(**changes))

    labels = np.arange(12) % 3
    structured = np.zeros(12, [("a", np.int32), ("b", np.uint8)])
    floats = RNG.random((12, 10, 9, 3)).astype(np.float32)
    return {
        "npz-of-objects": (sent(y_train=np.array([{}] * 12, object)), _FORMAT),
        "npz-structured": (sent(y_train=structured), _FORMAT),
        "npz-of-text": (sent(y_train=np.array(["cat"] * 12)), _FORMAT),
        "npz-of-dates": (sent(y_train=np.zeros(12, "datetime64[s]")), _FORMAT),
        "npz-that-asks-for-745-gigabytes": (replaced("x_train", _header("(1020408163, 28, 28)")), _LARGE),
        "npz-bomb": (
            lambda: a.zipped(
                {
                    "x_train.npy": _header("(100000, 28, 28)") + bytes(78_400_000),
                    "y_train.npy": _npy(np.arange(100_000) % 10),
                    "x_test.npy": _header("(100000, 28, 28)") + bytes(78_400_000),
                    "y_test.npy": _npy(np.arange(100_000) % 10),
                },
                zipfile.ZIP_DEFLATED,
            ),
            _LARGE,
        ),
        "npz-negative-shape": (replaced("x_train", _header("(-5, 8, 8)") + bytes(320)), _FORMAT),
        "npz-shape-of-floats": (replaced("x_train", _header("(5.0, 8, 8)") + bytes(320)), _FORMAT),
        "npz-less-bytes-than-its-shape": (replaced("x_train", _header("(12, 10, 9, 3)") + bytes(100)), _FORMAT),
        "npz-more-bytes-than-its-shape": (replaced("x_train", _header("(12, 10, 9, 3)") + bytes(9000)), _FORMAT),
        "npz-fortran-that-lies": (
            replaced("x_train", _header("(12, 10, 9, 3)", fortran=True) + bytes(1000)),
            _FORMAT,
        ),
        "npz-header-that-is-a-tower": (replaced("x_train", _header("[" * 3000)), _FORMAT),
        "npz-header-that-calls": (replaced("x_train", _header("(__import__('os').system('id'),)")), _FORMAT),
        "npz-that-is-no-array": (replaced("x_train", b"\x80\x04cos\nsystem\n(S'touch canary-was-here'\ntR."), _FORMAT),
        "npz-in-an-npz": (a.zipped({"data.npz": npz(_good())}), _FORMAT),
        "npz-header-of-a-future-version": (replaced("x_train", b"\x93NUMPY\x09\x00" + bytes(200)), _FORMAT),
        "npz-one-array": (npz({"x_train": floats}), _FORMAT),
        "npz-channels-first": (sent(x_train=np.zeros((12, 3, 10, 9), np.uint8)), _SHAPE),
        "npz-five-axes": (replaced("x_train", _header("(1, 1, 8, 8, 3)") + bytes(192)), _FORMAT),
        "npz-images-of-one-pixel": (sent(x_train=np.zeros((12, 1, 1), np.uint8)), _SHAPE),
        "npz-images-of-int64": (sent(x_train=np.zeros((12, 10, 9, 3), np.int64)), _SHAPE),
        "npz-pixels-nan": (sent(x_train=np.where(floats > 0.99, np.nan, floats)), _PIXELS),
        "npz-pixels-infinite": (sent(x_train=np.where(floats > 0.99, np.inf, floats)), _PIXELS),
        "npz-pixels-to-255-as-floats": (sent(x_train=floats * 255), _PIXELS),
        "npz-labels-nan": (sent(y_train=np.full(12, np.nan)), _LABELS),
        "npz-labels-one-hot": (sent(y_train=np.eye(3)[labels]), _LABELS),
        "npz-labels-negative": (sent(y_train=labels - 1), _LABELS),
        "npz-labels-huge": (sent(y_train=labels * 2**40), _LABELS),
        "npz-labels-missing-one": (sent(y_train=labels[:-1]), _LABELS),
        "npz-labels-all-the-same": (sent(y_train=labels * 0), _LABELS),
        "npz-labels-from-one": (sent(y_train=labels + 1, y_test=np.arange(6) % 3 + 1), _LABELS),
        "npz-a-class-without-images": (sent(y_train=labels * 2), _LABELS),
        "npz-no-images": (sent(x_test=np.zeros((0, 10, 9, 3), np.uint8), y_test=np.zeros(0, int)), _LABELS),
    }


def _samples() -> dict[str, tuple[Made, str]]:
    def tar(*members: tuple[str, bytes]) -> bytes:
        samples = [(f"{n:04}.{kind}", png(n) if kind == "png" else b"%d" % (n % 2)) for n in range(9) for kind in
                   ("png", "cls")]  # fmt: skip
        return a.tarred([*samples, *members])

    return {
        "webdataset-without-a-label": (tar(("9999.png", png(99))), _LABELS),
        "webdataset-label-nan": (tar(("9999.png", png(99)), ("9999.cls", b"nan")), _LABELS),
        "webdataset-label-negative": (tar(("9999.png", png(99)), ("9999.cls", b"-5")), _LABELS),
        "webdataset-label-of-bytes": (tar(("9999.png", png(99)), ("9999.cls", b"\xff\xfe\x00")), _LABELS),
        "webdataset-label-that-is-a-tower": (tar(("9999.png", png(99)), ("9999.json", b"[" * 60_000)), _LABELS),
        "webdataset-label-of-a-megabyte": (tar(("9999.png", png(99)), ("9999.cls", bytes(1 << 20))), _LARGE),
        "webdataset-two-images": (tar(("9999.png", png(99)), ("9999.jpg", png(98)), ("9999.cls", b"1")), _FORMAT),
    }
