"""The migrations make the schema that the models describe, and undo it."""

from __future__ import annotations

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect

from jobs.errors import JobNotFoundError
from jobs.tables import Base
from temperd.schema import alembic_config, upgrade
from tests.jobs.report import REPORT


def test_models_and_migrations_agree(engine):
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_down_and_up_again(url, engine):
    command.downgrade(alembic_config(url), "base")
    assert inspect(engine).get_table_names() == ["alembic_version"]
    upgrade(url)
    upgrade(url)
    assert set(inspect(engine).get_table_names()) == {"alembic_version", *Base.metadata.tables}


def test_what_refers_to_jobs_survives_a_change_of_their_table(url, engine, repository, submit):
    """SQLite makes the table anew; dropping the old one must not delete events and artifacts along with it."""
    job = submit()
    before = [event.id for event in repository.events(job.id, after=0, limit=100)]
    assert before
    command.downgrade(alembic_config(url), "0001")
    upgrade(url)
    assert [event.id for event in repository.events(job.id, after=0, limit=100)] == before
    assert broken_references(engine) == []


def test_a_job_may_have_no_checkpoint_and_is_lost_on_the_way_back(url, engine, repository, submit):
    kept, scratch = submit(), submit(checkpoint_upload=None)
    assert repository.job(scratch.id).checkpoint_upload is None
    command.downgrade(alembic_config(url), "0001")
    upgrade(url)
    assert repository.job(kept.id).id == kept.id
    with pytest.raises(JobNotFoundError):
        repository.job(scratch.id)
    assert broken_references(engine) == []


def broken_references(engine):
    """Postgres looks at them by itself."""
    if engine.dialect.name != "sqlite":
        return []
    with engine.connect() as connection:
        return connection.exec_driver_sql("PRAGMA foreign_key_check").all()


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_sqlite_is_opened_for_many_at_once(engine):
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() >= 10_000


def test_what_was_there_before_tenants_is_the_default_ones(url, engine, repository, submit):
    job = submit()
    command.downgrade(alembic_config(url), "0003")
    assert "tenants" not in inspect(engine).get_table_names()
    upgrade(url)
    assert (repository.job(job.id).tenant_id, repository.upload(job.checkpoint_upload).tenant_id) == (
        "default",
        "default",
    )
    assert broken_references(engine) == []


def test_jobs_that_ended_before_there_were_outcomes_get_them(url, engine, repository, leases, submit):
    trained, evaluated, waiting = submit().id, submit().id, submit().id
    for report in (REPORT, {**REPORT, "after": None}):
        leases.succeed(leases.claim("me", 30, ["cpu"]), report, {}, {})
    outcomes = [repository.job(job).outcome for job in (trained, evaluated, waiting)]
    command.downgrade(alembic_config(url), "0007")
    assert "outcome" not in {column["name"] for column in inspect(engine).get_columns("jobs")}
    upgrade(url)
    assert [repository.job(job).outcome for job in (trained, evaluated, waiting)] == outcomes
    assert (outcomes[0]["verdict"], outcomes[1]["after"], outcomes[2]) == ("unverified", None, None)
