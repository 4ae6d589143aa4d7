"""Short jobs under everything at once, at random; the history is recorded and checked."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter

import pytest
from redis import Redis as RedisClient

from jobs.database import AWAY
from jobs.errors import WrongStateError
from jobs.session import MAX_STALLED
from jobs.states import FINAL, MOVES, State
from stack.servers import Postgres, Redis
from temperd.schema import upgrade
from tests.faults.floor import LEASE, Floor, descendants, until, weights
from tests.faults.proxy import Proxy

WORKERS = 3


@pytest.fixture
def town(tmp_path):
    """A floor with servers of its own, the workers behind proxies."""
    with Postgres() as postgres, Redis() as redis, Proxy(postgres.port) as wire, Proxy(redis.port) as bell:
        upgrade(postgres.url)
        with Floor(tmp_path, postgres.url, redis.url, drain_seconds=3) as floor:
            floor.environment["TEMPER_DATABASE_URL"] = postgres.url.replace(f":{postgres.port}/", f":{wire.port}/")
            floor.environment["TEMPER_BROKER_URL"] = redis.url.replace(f":{redis.port}/", f":{bell.port}/")
            yield floor, postgres, redis, wire, bell


class Chaos:
    """One fault after the other, until it is stopped. Each undoes itself."""

    def __init__(self, town, seed):
        self.floor, self.postgres, self.redis, self.wire, self.bell = town
        self.random = random.Random(seed)
        self.told, self._ended = [], threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        for _ in range(WORKERS):
            self.floor.worker()
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()
        self.wire.open()
        self.bell.open()

    def _run(self):
        faults = [getattr(self, name) for name in FAULTS]
        while not self._ended.wait(self.random.uniform(0.2, 1.2)):
            fault = self.random.choice(faults)
            self.told.append((round(time.monotonic(), 2), fault.__name__))
            fault()
            for worker in [w for w in self.floor.workers if w.process.poll() is not None]:
                self.floor.workers.remove(worker)
                self.floor.worker()

    def _worker(self):
        return self.random.choice(self.floor.workers)

    def _kill(self, words):
        found = self._worker().below(words)
        if found:
            _signal(self.random.choice(found), signal.SIGKILL)

    def fault_kill_engine(self):
        self._kill("core run")

    def fault_kill_pool_child(self):
        self._kill("temperd")

    def fault_kill_worker(self):
        worker = self._worker()
        _signal(worker.process.pid, signal.SIGKILL)
        worker.process.wait(10)

    def fault_term_worker(self):
        worker = self._worker()
        _signal(worker.process.pid, signal.SIGTERM)
        worker.process.wait(30)

    def fault_freeze_worker(self):
        worker = self._worker()
        frozen = [worker.process.pid, *descendants(worker.process.pid)]
        for pid in frozen:
            _signal(pid, signal.SIGSTOP)
        time.sleep(self.random.choice([0.5, 1.5 * LEASE]))
        for pid in frozen:
            _signal(pid, signal.SIGCONT)

    def fault_cut_database(self):
        self.wire.cut()
        time.sleep(self.random.uniform(0, 1))
        self.wire.open()

    def fault_freeze_database(self):
        self.wire.freeze()
        time.sleep(self.random.uniform(0, 1.2 * LEASE))
        self.wire.cut()
        self.wire.open()

    def fault_restart_database(self):
        self.postgres.restart_now()

    def fault_cut_queue(self):
        self.bell.cut()
        time.sleep(self.random.uniform(0, 1))
        self.bell.open()

    def fault_freeze_queue(self):
        self.bell.freeze()
        time.sleep(self.random.uniform(0, 2))
        self.bell.cut()
        self.bell.open()

    def fault_flush_queue(self):
        with RedisClient.from_url(self.redis.url) as client:
            client.flushall()

    def fault_restart_queue(self):
        self.redis.kill(signal.SIGKILL)
        self.redis.start()

    def fault_ring_for_nothing(self):
        for _ in range(20):
            self.floor.bell.ring("cpu", "job_of_nobody")


FAULTS = [name for name in vars(Chaos) if name.startswith("fault_")]


def _signal(pid, number):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


class Record:
    """Every change of state that a poller sees."""

    def __init__(self, floor):
        self.floor, self.jobs, self.seen = floor, [], {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()

    def _run(self):
        while not self._ended.wait(0.1):
            for job in self.jobs[:]:
                self.look(job)

    def look(self, job):
        state = patiently(lambda: self.floor.state(job))
        seen = self.seen.setdefault(job, [State.QUEUED])
        if seen[-1] != state:
            seen.append(State(state))
        return state


def patiently(call):
    """As any client would: again, when the database is away."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return call()
        except AWAY:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def reachable(source, target):
    """Whether a poller may see one state after the other, having missed those between; no job here lacks room."""
    todo, met = [source], set()
    while todo:
        state = todo.pop()
        for after in () if state in FINAL else MOVES[state]:
            if after == target:
                return True
            if after not in met:
                met.add(after)
                todo.append(after)
    return False


@pytest.mark.parametrize("count", [12, pytest.param(200, marks=pytest.mark.long)])
def test_every_job_ends_once_and_right(town, count):
    floor, seed = town[0], int(os.environ.get("TEMPER_SEED", "0"))
    chance = random.Random(seed)
    plan = {}
    with Record(floor) as record:
        with Chaos(town, seed) as chaos:
            for number in range(count):
                epochs, pause = chance.randint(1, 5), chance.uniform(0.02, 0.2)
                job = patiently(lambda e=epochs, p=pause, n=number: floor.submit(epochs=e, pause=p, seed=n))
                plan[job] = (epochs, number, chance.choice(["", "", "", "", "cancel", "pause"]))
                record.jobs.append(job)
                time.sleep(chance.uniform(0, 0.2))
            wishes = {job: wish for job, (_, _, wish) in plan.items() if wish}
            deadline = time.monotonic() + 30 + count
            while time.monotonic() < deadline and _go_on(record, plan, wishes, chance) > count // 4:
                time.sleep(0.2)
        # the faults are over, and what is left has to end by itself
        deadline = time.monotonic() + 60 + count
        while time.monotonic() < deadline and _go_on(record, plan, wishes, chance):
            time.sleep(0.2)
    states = {job: floor.state(job) for job in plan}
    stuck = {job: state for job, state in states.items() if state not in FINAL}
    assert not stuck, (stuck, chaos.told)
    ends = {}
    for job, (epochs, number, wish) in plan.items():
        row = floor.jobs.job(job)
        ends.setdefault(row.state, []).append(job)
        if row.state == State.SUCCEEDED:
            assert floor.weights(job) == weights(epochs, number)
            floor.check_history(job, epochs)
        elif row.state == State.CANCELLED:
            assert wish == "cancel"
            floor.check_history(job)
        else:
            assert row.failure["code"] == "poison", row.failure
            assert row.stalled >= MAX_STALLED
            floor.check_history(job)
        for source, target in zip(record.seen[job], record.seen[job][1:], strict=False):
            assert reachable(source, target), record.seen[job]
    faults = [name for _, name in chaos.told]
    print({state: len(jobs) for state, jobs in ends.items()}, Counter(faults))  # noqa: T201
    if count >= 200:
        assert set(faults) == set(FAULTS), "each of them happened"
        logs = "".join(path.read_text() for path in floor.folder.glob("worker-*.log"))
        assert "lost its lease" in logs or "no longer owns" in logs, "stale attempts tried to write"
    assert len(ends.get(State.FAILED, [])) <= count // 20, "poison is for three losses in a row"


def _go_on(record, plan, wishes, chance):
    """What users do meanwhile; returns how many jobs have not ended yet."""
    floor, states = record.floor, {job: record.look(job) for job in plan}
    for job, wish in list(wishes.items()):
        if wish == "cancel" and chance.random() < 0.3:
            _try(lambda job=job: floor.jobs.request_cancel(job))
            del wishes[job]
        elif wish == "pause" and states[job] == State.RUNNING:
            _try(lambda job=job: floor.jobs.request_pause(job))
            del wishes[job]
    for job, state in states.items():
        if state == State.PAUSED:
            _try(lambda job=job: floor.jobs.resume(job))
    return sum(state not in FINAL for state in states.values())


def _try(wish):
    with contextlib.suppress(WrongStateError):  # it has ended, or stopped running, meanwhile
        patiently(wish)


def test_until_says_what_did_not_come():
    with pytest.raises(AssertionError, match="rain did not come"):
        until(lambda: False, 0.05, what="rain")
