"""Settings from TEMPER_* environment variables."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from jobs.limits import Limits

QUEUES = ("cpu", "gpu", "gpu-large")


class Settings(BaseSettings):
    """One person's service by default: SQLite, a folder, no queue."""

    model_config = SettingsConfigDict(env_prefix="TEMPER_", frozen=True)

    data_dir: Path = Field(Path("temper-data"), description="Work folders, datasets, and what has no URL of its own.")
    # they hold passwords: shown nowhere
    database_url: str = Field("", repr=False, description="postgresql://USER:PASSWORD@HOST/NAME; left out: SQLite.")
    store_url: str = Field("", repr=False, description="s3://BUCKET/PREFIX, gs://, az:// or file:///; else a folder.")
    broker_url: str = Field("", repr=False, description="redis://HOST:PORT/0, for api and worker.")
    queue: Literal["cpu", "gpu", "gpu-large"] = Field("cpu", description="The queue of jobs that do not name one.")
    datasets: Annotated[tuple[Path, ...], NoDecode] = Field(
        (), description=f"Folders of datasets that jobs may name, with {os.pathsep!r} between them."
    )
    queues: Annotated[tuple[str, ...], NoDecode] = Field(QUEUES, description="What this worker takes, comma-separated.")
    lease_seconds: float = Field(10, gt=0, description="A job whose worker is silent for so long is taken over.")
    poll_seconds: float = Field(0.5, gt=0, description="How often an idle embedded runner looks for work.")
    drain_seconds: float = Field(20, gt=0, le=26, description="Time for a child to save its state on SIGTERM.")
    silence_seconds: float = Field(1800, gt=0, description="A child that says nothing for so long is taken for hung.")
    sweep_seconds: float = Field(3600, gt=0, description="A stored file without a row is swept when it is so old.")
    max_upload_bytes: int = Field(4 * 2**30, gt=0, description="Largest upload.")
    max_transfers: int = Field(16, gt=0, description="Bodies with files that one API receives at a time; 25 MB each.")
    unfinished_seconds: float = Field(86400, gt=0, description="An upload that waits for its rest is kept so long.")
    keep_uploads_seconds: float | None = Field(None, gt=0, description="Uploads are kept so long; left out: for ever.")
    keep_jobs_seconds: float | None = Field(None, gt=0, description="Jobs and results, after their end; likewise.")
    sandbox: Literal["required", "off-i-understand-the-risk"] = Field("required", description="Of jobs' processes.")
    ingest_memory_bytes: int = Field(4 * 2**30, gt=0, description="For reading one job's uploads.")
    head_seconds: float = Field(10, gt=0, description="For the head of a request, and the rest of one answered early.")
    pace_bytes: float = Field(1024, ge=0, description="A body that comes with fewer bytes a second is ended.")
    pace_seconds: float = Field(30, gt=0, description="Over how long that is measured.")
    max_queued_jobs: int = Field(1000, ge=0, description="Jobs of a tenant that wait or are paused.")
    max_stored_bytes: int = Field(2**40, ge=0, description="Uploads, training states and results of a tenant.")
    wrong_keys_per_minute: int = Field(20, gt=0, description="From one address, before it has to wait.")
    requests_per_minute: int = Field(600, gt=0, description="Of a tenant, with keys; each API process counts its own.")
    webhook_url: str = Field("", description="Told when a job ends or pauses, in the Standard Webhooks format.")
    webhook_secret: SecretStr = Field(SecretStr(""), description='Signs webhooks: "whsec_" and base64.')
    signing_key: SecretStr = Field(
        SecretStr(""), description="Signs certificates, by temperd signing-keys create; left out: data_dir/signing-key."
    )

    @field_validator("datasets", mode="before")
    @classmethod
    def _paths(cls, value: object) -> object:
        return tuple(map(Path, filter(None, value.split(os.pathsep)))) if isinstance(value, str) else value

    @field_validator("queues", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(filter(None, (name.strip() for name in value.split(",")))) if isinstance(value, str) else value

    @field_validator("queues")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value or not set(value) <= set(QUEUES):
            raise ValueError(f"queues are {', '.join(QUEUES)}")
        return value

    @property
    def limits(self) -> Limits:
        """Of tenants that have none of their own."""
        return Limits(self.max_queued_jobs, self.max_stored_bytes, self.max_upload_bytes, self.requests_per_minute)

    @property
    def root(self) -> Path:
        """The data folder, absolute: children run elsewhere."""
        return self.data_dir.absolute()

    @property
    def database(self) -> str:
        """SQLAlchemy's address of the database."""
        return self.database_url or f"sqlite:///{self.root / 'temper.db'}"

    @property
    def store(self) -> str:
        """Address of the store of uploads, training states and outputs."""
        return self.store_url or (self.root / "store").as_uri()

    @property
    def work_dir(self) -> Path:
        """One folder for each running attempt; nothing in it outlives the attempt."""
        return self.root / "work"

    @property
    def datasets_dir(self) -> Path:
        """Named datasets, one file each, put there by ``temperd datasets fetch``."""
        return self.root / "datasets"

    @property
    def signing_key_file(self) -> Path:
        """The private key of a service whose settings name none."""
        return self.root / "signing-key"

    @property
    def folders(self) -> list[Path]:
        """Where everybody's files are: no job's process looks into them, but for its own folder."""
        store = [Path(self.store.removeprefix("file://"))] if self.store.startswith("file://") else []
        return [self.root, *store]

    @property
    def dataset_folders(self) -> list[Path]:
        """Where datasets lie, those that were fetched first; absolute."""
        return [self.datasets_dir, *(folder.absolute() for folder in self.datasets)]
