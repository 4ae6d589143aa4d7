"""A thread that does something again and again, whatever goes wrong in between."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from kombu.exceptions import OperationalError as BrokerError
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from jobs.errors import StorageError

_log = logging.getLogger(__name__)


class Rounds:
    """``act`` at once and then every ``pause`` seconds, until it is stopped."""

    def __init__(self, name: str, pause: float, act: Callable[[], None]) -> None:
        self._name, self._pause, self._act = name, pause, act
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def end(self) -> None:
        """Begin no further round."""
        self._ended.set()

    def join(self, seconds: float) -> None:
        """Wait for the round that is under way."""
        if self._thread.is_alive():
            self._thread.join(seconds)

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self._act()
            except (SQLAlchemyError, StorageError, BrokerError, RedisError, OSError) as error:
                _log.warning("%s was interrupted: %s", self._name, error)
            except Exception:  # noqa: BLE001 - the boundary of the thread
                _log.exception("%s met a fault; it goes on", self._name)
            self._ended.wait(self._pause)
