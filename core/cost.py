"""Counts what a run costs: passes of one example through the model, each kind apart.

FB, one forward and backward pass of one example, is the unit in which the papers compare methods.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass
class Cost:
    """Example-passes so far."""

    forwards: int = 0
    input_backwards: int = 0
    weight_backwards: int = 0
    fb: int = 0

    def backward(self, examples: int, *, to_input: bool, to_weights: bool) -> None:
        """Count one backward pass; it may reach the input, the weights, or both."""
        self.fb += examples
        self.input_backwards += examples * to_input
        self.weight_backwards += examples * to_weights

    def __sub__(self, other: Cost) -> Cost:
        return Cost(**{key: value - getattr(other, key) for key, value in asdict(self).items()})

    def __add__(self, other: Cost) -> Cost:
        return Cost(**{key: value + getattr(other, key) for key, value in asdict(self).items()})

    def copy(self) -> Cost:
        """A snapshot to subtract later."""
        return Cost(**asdict(self))
