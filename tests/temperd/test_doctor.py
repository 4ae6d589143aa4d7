"""temperd doctor against a real database, Redis and store, and without them."""

from __future__ import annotations

import socket

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from jobs.checks import is_wrong
from jobs.database import open_database
from jobs.settings import Settings
from jobs.upkeep import Upkeep
from stack.servers import Redis
from temperd.__main__ import app
from temperd.doctor import CHECKS, OF_THE_SERVICE, examine

RUNNER = CliRunner()
HOST = socket.gethostname()


@pytest.fixture
def settings(url, tmp_path):
    with Redis() as redis:
        yield Settings(database_url=url, broker_url=redis.url, store_url=(tmp_path / "store").as_uri())


@pytest.fixture
def upkeep(settings):
    engine = open_database(settings.database)
    yield Upkeep(engine)
    engine.dispose()


def test_all_is_well(settings, upkeep):
    upkeep.seen(f"{HOST}-7", ["cpu"])
    found = examine(settings, [*CHECKS])
    assert found.pop("sandbox").startswith("ok (landlock ABI ")
    assert found == {name: None for name in CHECKS if name != "sandbox"}


def test_each_fault_is_told_by_its_name(settings, upkeep):
    upkeep.seen("elsewhere-7", ["gpu"])
    with upkeep._write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = 'older'"))
    broken = settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0", "store_url": "s3://none/such"})
    found = examine(broken, [*CHECKS])
    assert not is_wrong(found.pop("sandbox"))
    assert found.pop("database") is None
    assert "temperd migrate" in found.pop("schema")
    assert "does not answer" in found.pop("broker")
    assert "the store failed" in found.pop("store")
    assert "'cpu'" in found.pop("workers")
    assert HOST in found.pop("here")
    assert not found


def test_without_a_database_nothing_else_is_blamed_on_it(settings, tmp_path):
    away = settings.model_copy(update={"database_url": "postgresql://nobody@127.0.0.1:1/none"})
    found = examine(away, [*CHECKS])
    wrong = {name: answer for name, answer in found.items() if is_wrong(answer)}
    assert {*wrong} == {"database", "schema", "workers", "here"}
    assert all("does not answer" in answer for answer in wrong.values())


def test_another_host_and_one_of_a_longer_name_are_not_here(settings, upkeep):
    for name in (f"{HOST}-b-7", f"not-{HOST}-7", HOST):
        upkeep.seen(name, ["cpu"])
    assert examine(settings, ["here"])["here"]
    upkeep.seen(f"{HOST}-7", [])
    assert examine(settings, ["here"]) == {"here": None}, "a reconciler, which serves no queue"


def test_it_waits_until_all_is_well(settings, upkeep, monkeypatch):
    monkeypatch.setattr("temperd.doctor._PAUSE", 0.01)
    asked = []

    def schema(_doctor):
        asked.append(1)
        return None if len(asked) == 3 else "not yet"

    monkeypatch.setitem(CHECKS, "schema", schema)
    assert examine(settings, ["schema"], wait=60) == {"schema": None}
    asked.clear()
    assert examine(settings, ["schema"]) == {"schema": "not yet"}


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_the_command_says_it_by_its_exit_status(settings, upkeep, monkeypatch):
    monkeypatch.setattr("temperd.logs.configure", lambda **_: None)
    environment = {
        "TEMPER_DATABASE_URL": settings.database_url,
        "TEMPER_BROKER_URL": settings.broker_url,
        "TEMPER_STORE_URL": settings.store_url,
    }
    result = RUNNER.invoke(app, ["doctor"], env=environment)
    assert result.exit_code == 1
    assert result.output.splitlines()[:4] == ["database: ok", "schema: ok", "broker: ok", "store: ok"]
    assert [line.partition(":")[0] for line in result.output.splitlines()] == [*OF_THE_SERVICE]
    upkeep.seen(f"{HOST}-7", ["cpu"])
    result = RUNNER.invoke(app, ["doctor", "here", "workers"], env=environment)
    assert (result.exit_code, result.output) == (0, "here: ok\nworkers: ok\n")
    assert RUNNER.invoke(app, ["doctor", "pulse"], env=environment).exit_code == 2
    assert RUNNER.invoke(app, ["doctor"], env={**environment, "TEMPER_BROKER_URL": ""}).exit_code == 2
