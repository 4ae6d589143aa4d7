"""The course of a job, folded from its events: what is known of it so far, and in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from temper.events import Event
from temper.plain import plain


class Course:
    """Where a job stands. ``clean``, ``robust``: the newest accuracies in [0, 1], ``measured``: of what."""

    def __init__(self) -> None:
        self.state, self.phase = "queued", ""
        self.epoch, self.epochs, self.fraction = 0, 0, 0.0
        self.eta_seconds: float | None = None
        self.clean: float | None = None
        self.robust: float | None = None
        self.measured = ""

    def see(self, event: Event) -> str | None:
        """What happened next; returns a line about it, or None where it only goes on."""
        tellers: dict[str, Callable[[dict[str, Any]], str | None]] = {
            "progress": self._progress,
            "state": self._state,
            "phase": self._phase,
            "preview": self._preview,
            "result": self._result,
            "epoch": self._epoch,
            "failure": self._failure,
        }
        tell = tellers.get(event.type)
        line = tell(event.data) if tell else None
        return None if line is None else plain(line)

    def _progress(self, data: dict[str, Any]) -> None:
        self.state, self.phase = data["state"], data["phase"] or self.phase
        self.epoch, self.epochs = data.get("epoch", self.epoch), data.get("epochs", self.epochs)
        self.fraction, self.eta_seconds = data.get("fraction", self.fraction), data.get("eta_seconds")

    def _state(self, data: dict[str, Any]) -> str:
        self.state = data["state"]
        if self.state != "running":
            self.eta_seconds = None
        return self.state

    def _phase(self, data: dict[str, Any]) -> str:
        self.phase = data["phase"]
        return self.phase

    def _preview(self, data: dict[str, Any]) -> str:
        return f"preview on {data['clean']['total']} images: {_accuracies(data)}"

    def _result(self, data: dict[str, Any]) -> str:
        self.measured = str(data["side"])
        self.clean, self.robust = data["clean"]["accuracy"], data["robust"]["accuracy"]
        return f"{self.measured} hardening: {_accuracies(data)}, robust {percent(self.robust)}"

    def _epoch(self, data: dict[str, Any]) -> str:
        self.epoch, self.measured = data["epoch"], "held out"
        self.clean, self.robust = data["held_out_clean"], data["held_out_robust"]
        of = f"/{self.epochs}" if self.epochs else ""
        return (
            f"epoch {self.epoch}{of}: loss {data['train_loss']:.3f}, "
            f"held-out training images: clean {percent(self.clean)}, robust {percent(self.robust)}"
        )

    def _failure(self, data: dict[str, Any]) -> str:
        hint = f" ({data['hint']})" if data.get("hint") else ""
        return f"failure {data['code']}: {data['detail']}{hint}"

    @property
    def numbers(self) -> str:
        """Epoch, accuracies and time left, as far as they are known."""
        parts = [f"epoch {self.epoch}/{self.epochs}"] if self.epochs else []
        if self.clean is not None and self.robust is not None:
            parts.append(f"clean {percent(self.clean)} robust {percent(self.robust)} {self.measured}")
        left = [f"{duration(self.eta_seconds)} left"] if self.eta_seconds else []
        return ", ".join(["  ".join(parts)] * bool(parts) + left)


def percent(share: float) -> str:
    """0.1234 as 12.3%."""
    return f"{share:.1%}"


def duration(seconds: float) -> str:
    """In the unit that fits."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _accuracies(data: dict[str, Any]) -> str:
    attacks = ", ".join(f"{attack['name']} {percent(attack['accuracy'])}" for attack in data["attacks"])
    return f"clean {percent(data['clean']['accuracy'])}, {attacks}"
