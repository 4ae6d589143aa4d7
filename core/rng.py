"""Random numbers that depend on (seed, image id) only: not on batch size, order or device.

Each image has a 64-bit key; draws are the splitmix64 sequence of that key (Steele, Lea, Flood, OOPSLA 2014).
A draw has no side effect. Different draws from one image come from differently labelled forks,
so there is no generator state that a resumed run would have to restore.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def _signed(value: int) -> int:
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


_MIX_1, _MIX_2, _STEP = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB), _signed(_GOLDEN)


def _xor_shift_(z: Tensor, bits: int) -> Tensor:
    """z ^ (z >>> bits); torch shifts int64 arithmetically, hence the mask."""
    return z.bitwise_xor_((z >> bits).bitwise_and_((1 << (64 - bits)) - 1))


def _mix_(z: Tensor) -> Tensor:
    """The splitmix64 finaliser, in place on int64."""
    _xor_shift_(z, 30).mul_(_MIX_1)
    _xor_shift_(z, 27).mul_(_MIX_2)
    return _xor_shift_(z, 31)


def derive_seed(seed: int, *labels: str | int) -> int:
    """A 63-bit seed for one purpose, from the job's seed and labels."""
    text = "/".join([str(seed), *map(str, labels)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


class Rng:
    """One random stream an image: ``keys`` is int64 (n,)."""

    def __init__(self, keys: Tensor) -> None:
        self.keys = keys

    @classmethod
    def for_images(cls, seed: int, ids: Tensor) -> Rng:
        """Streams for the images with these ids, int64 (n,)."""
        return cls(_mix_((ids + 1) * _STEP + _signed(derive_seed(seed))))

    def fork(self, label: str | int) -> Rng:
        """Independent streams for another purpose."""
        return Rng(_mix_(self.keys ^ _signed(derive_seed(0, label))))

    def __getitem__(self, index: Tensor) -> Rng:
        return Rng(self.keys[index])

    def __len__(self) -> int:
        return len(self.keys)

    def _bits(self, shape: tuple[int, ...]) -> Tensor:
        counter = torch.arange(1, math.prod(shape) + 1, device=self.keys.device).mul_(_STEP)
        return _mix_(self.keys[:, None] + counter).view(len(self.keys), *shape)

    def uniform(self, *shape: int) -> Tensor:
        """Float32 in [0, 1), (n, *shape)."""
        bits = self._bits(shape).bitwise_right_shift_(40).bitwise_and_((1 << 24) - 1)
        return bits.to(torch.float32).mul_(2**-24)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal, float32 (n, *shape), by the inverse error function."""
        # the half-step keeps the argument off -1 and 1, where erfinv is infinite
        return torch.erfinv(self.uniform(*shape).mul_(2).add_(2**-24 - 1)).mul_(math.sqrt(2))

    def integers(self, low: int, high: int) -> Tensor:
        """int64 (n,), uniform on low..high inclusive."""
        return low + (self.uniform(1).flatten() * (high - low + 1)).long()
