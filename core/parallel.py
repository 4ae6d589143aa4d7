"""One job on several devices: the ranks, what they tell each other, and how they share a batch.

Every rank holds the whole model and all state, and takes every ``size``-th image of a batch. What a rank draws for an
image depends on the image alone (docs/adr/0002), so a step is the single process's up to the order of float sums.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from core.cost import Cost
from core.data import Ids
from core.errors import LostRankError, RunError, Stopped, UnsupportedError, run_error
from core.models.classifier import Classifier, do_nothing
from core.synced_batch_norm import SyncedBatchNorm

Result = TypeVar("Result")
Rows = TypeVar("Rows", Tensor, Ids)

_NO_LIMIT = timedelta(days=365)  # rank 0 may diagnose or export for hours while the others wait


class Team:
    """The ranks of a job; this one is a rank alone, to whom nobody answers: it gets back what it gives."""

    rank, size = 0, 1

    @property
    def leads(self) -> bool:
        """Whether this is rank 0, which alone writes files and events, and decides when to stop."""
        return self.rank == 0

    def share(self, rows: Rows) -> Rows:
        """This rank's part of some rows."""
        return rows[self.rank :: self.size]

    def whole(self, part: Tensor, count: int) -> Tensor:
        """The ``count`` rows of which every rank gives its ``share``."""
        return part

    def sum(self, value: Tensor) -> Tensor:
        """The sum of small tensors over the ranks."""
        return value

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by its sum over the ranks."""

    def first(self, work: Callable[[], Result]) -> Result:
        """What rank 0 comes to while the others wait; plain JSON."""
        return work()

    def check_alike(self, net: nn.Module) -> None:
        """Raise UnsupportedError if a layer other than BatchNorm has kept something of its own rank's images."""

    def agree(self) -> None:
        """Raise here what any rank has told of; see ``tell``."""

    def tell(self, error: RunError | Stopped) -> None:
        """End the job on all ranks with this error: they meet it where they next talk."""

    def leave(self) -> None:
        """The last thing to do."""

    def total(self, cost: Cost) -> Cost:
        """The passes of all ranks."""
        counts = asdict(cost)
        totals = self.sum(torch.tensor(list(counts.values()))).tolist()
        return Cost(**dict(zip(counts, totals, strict=True)))

    @contextmanager
    def booked_once(self, cost: Cost) -> Iterator[None]:
        """For passes that every rank makes alike."""
        before = asdict(cost)
        yield
        if not self.leads:
            vars(cost).update(before)


ALONE = Team()


class Ranks(Team):
    """This process among several, on CPUs or on one GPU each.

    Two groups: what steers the job goes through the CPU and always begins with ``agree``; images, gradients and
    BatchNorm's statistics go from device to device. A rank that fails in a pass can so be told from one that is early:
    it ends at once, and the launcher ends the rest.
    """

    def __init__(self, rank: int, size: int, device: torch.device, meeting: Path) -> None:
        """Meet the others at a file that no ranks have met at before."""
        self.rank, self.size, self.device = rank, size, device
        self._store = dist.FileStore(str(meeting), size)  # type: ignore[attr-defined]
        dist.init_process_group("gloo", store=self._store, rank=rank, world_size=size, timeout=_NO_LIMIT)
        group = dist.new_group(backend="nccl" if device.type == "cuda" else "gloo", timeout=_NO_LIMIT)
        self._group = cast(dist.ProcessGroup, group)  # no number for those outside: all are in it
        self._told = False

    def leave(self) -> None:
        """Wait until all ranks leave: to go while another still reads would break its connection."""
        self._store.set(f"left-{self.rank}", "")
        self._store.wait([f"left-{rank}" for rank in range(self.size)], _NO_LIMIT)
        dist.destroy_process_group()

    def whole(self, part: Tensor, count: int) -> Tensor:
        """See the base class."""
        self.agree()
        most = -(-count // self.size)
        padded = torch.zeros((most, *part.shape[1:]), dtype=part.dtype, device=self.device)
        padded[: len(part)] = part
        return torch.stack(self.gather(padded), 1).flatten(0, 1)[:count].to(part.device)

    def gather(self, part: Tensor) -> list[Tensor]:
        """The tensors of all ranks, of one shape, on the device."""
        parts = [torch.empty_like(part) for _ in range(self.size)]
        with _talking():
            dist.all_gather(parts, part.contiguous(), group=self._group)
        return parts

    def reduce(self, values: Tensor) -> Tensor:
        """``values``, on the device, summed over the ranks in place."""
        with _talking():
            dist.all_reduce(values, group=self._group)
        return values

    def sum(self, value: Tensor) -> Tensor:
        """See the base class."""
        self.agree()
        exact = torch.float64 if value.is_floating_point() else value.dtype
        total = value.detach().to("cpu", exact, copy=True)
        with _talking():
            dist.all_reduce(total)
        return total.to(value)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """See the base class."""
        grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
        sums = self.reduce(torch.cat([grad.flatten() for grad in grads]))
        for grad, total in zip(grads, torch.split(sums, [grad.numel() for grad in grads]), strict=True):
            grad.copy_(total.view_as(grad))

    def first(self, work: Callable[[], Result]) -> Result:
        """See the base class."""
        result = work() if self.leads else None
        self.agree()
        heard: Result = json.loads(self._text(json.dumps(result), source=0))
        return heard

    def check_alike(self, net: nn.Module) -> None:
        """See the base class."""
        sizes = [buffer.double().norm().item() for buffer in net.buffers()]
        first, *others = self.gather(torch.tensor(sizes, dtype=torch.float64, device=self.device))
        if not all(torch.allclose(first, other, rtol=1e-3, equal_nan=True) for other in others):
            raise UnsupportedError(
                "a layer of this network keeps statistics of its batches that several devices cannot put together",
                "set devices to 1",
            )

    def agree(self) -> None:
        """See the base class."""
        self._exchange(None)

    def tell(self, error: RunError | Stopped) -> None:
        """See the base class. If all ranks came to the same error, each tells and hears of one."""
        if not self._told:
            try:
                self._exchange(error)
            except (RunError, Stopped):
                return

    def _exchange(self, error: RunError | Stopped | None) -> None:
        failed = torch.tensor(0 if error is None else self.size - self.rank)  # the lowest rank's error is told
        with _talking():
            dist.all_reduce(failed, op=dist.ReduceOp.MAX)
        if failed == 0:
            return
        self._told = True
        said = (error.code, error.detail, error.hint) if isinstance(error, RunError) else None
        heard = json.loads(self._text(json.dumps(said), source=self.size - int(failed)))
        raise run_error(*heard) if heard else Stopped

    def _text(self, text: str, source: int) -> str:
        content = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
        length = torch.tensor(len(content))
        with _talking():
            dist.broadcast(length, source)
            content = content if self.rank == source else torch.empty(int(length), dtype=torch.uint8)
            dist.broadcast(content, source)
        return content.numpy().tobytes().decode()


@contextmanager
def _talking() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # of the connection: "Connection closed by peer"
        raise LostRankError(str(error)) from error


@dataclass(frozen=True)
class Share:
    """A rank's part of a training batch of ``count`` images.

    A batch with fewer images than ranks is not split: every rank takes it all, for networks cannot take no image.
    """

    team: Team
    count: int

    @property
    def split(self) -> bool:
        """Whether the ranks have different images."""
        return 1 < self.team.size <= self.count

    @property
    def rank(self) -> int:
        """A number for each different part."""
        return self.team.rank if self.split else 0

    @property
    def weight(self) -> float:
        """What the mean over the part counts in the mean over the batch."""
        return len(range(self.rank, self.count, self.team.size)) / self.count if self.split else 1 / self.team.size

    def of(self, rows: Rows) -> Rows:
        """The rows that belong to this part's images."""
        return self.team.share(rows) if self.split else rows

    def whole(self, part: Tensor) -> Tensor:
        """The rows of the whole batch, from those of each part."""
        return self.team.whole(part, self.count) if self.split else part

    def mean(self, value: Tensor) -> Tensor:
        """The mean over the batch, from the mean over each part."""
        return value if self.team.size == 1 else self.team.sum(value.detach() * self.weight)

    @contextmanager
    def training(self, model: Classifier) -> Iterator[None]:
        """For passes in train mode: BatchNorm sees the whole batch, and who cannot go on is heard before each pass."""
        if not isinstance(self.team, Ranks):
            yield
            return
        team = self.team

        def agree() -> None:
            if model.training:  # crafting in evaluation mode needs nobody else
                team.agree()

        model.on_forward = agree
        try:
            with SyncedBatchNorm(team, model) if self.split else team.booked_once(model.cost):
                yield
        finally:
            model.on_forward = do_nothing
