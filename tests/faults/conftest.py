"""Real servers for the fault tests."""

from __future__ import annotations

import pytest

from stack.servers import Redis
from tests.faults.floor import Floor


def pytest_collection_modifyitems(items):
    """What takes minutes comes first, and the rest beside it."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(scope="session")
def redis_server():
    with Redis() as server:
        yield server


@pytest.fixture
def redis(redis_server):
    """Empty."""
    import redis

    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server


@pytest.fixture
def floor(tmp_path, postgres_url, redis):
    with Floor(tmp_path, postgres_url, redis.url) as floor:
        yield floor
