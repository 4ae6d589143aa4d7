"""Sends what is in the outbox, in the format of Standard Webhooks (https://www.standardwebhooks.com)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime

import httpx

from jobs.upkeep import Due, Upkeep
from worker.persistence import aside

_log = logging.getLogger(__name__)
_TIMEOUT = 10.0


class Webhooks:
    """Tells one address, the operator's, of every end and pause of a job; at least once, in no sure order."""

    def __init__(self, upkeep: Upkeep, url: str, secret: str, name: str) -> None:
        """``name``: whose duty it is while it does it."""
        self._upkeep, self._url, self._key, self._name = upkeep, url, _key(secret), name
        self._client = httpx.Client(timeout=_TIMEOUT, follow_redirects=False)

    def deliver(self) -> None:
        """What is due now, if nobody else sends."""
        while self._upkeep.take_duty("webhooks", self._name, 3 * _TIMEOUT):
            message = next(iter(self._upkeep.due(1)), None)
            if message is None:
                return
            error, for_good = self._send(message)
            if error is None:
                self._upkeep.delivered(message)
            else:
                _log.warning("webhook %s was not delivered: %s", message.id, error)
                self._upkeep.not_delivered(message, error, for_good=for_good)

    def _post(self, body: str, headers: dict[str, str]) -> int:
        with self._client.stream("POST", self._url, content=body, headers=headers) as answer:
            return answer.status_code  # the body is of no interest, however long it is

    def _send(self, message: Due) -> tuple[str | None, bool]:
        """What went wrong, and whether there is no point in trying again."""
        happened = datetime.fromtimestamp(message.created_at, UTC).isoformat().replace("+00:00", "Z")
        body = json.dumps({"type": message.body["type"], "timestamp": happened, "data": message.body["data"]})
        moment = str(int(message.now))
        headers = {
            "content-type": "application/json",
            "webhook-id": message.id,
            "webhook-timestamp": moment,
            "webhook-signature": f"v1,{signature(self._key, message.id, moment, body)}",
        }
        try:
            status = aside(lambda: self._post(body, headers), _deadline())
        except (httpx.HTTPError, TimeoutError) as error:
            return type(error).__name__, False
        return (None, False) if 200 <= status < 300 else (f"HTTP {status}", status == httpx.codes.GONE)


def _deadline() -> Callable[[], None]:
    """A receiver that answers byte by byte keeps every timeout of one read."""
    ends = time.monotonic() + _TIMEOUT

    def heed() -> None:
        if time.monotonic() > ends:
            raise TimeoutError

    return heed


def signature(key: bytes, message_id: str, timestamp: str, body: str) -> str:
    """HMAC-SHA256 over "id.timestamp.body", base64."""
    content = f"{message_id}.{timestamp}.{body}".encode()
    return base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()


def _key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except binascii.Error as error:
        raise ValueError('TEMPER_WEBHOOK_SECRET has to be "whsec_" and base64') from error
    if len(key) < 24:
        raise ValueError("TEMPER_WEBHOOK_SECRET has to have at least 24 bytes: openssl rand -base64 32")
    return key
