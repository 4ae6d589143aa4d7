"""All entries of the corpora."""

from __future__ import annotations

from tests.hostile import checkpoints, data, honest, honest_data
from tests.hostile.entry import Honest, Hostile


def hostile() -> list[Hostile]:
    """Files that must be refused."""
    return [*checkpoints.entries(), *data.entries()]


def honest_files() -> list[Honest]:
    """Files that must be accepted, or refused with the line that mends them."""
    return [*honest.entries(), *honest_data.entries()]
