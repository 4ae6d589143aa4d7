"""Uploads: bytes a second by tus and by a form against a plain copy with hashing, and the API's memory meanwhile.

``python -m benchmarks uploads``; TEMPER_BENCH_UPLOAD_MB=5120 for a file of 5 GB. In each round all take turns.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from benchmarks.service import rss

MEGABYTES = int(os.environ.get("TEMPER_BENCH_UPLOAD_MB", "512"))
ROUNDS = 3
_CHUNK = 1 << 20
_TUS = {"Tus-Resumable": "1.0.0"}


class Server:
    """temperd serve, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.start()

    def start(self) -> None:
        """On a free port."""
        temperd = Path(sys.executable).with_name("temperd")
        environment = {**os.environ, "TEMPER_MAX_UPLOAD_BYTES": str(1 << 40)}
        command = [temperd, "serve", "--port", "0", "--data-dir", self._folder]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        self.url = (self.process.stdout.readline() if self.process.stdout else "").split()[-1]
        self.client = httpx.Client(base_url=self.url, timeout=600)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it."""
        self.client.close()
        self.process.send_signal(number)
        self.process.wait(60)
        if self.process.stdout:
            self.process.stdout.close()


def make(path: Path, megabytes: int) -> str:
    """A file of which no two megabytes are equal; returns its SHA-256."""
    block, digest = bytearray(random.Random(0).randbytes(_CHUNK)), hashlib.sha256()
    with path.open("wb") as file:
        for number in range(megabytes):
            block[:8] = number.to_bytes(8, "big")
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def copy(source: Path, target: Path) -> str:
    """What an upload is held against: read, hash and write."""
    digest = hashlib.sha256()
    with source.open("rb") as file, target.open("wb") as out:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            out.write(chunk)
    return digest.hexdigest()


def post(url: str, head: str, body: Iterator[bytes] | Path, size: int, method: str) -> tuple[int, dict[str, str]]:
    """A request by a bare socket, so that the client costs as little as one can; returns status and headers."""
    where = urlsplit(url)
    with socket.create_connection((where.hostname, where.port or 80), 600) as connection:
        lines = f"{method} {where.path} HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Length: {size}\r\n{head}\r\n"
        connection.sendall(lines.encode())
        if isinstance(body, Path):
            with body.open("rb") as file:
                connection.sendfile(file)
        else:
            for chunk in body:
                connection.sendall(chunk)
        answer = b""
        while b"\r\n\r\n" not in answer:
            piece = connection.recv(65536)
            if not piece:
                raise ConnectionError(answer.decode())
            answer += piece
    first, *rest = answer.decode().split("\r\n\r\n")[0].split("\r\n")
    return int(first.split()[1]), dict(line.lower().split(": ", 1) for line in rest)


def by_tus(server: Server, path: Path, digest: str) -> None:
    """One upload in one PATCH."""
    size = path.stat().st_size
    url = server.client.post("/uploads", headers={**_TUS, "Upload-Length": str(size)}).headers["location"]
    head = "Tus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\nContent-Type: application/offset+octet-stream\r\n"
    status, _ = post(server.url + url, head, path, size, "PATCH")
    assert status == 204, status
    assert server.client.get(url).json()["sha256"] == digest


def by_form(server: Server, path: Path, _digest: str) -> None:
    """A form of POST /jobs whose last field is refused, so that its files are not kept."""
    begin = b'--b\r\nContent-Disposition: form-data; name="data"; filename="d"\r\n\r\n'
    end = b'\r\n--b\r\nContent-Disposition: form-data; name="defense"\r\n\r\nnone\r\n--b--\r\n'

    def body() -> Iterator[bytes]:
        yield begin
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk
        yield end

    size = len(begin) + path.stat().st_size + len(end)
    status, _ = post(f"{server.url}/jobs", "Content-Type: multipart/form-data; boundary=b\r\n", body(), size, "POST")
    assert status == 422, status


def seconds(act: Callable[[], object]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def forget(server: Server) -> None:
    """So that the next round stores the bytes anew."""
    for item in server.client.get("/uploads").json()["items"]:
        server.client.delete(f"/uploads/{item['id']}")


def throughput(server: Server, path: Path, digest: str) -> None:
    """All in turns."""
    taken: dict[str, list[float]] = {"copy": [], "tus": [], "form": []}
    before = rss(server.process.pid)
    for _ in range(ROUNDS):
        taken["copy"].append(seconds(lambda: copy(path, path.with_suffix(".copy"))))
        path.with_suffix(".copy").unlink()
        taken["tus"].append(seconds(lambda: by_tus(server, path, digest)))
        forget(server)
        taken["form"].append(seconds(lambda: by_form(server, path, digest)))
    rate = {name: MEGABYTES / statistics.median(times) for name, times in taken.items()}
    print(f"\nuploads of {MEGABYTES} MB: a plain copy with hashing {rate['copy']:.0f} MB/s")
    for name in ("tus", "form"):
        share = statistics.median(c / t for c, t in zip(taken["copy"], taken[name], strict=True))
        print(f"  by {name:4}: {rate[name]:.0f} MB/s, {share:.2f} of the copy (the bar is 0.5)")
    print(f"  the API's memory: {before:.0f} MB before, {rss(server.process.pid):.0f} MB after")


def killed(server: Server, path: Path, digest: str) -> None:
    """kill -9 at a random byte; the client asks where to go on, and the whole is what was sent."""
    size = path.stat().st_size
    cut = random.Random().randrange(size // 4, size * 3 // 4)
    url = server.client.post("/uploads", headers={**_TUS, "Upload-Length": str(size)}).headers["location"]
    head = "Tus-Resumable: 1.0.0\r\nContent-Type: application/offset+octet-stream\r\n"
    samples: list[float] = []
    baseline = rss(server.process.pid)

    def until_cut() -> Iterator[bytes]:
        sent = 0
        with path.open("rb") as file:
            while chunk := file.read(min(_CHUNK, cut - sent)):
                yield chunk
                sent += len(chunk)
                if sent % (64 * _CHUNK) < _CHUNK:
                    samples.append(rss(server.process.pid))
        server.stop(signal.SIGKILL)

    with contextlib.suppress(OSError):
        post(server.url + url, f"{head}Upload-Offset: 0\r\n", until_cut(), size, "PATCH")
    peaks = [max(samples) - baseline]
    server.start()
    baseline, samples = rss(server.process.pid), []
    offset = int(server.client.head(url, headers=_TUS).headers["upload-offset"])

    def rest() -> Iterator[bytes]:
        with path.open("rb") as file:
            file.seek(offset)
            for number, chunk in enumerate(iter(lambda: file.read(_CHUNK), b"")):
                yield chunk
                if number % 64 == 0:
                    samples.append(rss(server.process.pid))

    took = seconds(lambda: post(server.url + url, f"{head}Upload-Offset: {offset}\r\n", rest(), size - offset, "PATCH"))
    samples.append(rss(server.process.pid))
    peaks.append(max(samples) - baseline)
    upload = server.client.get(url).json()
    assert upload["sha256"] == digest, upload
    print(f"\nuploads: killed -9 after {cut} of {size} bytes, resumed at {offset}: hash equal")
    print(f"  the rest, and all of it read again for the hash: {took:.1f} s")
    print(
        f"  the API's memory grew by at most {peaks[0]:.0f} MB before the kill, {peaks[1]:.0f} MB after (the bar is 20)"
    )
    forget(server)


def main() -> None:
    """All of it."""
    folder = Path(tempfile.mkdtemp())
    try:
        path = folder / "file"
        digest = make(path, MEGABYTES)
        server = Server(folder / "data")
        try:
            warm = folder / "warm"
            by_tus(server, warm, make(warm, 32))  # the first upload loads what the others have
            forget(server)
            killed(server, path, digest)
            throughput(server, path, digest)
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
