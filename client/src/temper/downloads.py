"""Files from the server: in ranges, resumed where they were broken off, in place only once their digest is right."""

from __future__ import annotations

import base64
import errno
import re
from collections.abc import Callable
from io import SEEK_END, FileIO
from pathlib import Path

import httpx

from temper.errors import DamagedError, ExistsError, NoConnectionError, TemperError
from temper.files import Report, hash_file
from temper.http import Http

_DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/=]{44}):")
_AS_IT_IS = {"Accept-Encoding": "identity"}  # the digest is that of the plain file


async def fetch_file(
    http: Http,
    address: str,
    target: Path,
    *,
    params: dict[str, str],
    overwrite: bool,
    begin: Callable[[int], Report],
) -> None:
    """Save what is at ``address`` as ``target``; meanwhile it is a hidden file beside it, named after its digest.

    ``begin`` is told the size. Raises: ExistsError if another file is there and may not be replaced; DamagedError;
    NoConnectionError, RefusedError, OSError.
    """
    head = await http.head(address, params=params, headers=_AS_IT_IS)
    sha256, size = _sha256(head), int(head.headers["content-length"])
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no such folder", str(target.parent))
    if target.exists():
        if not target.is_file():
            raise ExistsError(f"{target} is there already, and is no file")
        if (await http.wire.apart(hash_file, target)).digest() == sha256:
            return
        if not overwrite:
            raise ExistsError(f"{target} is there already, and is another file")
    part = target.with_name(f".{target.name}.{sha256.hex()[:16]}.part")
    try:
        part.touch()
        with part.open("r+b", buffering=0) as file:
            await _complete(http, address, file, params, head, begin(size))
        digest = (await http.wire.apart(hash_file, part)).digest()
        if digest != sha256:
            part.unlink()
            raise DamagedError(f"{target.name} did not arrive as it was sent: its SHA-256 is not {sha256.hex()}")
        part.replace(target)
    except FileNotFoundError:  # another download of the same was done first
        if not target.is_file() or (await http.wire.apart(hash_file, target)).digest() != sha256:
            raise
    except OSError as error:
        error.filename = error.filename or str(target)  # a full disk says no name
        raise


async def _complete(
    http: Http, address: str, file: FileIO, params: dict[str, str], head: httpx.Response, report: Report
) -> None:
    """Until the file has all bytes. Each is written to its own place: several downloads of the same may share it."""
    size, patience = int(head.headers["content-length"]), http.patience()
    while (done := file.seek(0, SEEK_END)) < size:
        report(done)
        headers = {**_AS_IT_IS, "Range": f"bytes={done}-", "If-Range": head.headers["etag"]}
        try:
            async with http.stream("GET", address, params=params, headers=headers) as response:
                if _start(response) != done:
                    raise DamagedError(f"{address} is no longer the file that it was: ask again")
                async for chunk in http.wire.chunks(response):
                    _write(file, chunk)
                    report(file.tell())
                    patience.renew()
            if file.tell() == done:
                raise NoConnectionError(f"{address} ended early")
        except TemperError as error:
            await patience(error)
    report(size)


def _write(file: FileIO, chunk: bytes) -> None:
    while chunk:
        chunk = chunk[file.write(chunk) :]


def _start(response: httpx.Response) -> int:
    if response.status_code != httpx.codes.PARTIAL_CONTENT:
        return 0
    match = re.match(r"bytes (\d+)-", response.headers.get("content-range", ""))
    return int(match[1]) if match else -1


def _sha256(head: httpx.Response) -> bytes:
    match = _DIGEST.search(head.headers.get("repr-digest", ""))
    if match is None:
        raise DamagedError(f"{head.url} has no SHA-256 in Repr-Digest to verify it by")
    return base64.b64decode(match[1])
