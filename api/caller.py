"""Who asks, and what they may; everything that a request can see follows from it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool

from api.refusals import MissingScopeError, NotAuthenticatedError
from api.services import Provided
from jobs.limits import Limits
from jobs.repository import JobRepository
from jobs.scopes import Scope
from jobs.uploads import UploadRepository

_LOOK_SECONDS = 10.0


@dataclass(frozen=True)
class Caller:
    """A tenant's key; or whoever reaches an open service: that is the default tenant, without a key."""

    tenant_id: str
    key_id: str | None
    scopes: frozenset[Scope]
    limits: Limits = field(default_factory=Limits)
    session: str | None = None  # of a browser, as ``jobs.keys.Known`` has it


async def caller(request: Request) -> Caller:
    """Whom the door found. Raises: NotAuthenticatedError."""
    found: Caller | None = request.scope["temper.caller"]
    if found is None:
        raise NotAuthenticatedError
    return found


Asking = Annotated[Caller, Depends(caller)]


class Needs:
    """Every route depends on one of these, or is one of ``api.door.PUBLIC``."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    async def __call__(self, asking: Asking) -> None:
        """Raises: NotAuthenticatedError, MissingScopeError."""
        if self.scope not in asking.scopes:
            raise MissingScopeError(self.scope)


READ, WRITE, ADMIN = Depends(Needs(Scope.READ)), Depends(Needs(Scope.WRITE)), Depends(Needs(Scope.ADMIN))


async def _jobs(asking: Asking, services: Provided) -> JobRepository:
    return services.jobs_of(asking.tenant_id)


Jobs = Annotated[JobRepository, Depends(_jobs)]
"""The repository of what the caller's tenant has."""


async def _uploads(asking: Asking, services: Provided) -> UploadRepository:
    return services.uploads_of(asking.tenant_id)


Uploads = Annotated[UploadRepository, Depends(_uploads)]
"""Likewise its uploads."""


class Stay:
    """For answers that take long: whether the caller may still see them."""

    def __init__(self, asking: Asking, services: Provided) -> None:
        self._key_id, self._session, self._keys = asking.key_id, asking.session, services.keys
        self._looked = time.monotonic()

    async def is_over(self) -> bool:
        """Whether the key was revoked or has expired, or the browser logged out; looks now and then only."""
        if self._keys is None or self._key_id is None or time.monotonic() - self._looked < _LOOK_SECONDS:
            return False
        self._looked = time.monotonic()
        return not await run_in_threadpool(self._keys.is_live, self._key_id, self._session)


Staying = Annotated[Stay, Depends()]
