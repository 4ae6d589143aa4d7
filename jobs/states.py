"""Job states and the only moves between them."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """What a job is doing; ``phase`` says more while it runs."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


MOVES: dict[State, frozenset[State]] = {
    State.QUEUED: frozenset({State.RUNNING, State.CANCELLED, State.FAILED}),
    # back to queued when its child or worker is lost or drained; to running when another takes it over
    State.RUNNING: frozenset({State.RUNNING, State.QUEUED, State.SUCCEEDED, State.FAILED, State.CANCELLED}),
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
}
FINAL = frozenset(state for state, moves in MOVES.items() if not moves)


def sources(target: State) -> list[State]:
    """States from which a job may move to ``target``."""
    return [state for state, moves in MOVES.items() if target in moves]
