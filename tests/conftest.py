"""Shared fixtures: the example's real network and images."""

from __future__ import annotations

import secrets
from pathlib import Path

import numpy as np
import pytest
import torch
from sqlalchemy import create_engine, update

from core.models.base import ImageShape
from core.models.classifier import Classifier
from core.models.fmnist_cnn import FMNISTCNN
from jobs.database import open_database
from jobs.tables import Base
from stack.servers import Postgres
from temperd.schema import upgrade

EXAMPLE = Path(__file__).parents[1] / "examples" / "fashion_mnist"


@pytest.fixture(scope="session")
def example() -> Path:
    """The example's folder: checkpoint.pt and data.npz."""
    return EXAMPLE


@pytest.fixture(scope="session")
def arrays() -> dict[str, np.ndarray]:
    """The example's images and labels."""
    with np.load(EXAMPLE / "data.npz") as data:
        return dict(data)


@pytest.fixture
def network() -> Classifier:
    """The example's network, fresh for each test."""
    net = FMNISTCNN().build(10, ImageShape(1, 28, 28))
    net.load_state_dict(torch.load(EXAMPLE / "checkpoint.pt", weights_only=True))
    return Classifier(net).eval()


@pytest.fixture(scope="session")
def batch(arrays: dict[str, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The first 200 test images in [0, 1], their labels and ids."""
    x = torch.from_numpy(arrays["x_test"][:200])[:, None] / 255
    return x, torch.from_numpy(arrays["y_test"][:200]).long(), torch.arange(200)


@pytest.fixture(scope="session")
def postgres():
    """A real Postgres on a free port, with a database "migrated" that others are copied from."""
    with Postgres() as server:
        _execute(server.url, "CREATE DATABASE migrated")
        upgrade(server.database("migrated"))
        yield server


def _execute(url, statement):
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(statement)
    engine.dispose()


@pytest.fixture
def postgres_url(postgres):
    """The address of a fresh database in it, with the newest schema."""
    name = f"test_{secrets.token_hex(6)}"
    _execute(postgres.url, f"CREATE DATABASE {name} TEMPLATE migrated")
    yield postgres.database(name)
    _execute(postgres.url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgres"])
def url(request, tmp_path):
    """A fresh database of either kind."""
    if request.param == "postgres":
        return request.getfixturevalue("postgres_url")
    url = f"sqlite:///{tmp_path / 'temper.db'}"
    upgrade(url)
    return url


@pytest.fixture
def engine(url):
    """Its engine."""
    engine = open_database(url)
    yield engine
    engine.dispose()


@pytest.fixture
def pass_time(engine):
    """Seconds go by for the database without anybody waiting: all that it wrote down lies further back."""

    def pass_time(seconds):
        with engine.begin() as connection:
            for table in Base.metadata.sorted_tables:
                moments = [column for column in table.columns if column.name.endswith(("_at", "_until"))]
                if moments:
                    connection.execute(update(table).values({column: column - seconds for column in moments}))

    return pass_time
