"""Small jobs for one process or for several ranks, by the same code.

``python -m tests.core.ranks start FOLDER COUNT`` starts ranks that do the jobs of FOLDER/jobs.json one after another:
to start them takes longer than the jobs.
"""

from __future__ import annotations

import copy
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from core import launch


class StopWhen:
    """Asks to stop after so many steps of training, or else at so many questions."""

    def __init__(self, *, steps: int | None = None, questions: int | None = None) -> None:
        self.steps, self.questions, self.events = steps, questions, []

    def watch(self, event: dict[str, Any]) -> None:
        self.events.append(event)

    def __call__(self) -> bool:
        if self.questions is not None:
            self.questions -= 1
            return self.questions < 0
        done = sum(event["type"] == "progress" for event in self.events)
        return self.steps is not None and done >= self.steps


def train(root: str, team, **stop: int) -> dict[str, Any]:
    """The run's own phases but for the evaluations."""
    from core.prepared import Workdir
    from core.run import _Run
    from core.spec import JobSpec

    workdir, asked = Workdir(Path(root)), StopWhen(**stop)
    spec = JobSpec.model_validate_json(workdir.spec.read_bytes())
    job = _Run(spec, workdir, asked.watch, asked if team.leads else lambda: False, team)
    with job.phase("validating"):
        model = job.load()
    with job.phase("training"):
        trained = job.train(model)
    team.first(lambda: job.export(trained))
    costs = {name: cost.model_dump(exclude={"seconds"}) for name, cost in job.costs.items()}
    curves = [curve.model_dump(exclude={"seconds"}) for curve in trained.state.history()]
    return {"curves": curves, "costs": costs}


def evaluate(root: str, team) -> dict[str, Any]:
    """A suite of every kind of attack on the example's network, and a corruption."""
    import torch

    from core.attacks.apgd_t import TargetedAPGD
    from core.attacks.fgsm import FGSM
    from core.attacks.pgd import PGD
    from core.attacks.square import Square
    from core.corruption_accuracy import corruption_accuracy
    from core.corruptions import CORRUPTIONS
    from core.data import load_split, sample
    from core.evaluate import Bench, evaluate
    from core.models.base import ImageShape
    from core.models.classifier import Classifier
    from core.models.fmnist_cnn import FMNISTCNN
    from core.prepared import Workdir
    from core.suites import Entry, Suite
    from core.threat import ThreatModel

    net = FMNISTCNN().build(10, ImageShape(1, 28, 28))
    net.load_state_dict(torch.load(Path(__file__).parents[2] / "examples/fashion_mnist/checkpoint.pt"))
    model, threat = Classifier(net), ThreatModel(norm="linf", eps=0.02)
    bench = Bench(sample(load_split(Workdir(Path(root)), "test"), 22, 0), 10, 0, 3, torch.device("cpu"), team)
    attacks = (FGSM(), PGD(steps=3, restarts=2), TargetedAPGD(steps=6, targets=2), Square(queries=40))
    ledger = evaluate(model, bench, Suite(tuple(Entry(attack, threat) for attack in attacks)))
    done = {name: [0.5] * 5 for name in CORRUPTIONS if name != "contrast"}
    corruption_accuracy(model, bench, done)
    return {
        "predictions": ledger.predictions.tolist(),
        "tallies": [tally.to_json() for tally in ledger.tallies],
        "contrast": done["contrast"],
        "cost": asdict(team.total(model.cost)),
    }


def one_rank_fails(root: str, team) -> dict[str, Any]:
    """As ``whole_run``, but in the second epoch the last rank alone crafts with gradients that are not finite."""
    from core.errors import BadLogitsError
    from core.inner_attacks import pgd

    crafts, honest = iter(range(1000)), pgd.ascend

    def ascend(*arguments: Any, **options: Any) -> Any:
        if next(crafts) == 4 and team.rank == team.size - 1:
            raise BadLogitsError("only here")
        return honest(*arguments, **options)

    pgd.ascend = ascend
    try:
        return whole_run(root, team)
    finally:
        pgd.ascend = honest


def batch_norm(root: str, team) -> dict[str, Any]:
    """A step of BatchNorm in all its forms, on seven images that the ranks share, or on all of them alone."""
    import torch
    from torch import nn

    from core.models.classifier import Classifier
    from core.parallel import Share

    torch.manual_seed(0)
    frozen = nn.BatchNorm2d(2)
    frozen.running_mean += 1
    layers = [nn.BatchNorm2d(2, momentum=None), nn.Conv2d(2, 2, 2), frozen, nn.ReLU(), nn.BatchNorm2d(2, affine=False)]
    last = [nn.Flatten(), nn.Linear(8, 4), nn.BatchNorm1d(4, track_running_stats=False)]
    model = Classifier(nn.Sequential(*layers, *last)).train()
    frozen.eval()
    x, goal = torch.rand(7, 2, 3, 3) * torch.arange(1, 8).view(-1, 1, 1, 1), torch.rand(7, 4)
    share = Share(team, 7)
    mine = share.of(x).clone().requires_grad_(True)
    with share.training(model):
        outputs = model(mine)
        loss = ((outputs - share.of(goal)) ** 2).mean() * share.weight
        loss.backward()
    team.sum_gradients(model.parameters())
    values = {"outputs": share.whole(outputs.detach()), "images": share.whole(mine.grad), **model.state_dict()}
    values |= {f"{name}.grad": parameter.grad for name, parameter in model.named_parameters()}
    return {name: value.tolist() for name, value in values.items()}


def other_norm(root: str, team) -> dict[str, Any]:
    """A layer that keeps the mean of the images it saw, on each rank of others."""
    import torch

    net = torch.nn.InstanceNorm2d(2, track_running_stats=True)
    net(torch.rand(3, 2, 4, 4, generator=torch.Generator().manual_seed(team.rank)))
    team.check_alike(net)
    return {}


def whole_run(root: str, team, **stop: int) -> dict[str, Any]:
    """All of a job, by what the command itself calls."""
    from core.__main__ import work

    asked = StopWhen(**stop)
    status = work(Path(root), asked.watch, asked.watch, asked if team.leads else lambda: False, team)
    return {"status": status, "last": asked.events[-1]}


KINDS: dict[str, Callable[..., dict[str, Any]]] = {
    each.__name__: each for each in (train, evaluate, batch_norm, one_rank_fails, other_norm, whole_run)
}


def do(job: dict[str, Any], team) -> dict[str, Any]:
    """A job's result; if it ends early, how."""
    from core.errors import RunError, Stopped

    try:
        return KINDS[job["kind"]](job["root"], team, **job.get("stop", {}))
    except (RunError, Stopped) as error:
        team.tell(error)
        return {"ended": type(error).__name__, "detail": str(error)}


def main(arguments: list[str]) -> int:
    match arguments:
        case ["start", folder, count]:
            statuses = launch.launch(["-m", "tests.core.ranks", "rank", folder], int(count), Path(folder) / "ranks")
            return max(map(abs, statuses.values()), default=0)
        case ["rank", folder, launcher]:
            launch.tie_to(int(launcher))
            return _rank(Path(folder))
    return 2


def _rank(folder: Path) -> int:
    import torch

    from core.parallel import Ranks

    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    team = Ranks(rank, size, torch.device("cpu"), folder / "ranks" / "store")
    for job in json.loads((folder / "jobs.json").read_text()):
        one = copy.copy(team)
        one.leave = lambda: None
        result = do(job, one)
        (folder / f"{job['name']}.{rank}.json").write_text(json.dumps(result))
    team.leave()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
