"""Token buckets, in this process: each API process counts for itself."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

_MINUTE = 60.0
_KEPT = 10_000  # buckets; one that was forgotten is full again


@dataclass(frozen=True)
class Taken:
    """What came of a request for a token. ``wait``: seconds until there is one, 0 if there was."""

    quota: int
    left: int
    wait: float

    @property
    def headers(self) -> dict[str, str]:
        """As draft-ietf-httpapi-ratelimit-headers has them."""
        refill = max(1, round((self.quota - self.left) * _MINUTE / self.quota))
        return {
            "RateLimit-Policy": f'"tenant";q={self.quota};w={_MINUTE:.0f}',
            "RateLimit": f'"tenant";r={self.left};t={refill}',
        }


class Buckets:
    """One bucket for each name. It holds a minute's tokens and fills evenly."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when there were so many

    def take(self, name: str, per_minute: int) -> Taken:
        """One token, if there is one."""
        tokens = self._tokens(name, per_minute)
        if tokens < 1:
            return Taken(per_minute, 0, (1 - tokens) * _MINUTE / per_minute)
        self._keep(name, tokens - 1)
        return Taken(per_minute, int(tokens - 1), 0.0)

    def wait(self, name: str, per_minute: int) -> float:
        """Seconds until ``take`` would find a token; takes none."""
        return max(0.0, (1 - self._tokens(name, per_minute)) * _MINUTE / per_minute)

    def _tokens(self, name: str, per_minute: int) -> float:
        tokens, since = self._buckets.get(name, (float(per_minute), self._clock()))
        return min(float(per_minute), tokens + (self._clock() - since) * per_minute / _MINUTE)

    def _keep(self, name: str, tokens: float) -> None:
        self._buckets[name] = (tokens, self._clock())
        self._buckets.move_to_end(name)
        if len(self._buckets) > _KEPT:
            self._buckets.popitem(last=False)
