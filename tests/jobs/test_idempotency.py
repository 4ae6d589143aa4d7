"""One request, however often it is sent."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import update

from jobs.database import now
from jobs.errors import IdempotencyInProgressError, IdempotencyKeyReusedError, JobsError
from jobs.idempotency import KEPT_SECONDS, IdempotencyRepository
from jobs.keys import KeyRepository
from jobs.repository import NewJob, Once
from jobs.scopes import SCOPES
from jobs.tables import DEFAULT_TENANT, Idempotency

NEW = NewJob({"data": {}}, "cpu", "aft", None, {}, 1, None, None)


@pytest.fixture
def requests(engine):
    return IdempotencyRepository(engine, DEFAULT_TENANT)


def answer(job, position):
    return {"id": job.id, "position": position}


def older(engine, **columns):
    with engine.begin() as connection:
        connection.execute(update(Idempotency).values(**columns))


def jobs_of(repository):
    return repository.page(state=None, defense=None, limit=99, after=None)


def test_the_first_is_worked_at_and_the_others_get_its_answer(requests, repository):
    first = requests.begin("k")
    with pytest.raises(IdempotencyInProgressError) as busy:
        requests.begin("k")
    assert 1 <= busy.value.retry_after <= 5
    job = repository.create(NEW, once=Once(first, "print", answer))
    again = requests.begin("k")
    assert again.replay("print") == {"id": job.id, "position": 1}
    with pytest.raises(IdempotencyKeyReusedError):
        again.replay("another print")
    requests.give_up(first)
    assert requests.begin("k").answered, "what made a job is not given up"


def test_many_at_once(requests, repository):
    def send(_):
        try:
            request = requests.begin("k")
            if (earlier := request.replay("print")) is not None:
                return earlier["id"]
            return repository.create(NEW, once=Once(request, "print", answer)).id
        except JobsError as error:
            return error.code

    with ThreadPoolExecutor(16) as pool:
        told = {*pool.map(send, range(50))}
    (job,) = jobs_of(repository)
    assert told <= {job.id, "idempotency_in_progress"}


def test_what_made_nothing_can_be_sent_again(requests):
    requests.give_up(requests.begin("k"))
    assert requests.begin("k").answered is None


def test_one_that_died_blocks_its_key_for_a_lease_and_makes_nothing_afterwards(requests, repository, engine):
    died = requests.begin("k")
    older(engine, lease_until=now() - 1)
    taken = requests.begin("k")
    with pytest.raises(IdempotencyInProgressError):
        repository.create(NEW, once=Once(died, "print", answer))
    assert jobs_of(repository) == [], "its job is not there either"
    requests.give_up(died)
    requests.renew(died)
    with pytest.raises(IdempotencyInProgressError):
        requests.begin("k")
    repository.create(NEW, once=Once(taken, "print", answer))
    assert len(jobs_of(repository)) == 1


def test_renewed_it_blocks_for_longer(requests, engine):
    first = requests.begin("k")
    older(engine, lease_until=now() - 1)
    requests.renew(first)
    with pytest.raises(IdempotencyInProgressError):
        requests.begin("k")


def test_after_a_day_the_key_is_new(requests, repository, upkeep, engine):
    repository.create(NEW, once=Once(requests.begin("k"), "print", answer))
    older(engine, created_at=now() - KEPT_SECONDS - 1)
    assert requests.begin("k").answered is None
    upkeep.forget_requests()
    with pytest.raises(IdempotencyInProgressError):
        requests.begin("k")


def test_keys_are_a_tenants_own(requests, engine):
    keys = KeyRepository(engine)
    other = keys.find(keys.create("theirs", "k", SCOPES)[1]).tenant_id
    requests.begin("k")
    assert IdempotencyRepository(engine, other).begin("k").answered is None
