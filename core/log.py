"""The training log: what happened, as lines for people."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any


def log_line(event: dict[str, Any]) -> str | None:
    """The line of an event; None for those that say nothing new to people."""
    words = _words(event)
    return None if words is None else f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {words}"


def _words(event: dict[str, Any]) -> str | None:
    match event["type"]:
        case "phase":
            return str(event["phase"])
        case "preview":
            return f"  a first look: {_accuracies(event)}"
        case "epoch":
            return (
                f"  epoch {event['epoch']}: lr {event['lr']:.3g}, loss {event['train_loss']:.4f}, held-out clean "
                f"{event['held_out_clean']:.1%}, robust {event['held_out_robust']:.1%}, {event['seconds']:.1f} s"
            )
        case "candidate":
            counted = f"  rung {event['rung']} of {event['rungs']}: {event['name']}, {event['images']} images"
            if event["failed"]:
                return f"{counted}: {event['failed']}"
            return (
                f"{counted}, {event['epochs']} epochs: held-out clean {event['clean']:.1%}, robust "
                f"{event['robust']:.1%}, short of the goal by {event['violation']:.1%}, {event['seconds']:.1f} s"
            )
        case "rung":
            return f"  rung {event['rung']} of {event['rungs']} is done: {', '.join(event['kept'])} go on"
        case "result":
            return f"  {event['side']}: {_accuracies(event)}"
        case "state":
            return f"  saved epoch {event['epoch']}, step {event['step']}" if event["step"] else None
        case "failure":
            return f"failed: {event['code']}: {event['detail']}"
        case _:
            return None


def _accuracies(event: dict[str, Any]) -> str:
    return f"clean {event['clean']['accuracy']:.1%}, robust {event['robust']['accuracy']:.1%}"
