"""Settings from TEMPER_* environment variables."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """One person's service by default: SQLite and a folder."""

    model_config = SettingsConfigDict(env_prefix="TEMPER_", frozen=True)

    data_dir: Path = Field(Path("temper-data"), description="Holds database, files, datasets and work folders.")
    lease_seconds: float = Field(10, gt=0, description="A job whose runner is silent for so long is taken over.")
    poll_seconds: float = Field(0.5, gt=0, description="How often an idle runner looks for work.")
    drain_seconds: float = Field(25, gt=0, description="Time for a child to save its state when the service stops.")
    max_upload_bytes: int = Field(4 * 2**30, gt=0, description="Largest request body.")

    @property
    def root(self) -> Path:
        """The data folder, absolute: children run elsewhere."""
        return self.data_dir.absolute()

    @property
    def database_url(self) -> str:
        """SQLAlchemy's address of the database."""
        return f"sqlite:///{self.root / 'temper.db'}"

    @property
    def store_dir(self) -> Path:
        """Uploads, training states and outputs."""
        return self.root / "store"

    @property
    def work_dir(self) -> Path:
        """One folder for each running attempt; nothing in it outlives the attempt."""
        return self.root / "work"

    @property
    def datasets_dir(self) -> Path:
        """Named datasets, one file each, put there by ``temperd datasets fetch``."""
        return self.root / "datasets"
