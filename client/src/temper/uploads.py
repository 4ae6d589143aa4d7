"""Files to the server, by tus 1.0 (https://tus.io): in parts with a checksum, resumed where they were broken off.

What the server has already is not sent again. An upload that was begun by another process is gone on with, if its
metadata names the SHA-256 of this very file: nothing needs to be kept on this side.
"""

from __future__ import annotations

import base64
import hashlib
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from temper.errors import DamagedError, RefusedError, TemperError
from temper.files import Pieces, Report, hash_file, read_at
from temper.http import Http, path

PART_BYTES = 16 << 20
"""Bytes of one request: what is sent again, at most, after a break."""

_PAGES, _PAGE = 5, 200  # of the newest uploads that are searched
_STAYS_SECONDS = 3600.0  # one that expires sooner may be gone when the job is made
_TUS = {"Tus-Resumable": "1.0.0"}
_OUT_OF_STEP = frozenset({"upload_locked", "upload_offset", "checksum_mismatch"})


async def send_file(http: Http, file: Path, report: Report) -> str:
    """The id of a finished upload with the file's bytes.

    Raises: OSError; NoConnectionError, RefusedError; DamagedError if the file changed meanwhile.
    """
    size = file.stat().st_size
    sha256 = (await http.wire.apart(hash_file, file)).hexdigest()
    upload_id, offset = await _find(http, file.name, size, sha256) or (await _begin(http, file.name, size, sha256), 0)
    patience = http.patience()
    while offset < size:
        report(offset)
        content = await http.wire.apart(read_at, file, offset, PART_BYTES)
        try:
            offset = await _send_part(http, upload_id, Pieces(content, offset, report))
            patience.renew()
        except TemperError as error:
            if isinstance(error, RefusedError) and error.code in _OUT_OF_STEP:
                error.passing = True
            await patience(error)
            offset = await _offset(http, upload_id)
    report(size)
    there = await http.ask("GET", path("uploads", upload_id), "sha256")
    if there["sha256"] != sha256:
        await http.call("DELETE", path("uploads", upload_id))
        raise DamagedError(f"{file} changed while it was sent")
    return upload_id


async def _find(http: Http, name: str, size: int, sha256: str) -> tuple[str, int] | None:
    """An upload with these bytes, or their beginning, and how many of them are there."""
    begun: list[dict[str, Any]] = []
    cursor = None
    for _ in range(_PAGES):
        parameters = {"limit": _PAGE} | ({"cursor": cursor} if cursor else {})
        page = await http.ask("GET", "/uploads", "items", "next", params=parameters)
        for item in page["items"]:
            if item["size"] != size or not _stays(item):
                continue
            if item["sha256"] == sha256:
                return item["id"], size
            if item["state"] == "receiving" and item["filename"] == name:
                begun.append(item)
        cursor = page["next"]
        if cursor is None:
            break
    for item in sorted(begun, key=lambda item: -item["received"]):
        head = await http.head(path("uploads", item["id"]), headers=_TUS)
        if _metadata("sha256", sha256) in head.headers.get("upload-metadata", "").split(","):
            return item["id"], int(head.headers["upload-offset"])
    return None


def _stays(item: dict[str, Any]) -> bool:
    if item["state"] == "receiving" or item["expires_at"] is None:
        return True
    return datetime.fromisoformat(item["expires_at"]).timestamp() - time.time() > _STAYS_SECONDS


async def _begin(http: Http, name: str, size: int, sha256: str) -> str:
    metadata = ",".join([_metadata("filename", name), _metadata("sha256", sha256)])
    headers = {**_TUS, "Upload-Length": str(size), "Upload-Metadata": metadata}
    answer = await http.call("POST", "/uploads", headers=headers)
    if "location" not in answer.headers:
        raise http.stranger(answer)
    return str(answer.headers["location"]).rpartition("/")[2]


def _metadata(key: str, value: str) -> str:
    return f"{key} {base64.b64encode(value.encode()).decode()}"


async def _send_part(http: Http, upload_id: str, pieces: Pieces) -> int:
    checksum = base64.b64encode(hashlib.sha256(pieces.content).digest()).decode()
    headers = {
        **_TUS,
        "Content-Type": "application/offset+octet-stream",
        "Content-Length": str(len(pieces.content)),
        "Upload-Offset": str(pieces.offset),
        "Upload-Checksum": f"sha256 {checksum}",
    }
    answer = await http.once("PATCH", path("uploads", upload_id), pieces=pieces, headers=headers)
    return int(answer.headers["upload-offset"])


async def _offset(http: Http, upload_id: str) -> int:
    head = await http.head(path("uploads", upload_id), headers=_TUS)
    return int(head.headers["upload-offset"])
