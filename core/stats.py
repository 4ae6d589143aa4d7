"""The statistics of the report: intervals of shares and a paired test of a change."""

from __future__ import annotations

import math

_Z95 = 1.959963984540054


def wilson(correct: int, total: int) -> tuple[float, float]:
    """95% interval of a share (Wilson 1927); well-behaved at 0 and at 1. Total 0 gives (0, 1)."""
    if total == 0:
        return 0.0, 1.0
    share, z2 = correct / total, _Z95**2
    centre = share + z2 / (2 * total)
    spread = _Z95 * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    low, high = (centre - spread) / (1 + z2 / total), (centre + spread) / (1 + z2 / total)
    return (0.0 if correct == 0 else low), (1.0 if correct == total else high)


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact p-value of McNemar's test (1947).

    ``gained`` images became correct and ``lost`` became wrong; under no change each is a fair coin.
    """
    discordant, fewer = gained + lost, min(gained, lost)
    coefficient = tail = 1  # binomial(discordant, 0), in integers: exact however many images
    for k in range(fewer):
        coefficient = coefficient * (discordant - k) // (k + 1)
        tail += coefficient
    return min(1.0, 2 * tail / (1 << discordant))
