"""Celery on Redis, used as a doorbell: a message says that a job waits, the database says which and to whom it goes."""

from __future__ import annotations

import logging
import queue
import threading
from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError
from redis import Redis
from redis.exceptions import RedisError

TASK = "temper.ring"
_TIMEOUT = 2.0  # a frozen Redis has to become an error
_log = logging.getLogger(__name__)


def make_celery(broker_url: str) -> Celery:
    """The application. No results, acknowledged on receipt, one message at a time: losing a message loses nothing."""
    app = Celery("temper", broker=broker_url, set_as_current=False)
    app.conf.update(
        task_ignore_result=True,
        task_acks_late=False,
        task_default_queue="cpu",
        worker_concurrency=1,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=_TIMEOUT,
        broker_transport_options={
            "socket_timeout": 2 * _TIMEOUT,  # longer than a blocking read waits
            "socket_connect_timeout": _TIMEOUT,
            "socket_keepalive": True,
            "retry_on_timeout": False,
        },
    )
    return app


class Doorbell:
    """Rings from a thread of its own, so that no Redis in any state delays the answer to a user.

    A ring that does not get through is forgotten: the reconciler rings again for what waits.
    """

    def __init__(self, broker_url: str) -> None:
        self._celery = make_celery(broker_url)
        self._redis = Redis.from_url(broker_url, socket_timeout=_TIMEOUT, socket_connect_timeout=_TIMEOUT)
        self._rings: queue.Queue[tuple[str, str]] = queue.Queue(maxsize=1000)
        threading.Thread(target=self._run, name="doorbell", daemon=True).start()

    def ring(self, queue_name: str, job_id: str) -> None:
        """Soon, if the queue can be reached."""
        try:
            self._rings.put_nowait((queue_name, job_id))
        except queue.Full:
            _log.warning("the doorbell is behind; the reconciler will ring for %s", job_id)

    def ring_now(self, queue_name: str, job_id: str) -> None:
        """Raises: OperationalError if the queue cannot be reached."""
        self._celery.send_task(TASK, (job_id,), queue=queue_name, retry=False, ignore_result=True)

    def pending(self, queue_name: str) -> int:
        """Messages that no worker has taken yet. Raises: RedisError."""
        length: Any = self._redis.llen(queue_name)
        return int(length)

    def check(self) -> None:
        """Raises: RedisError if Redis does not answer."""
        self._redis.ping()

    def _run(self) -> None:
        while True:
            queue_name, job_id = self._rings.get()
            try:
                self.ring_now(queue_name, job_id)
            except (OperationalError, RedisError, OSError) as error:
                _log.warning("the ring for %s was lost (%s); the reconciler will ring again", job_id, error)
            except Exception:  # noqa: BLE001 - the boundary of the thread
                _log.exception("the ring for %s met a fault; the reconciler will ring again", job_id)
