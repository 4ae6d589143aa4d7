"""Job states and the only moves between them."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """What a job is doing; ``phase`` says more while it runs."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


MOVES: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.RUNNING, State.CANCELLED}),
    # to itself: every guarded write of its owner; back to queued when its child or worker is lost or drained
    State.RUNNING: frozenset(
        {State.RUNNING, State.QUEUED, State.PAUSED, State.SUCCEEDED, State.FAILED, State.CANCELLED}
    ),
    State.PAUSED: frozenset({State.QUEUED, State.CANCELLED}),
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset({State.QUEUED}),  # only where a fault of the service ended it, and its state was kept
    State.CANCELLED: frozenset(),
}
FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})


def sources(target: State) -> list[State]:
    """States from which a job may move to ``target``."""
    return [state for state, moves in MOVES.items() if target in moves]
