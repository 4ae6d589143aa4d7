"""Settings from TEMPER_* environment variables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

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
    queues: Annotated[tuple[str, ...], NoDecode] = Field(QUEUES, description="What this worker takes, comma-separated.")
    lease_seconds: float = Field(10, gt=0, description="A job whose worker is silent for so long is taken over.")
    poll_seconds: float = Field(0.5, gt=0, description="How often an idle embedded runner looks for work.")
    drain_seconds: float = Field(20, gt=0, le=26, description="Time for a child to save its state on SIGTERM.")
    silence_seconds: float = Field(1800, gt=0, description="A child that says nothing for so long is taken for hung.")
    sweep_seconds: float = Field(3600, gt=0, description="A stored file without a row is swept when it is so old.")
    max_upload_bytes: int = Field(4 * 2**30, gt=0, description="Largest request body.")
    webhook_url: str = Field("", description="Told when a job ends or pauses, in the Standard Webhooks format.")
    webhook_secret: SecretStr = Field(SecretStr(""), description='Signs webhooks: "whsec_" and base64.')

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
