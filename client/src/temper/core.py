"""Jobs and the service, as coroutines over a wire: ``temper.AsyncClient`` is this, ``temper.Client`` runs it."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import httpx

from temper.display import Display, silent_or_live
from temper.downloads import fetch_file
from temper.errors import (
    JobCancelledError,
    JobFailedError,
    NoConnectionError,
    NotReadyError,
    RefusedError,
    TemperError,
)
from temper.events import FINAL, Event, follow
from temper.http import Http, path
from temper.logs import log_lines
from temper.spec import build, put
from temper.uploads import send_file
from temper.wire import AsyncWire, Wire

DEFAULT_URL = "http://localhost:8000"

CATALOG = ("defenses", "attacks", "architectures", "schedules", "eps-schedules", "optimizers", "datasets", "recipes")
"""What ``catalog`` lists."""

_JOB = ("id", "state")

Source = str | os.PathLike[str] | Mapping[str, Any]
"""A file; or what the server has: {"upload": ID}, {"job": ID} as a checkpoint, {"dataset": NAME} as data."""


class AsyncClient:
    """A Temper service. Use it as a context manager, or close it.

    ``url``: TEMPER_URL if left out, or http://localhost:8000; ``api_key``: TEMPER_API_KEY. ``progress``: bars and live
    lines on standard error; where None, if that is a terminal.

    All methods raise: NoConnectionError, once trying again did not help; RefusedError with the server's sentences.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        progress: bool | Display | None = None,
        wire: Callable[..., Wire] = AsyncWire,
    ) -> None:
        url = url or os.environ.get("TEMPER_URL") or DEFAULT_URL
        url = url if "://" in url else f"http://{url}"
        key = api_key or os.environ.get("TEMPER_API_KEY", "")
        if not (key.isascii() and key.isprintable()):
            raise TemperError("the API key holds characters that no key has: look at TEMPER_API_KEY")
        headers = {"User-Agent": f"temper-client/{version('temper-client')}"}
        headers |= {"Authorization": f"Bearer {key}"} if key else {}
        timeout = httpx.Timeout(120, connect=10)  # the last part of an upload may be answered after all were read again
        self.display = progress if isinstance(progress, Display) else silent_or_live(progress)
        try:
            self.http = Http(wire(base_url=url, headers=headers, timeout=timeout), url, self.display.tell)
        except httpx.InvalidURL as error:
            raise NoConnectionError(f"{url!r} is no address: {error}", passing=False) from error

    async def submit(
        self,
        checkpoint: Source | None = None,
        *,
        data: Source | None = None,
        architecture: str | Mapping[str, Any] | None = None,
        defense: str | Mapping[str, Any] | None = None,
        eps: float | str | None = None,
        norm: str | None = None,
        epochs: int | None = None,
        name: str | None = None,
        spec: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> AsyncJob:
        """Send the files and make a job. ``spec``: all else, as POST /jobs takes it; the other arguments override it.

        However often it has to be sent, it makes one job: it carries ``idempotency_key``, a new one if left out.
        Raises: OSError for a file that cannot be read.
        """
        fields = {"architecture": architecture, "defense": defense, "eps": eps, "norm": norm, "epochs": epochs}
        body = build(spec, **fields, name=name)
        if checkpoint is not None:
            body["checkpoint"] = await self._source(checkpoint)
        for key, value in (await self._source(data) if data is not None else {}).items():
            put(body, f"data.{key}", value)
        headers = {"Idempotency-Key": idempotency_key or str(uuid.uuid4())}
        return AsyncJob(self, await self.http.ask("POST", "/jobs", *_JOB, json=body, headers=headers))

    async def upload(self, file: str | os.PathLike[str]) -> str:
        """The id of an upload with this file's bytes; nothing is sent that the server has already.

        Raises: OSError; DamagedError if the file changes meanwhile.
        """
        source = Path(file)
        if source.is_dir():
            told = f"is a folder; send it as one file: tar -cf images.tar -C {source} ."
            raise IsADirectoryError(errno.EISDIR, told, str(source))
        with self.display.bar(f"sending {source.name}") as begin:
            return await send_file(self.http, source, begin(source.stat().st_size))

    async def _source(self, source: Source) -> Mapping[str, Any]:
        return source if isinstance(source, Mapping) else {"upload": await self.upload(source)}

    async def job(self, job_id: str) -> AsyncJob:
        """A job by its id."""
        return AsyncJob(self, await self.http.ask("GET", path("jobs", job_id), *_JOB))

    async def jobs(self, *, state: str | None = None, defense: str | None = None) -> AsyncIterator[AsyncJob]:
        """All jobs, newest first, fetched page by page as they are asked for."""
        parameters = {"state": state, "defense": defense}
        wanted = {key: value for key, value in parameters.items() if value is not None}
        cursor: dict[str, str] = {}
        while True:
            page = await self.http.ask("GET", "/jobs", "items", "next", params=wanted | cursor)
            for item in page["items"]:
                yield AsyncJob(self, item)
            if page["next"] is None:
                return
            cursor = {"cursor": page["next"]}

    async def catalog(self, kind: str) -> list[dict[str, Any]]:
        """What can be asked for: ``kind`` is one of CATALOG."""
        items: list[dict[str, Any]] = (await self.http.ask("GET", path(kind), "items"))["items"]
        return items

    async def signing_keys(self) -> list[dict[str, Any]]:
        """The public keys that certificates are checked with: id, public_key as PEM, revoked_at."""
        items: list[dict[str, Any]] = (await self.http.ask("GET", "/signing-keys", "items"))["items"]
        return items

    async def close(self) -> None:
        """End all connections."""
        await self.http.wire.end()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class AsyncJob:
    """A job. ``info`` is what the server last said of it."""

    def __init__(self, client: AsyncClient, info: dict[str, Any]) -> None:
        self._client, self.info = client, info

    @property
    def id(self) -> str:
        """As in addresses."""
        return str(self.info["id"])

    @property
    def state(self) -> str:
        """As of the last answer: queued, running, paused, succeeded, failed or cancelled."""
        return str(self.info["state"])

    @property
    def failure(self) -> dict[str, Any] | None:
        """Why it failed: code, blame, detail, hint."""
        failure: dict[str, Any] | None = self.info.get("failure")
        return failure

    def _path(self, *parts: str) -> str:
        return path("jobs", self.id, *parts)

    async def refresh(self) -> None:
        """Ask how it is now."""
        self.info = await self._client.http.ask("GET", self._path(), *_JOB)

    def events(self) -> AsyncIterator[Event]:
        """What happened from its beginning, and what happens until its end."""
        return follow(self._client.http, self.id)

    async def wait(self) -> None:
        """Until it has ended, in whatever way: see ``state``. Shows its progress."""
        with self._client.display.watch(self.id) as show:
            async for event in self.events():
                show(event)
        await self.refresh()

    async def report(self) -> dict[str, Any]:
        """The report. Raises: NotReadyError before the end; JobFailedError, JobCancelledError."""
        http = self._client.http
        answer = await http.call("GET", self._path("report"), headers={"Accept": "application/json"})
        if answer.status_code == httpx.codes.ACCEPTED:
            state = http.content(answer, "state")["state"]
            raise NotReadyError(f"job {self.id} is {state}: there is no report yet; wait for its end")
        return http.content(answer, "verdict", "before", "after")

    async def artifacts(self) -> list[dict[str, Any]]:
        """The files that it made: name, size, sha256."""
        items: list[dict[str, Any]] = (await self._client.http.ask("GET", self._path("artifacts"), "items"))["items"]
        return items

    async def download(
        self,
        target: str | os.PathLike[str] | None = None,
        *,
        artifact: str | None = None,
        format: Literal["safetensors", "pt"] | None = None,  # noqa: A002  the parameter's name in the API
        overwrite: bool = False,
    ) -> Path:
        """Save the hardened checkpoint, or the artifact of this name; returns where: ID-NAME in ``target``, a folder.

        Goes on with what an interrupted download left. ``format``: converts; else as the checkpoint came in.
        Raises: ExistsError if another file is there; NotReadyError before the end; JobFailedError, JobCancelledError
            where that left no such file; DamagedError, OSError.
        """
        try:
            return await self._fetch(Path(target or "."), artifact, format, overwrite=overwrite)
        except RefusedError as error:
            if error.code != "artifact_not_found":
                raise
            await self.refresh()
            if self.state not in FINAL:
                raise NotReadyError(error.detail) from error
            kind = {"failed": JobFailedError, "cancelled": JobCancelledError}.get(self.state, RefusedError)
            raise kind(error.status, error.problem) from error

    async def _fetch(
        self, place: Path, artifact: str | None, wanted: Literal["safetensors", "pt"] | None, *, overwrite: bool
    ) -> Path:
        address = self._path("artifacts", artifact) if artifact else self._path("checkpoint")
        parameters: dict[str, str] = {"format": wanted} if wanted else {}
        if place.is_dir():
            name = artifact or await self._checkpoint_name(wanted)
            place = place / f"{self.id}-{Path(name).name}"
        with self._client.display.bar(f"fetching {place.name}") as begin:
            http = self._client.http
            await fetch_file(http, address, place, params=parameters, overwrite=overwrite, begin=begin)
        return place

    async def _checkpoint_name(self, wanted: str | None) -> str:
        parameters = {"format": wanted} if wanted else {}
        head = await self._client.http.head(self._path("checkpoint"), params=parameters)
        return str(head.headers.get("content-disposition", "")).partition('filename="')[2].rstrip('"') or "checkpoint"

    def log_lines(self, *, tail: int | None = None, follow: bool = False) -> AsyncIterator[str]:
        """The training log's lines, the last ``tail`` of them; ``follow``: also those that come, until its end."""
        return log_lines(self._client.http, self.id, tail, follow=follow)

    async def cancel(self) -> None:
        """Ask for it; ``state`` turns once its process is dead."""
        await self._ask("cancel")

    async def pause(self) -> None:
        """Ask for it; ``state`` turns once what it reached is saved."""
        await self._ask("pause")

    async def resume(self) -> None:
        """Queue it again: it goes on from where it was paused."""
        await self._ask("resume")

    async def delete(self) -> int:
        """Delete it and its files once it has ended; returns how many bytes are free now."""
        answer = await self._client.http.ask("DELETE", self._path(), "freed_bytes")
        return int(answer["freed_bytes"])

    async def _ask(self, what: str) -> None:
        self.info = await self._client.http.ask("POST", self._path(what), *_JOB)
