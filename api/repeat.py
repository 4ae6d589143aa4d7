"""Idempotency-Key: a request that is sent again makes no second job (draft-ietf-httpapi-idempotency-key-header)."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from starlette.concurrency import run_in_threadpool

from api.errors import SpecInvalidError
from jobs.database import AWAY
from jobs.idempotency import LEASE_SECONDS, IdempotencyRepository, Repeatable

_KEY = re.compile(r'"?([\x21\x23-\x5b\x5d-\x7e]{1,255})"?')


@asynccontextmanager
async def once(header: str | None, requests: IdempotencyRepository) -> AsyncIterator[Repeatable | None]:
    """The request with this key, for as long as it is worked at; None without a key.

    Raises: SpecInvalidError for a key that is none; IdempotencyInProgressError.
    """
    if header is None:
        yield None
        return
    match = _KEY.fullmatch(header)
    if match is None:
        raise SpecInvalidError.field("Idempotency-Key", "1 to 255 printable characters without blanks")
    request = await run_in_threadpool(requests.begin, match[1])
    if request.answered is not None:
        yield request
        return
    renewing = asyncio.create_task(_renew(request, requests))
    try:
        yield request
    except BaseException:
        with contextlib.suppress(*AWAY):  # then its lease ends by itself
            await run_in_threadpool(requests.give_up, request)
        raise
    finally:
        renewing.cancel()


async def _renew(request: Repeatable, requests: IdempotencyRepository) -> None:
    while True:
        await asyncio.sleep(LEASE_SECONDS / 3)
        with contextlib.suppress(*AWAY):
            await run_in_threadpool(requests.renew, request)


def fingerprint(content: Mapping[str, Any], files: Mapping[str, str]) -> str:
    """Of what is asked for, before defaults are filled in; ``files``: SHA-256 by field."""
    text = json.dumps({"content": content, "files": files}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
