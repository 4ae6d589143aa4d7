"""Temper's client: submit a classifier to a Temper service, watch it being hardened, take the result.

``Client`` waits for every answer, ``AsyncClient`` is the same for asyncio; ``layers`` tells a module of one's own as
data. The command is ``temper``.
"""

from temper.blocking import Client, Job
from temper.core import CATALOG, AsyncClient, AsyncJob
from temper.errors import (
    DamagedError,
    ExistsError,
    JobCancelledError,
    JobFailedError,
    ModuleError,
    NoConnectionError,
    NotReadyError,
    RefusedError,
    TemperError,
)
from temper.events import Event
from temper.modules import layers

__all__ = [
    "CATALOG",
    "AsyncClient",
    "AsyncJob",
    "Client",
    "DamagedError",
    "Event",
    "ExistsError",
    "Job",
    "JobCancelledError",
    "JobFailedError",
    "ModuleError",
    "NoConnectionError",
    "NotReadyError",
    "RefusedError",
    "TemperError",
    "layers",
]
