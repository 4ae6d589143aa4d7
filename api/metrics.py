"""Numbers for Prometheus: jobs and epochs from the database, HTTP from this process."""

from __future__ import annotations

import time
from collections.abc import Iterator

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from jobs.upkeep import Upkeep

_HTTP = CollectorRegistry()
_METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
_REQUESTS = Counter("temper_http_requests", "Requests by route.", ["method", "route", "status"], registry=_HTTP)
_SECONDS = Histogram("temper_http_seconds", "Until the head of the answer.", ["method", "route"], registry=_HTTP)

__all__ = ["CONTENT_TYPE", "install", "render"]


def install(app: FastAPI) -> None:
    """Count requests."""
    app.add_middleware(_Counting)


def render(upkeep: Upkeep) -> bytes:
    """The exposition format."""
    registry = CollectorRegistry()
    registry.register(_Jobs(upkeep))
    return generate_latest(registry) + generate_latest(_HTTP)


class _Jobs(Collector):
    """Asked of the database at each scrape, so that every API process says the same, and none has to remember."""

    def __init__(self, upkeep: Upkeep) -> None:
        self._upkeep = upkeep

    def collect(self) -> Iterator[Metric]:
        """See the base class."""
        jobs = GaugeMetricFamily("temper_jobs", "Jobs by queue and state.", labels=["queue", "state"])
        for (queue, state), count in self._upkeep.counts().items():
            jobs.add_metric([queue, state], count)
        yield jobs
        numbers = self._upkeep.numbers()
        yield GaugeMetricFamily("temper_oldest_wait_seconds", "Of the longest waiting job.", numbers.oldest_wait)
        yield SummaryMetricFamily(
            "temper_queue_wait_seconds", "From submission to the first claim.", numbers.started, numbers.waited
        )
        yield CounterMetricFamily("temper_attempts_lost", "Whose child or worker was lost.", numbers.lost)
        yield GaugeMetricFamily("temper_epoch_seconds", "Last epoch, mean over running jobs.", numbers.epoch_seconds)
        yield GaugeMetricFamily("temper_images_per_second", "Training, of the running jobs.", numbers.images_per_second)
        yield GaugeMetricFamily("temper_gpu_memory_bytes", "Peak of the running jobs.", numbers.gpu_memory)
        workers = GaugeMetricFamily("temper_workers", "Seen in the last minute.", labels=["queue"])
        for queue, count in numbers.workers.items():
            workers.add_metric([queue], count)
        yield workers


class _Counting:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                count(message["status"])
            await send(message)

        def count(status: int) -> None:
            # the route, not the path: ids would make a series each
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            _SECONDS.labels(method, route).observe(time.perf_counter() - started)
            _REQUESTS.labels(method, route, status).inc()

        try:
            await self._app(scope, receive, counted)
        except BaseException:
            count(500)  # as it is answered further out
            raise
