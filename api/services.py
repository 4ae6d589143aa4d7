"""What endpoints work with, made once by the composition root."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from api.copies import Copies
from api.receive import Transfers
from jobs.idempotency import IdempotencyRepository
from jobs.keys import KeyRepository
from jobs.repository import JobRepository
from jobs.settings import Settings
from jobs.signing import SigningKeyRepository
from jobs.storage import Storage
from jobs.upkeep import Upkeep
from jobs.uploads import UploadRepository


@dataclass(frozen=True)
class Services:
    """Repositories, storage, settings.

    ``jobs_of(tenant_id)`` is the repository of what that tenant has; endpoints get it as ``api.caller.Jobs``;
    likewise ``uploads_of``.
    ``keys`` is None for an open service: everybody who reaches it is the default tenant.
    ``ring(queue, job_id)`` wakes a worker, at once and whatever happens; ``checks`` say by name what is wrong, or None.
    """

    jobs_of: Callable[[str], JobRepository]
    uploads_of: Callable[[str], UploadRepository]
    requests_of: Callable[[str], IdempotencyRepository]
    keys: KeyRepository | None
    upkeep: Upkeep
    storage: Storage
    settings: Settings
    ring: Callable[[str, str], None]
    checks: Mapping[str, Callable[[], str | None]]
    transfers: Transfers
    copies: Copies
    signing_keys: SigningKeyRepository


async def _services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


Provided = Annotated[Services, Depends(_services)]
