"""PGD-10, eps 0.1, step eps/4: images a second and robust accuracy, against torchattacks and foolbox.

Every contender gets the same weights, images and batches; rounds are interleaved, and medians are compared.
Ours gets the network wrapped as the engine wraps it (channels_last); peers get it as they would from a user.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.models import EXAMPLE, hardened_checkpoint, images, network
from core.attacks.pgd import PGD
from core.models.classifier import Classifier
from core.rng import Rng
from core.threat import ThreatModel

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import foolbox
    import torchattacks

COUNT, BATCH, ROUNDS, EPS, STEPS = 1000, 250, 7, 0.1, 10
Attack = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def contenders(net: nn.Module) -> dict[str, Attack]:
    """Each one's attack on a batch (x, y, ids) with a seed; the peers draw from torch's global generator."""
    ours = Classifier(network_copy(net)).eval()
    pgd, threat = PGD(steps=STEPS, step_size="eps/4"), ThreatModel(norm="linf", eps=EPS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = torchattacks.PGD(net, eps=EPS, alpha=EPS / 4, steps=STEPS)
        box = foolbox.attacks.LinfPGD(rel_stepsize=0.25, steps=STEPS)
        wrapped = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
    return {
        "temper": lambda x, y, ids, seed: pgd.perturb(ours, x, y, threat, Rng.for_images(seed, ids)),
        "torchattacks": lambda x, y, _ids, _seed: theirs(x, y),
        "foolbox": lambda x, y, _ids, _seed: box(wrapped, x, y, epsilons=EPS)[1],
    }


def network_copy(net: nn.Module) -> nn.Module:
    """So that channels_last does not reach the peers' copy."""
    copy = network(EXAMPLE / "checkpoint.pt")
    copy.load_state_dict(net.state_dict())
    return copy


def measure(name: str, checkpoint: Path) -> None:
    """One table."""
    net = network(checkpoint)
    x, y = images(COUNT)
    ids = torch.arange(COUNT)
    attacks = contenders(net)
    seconds: dict[str, list[float]] = {key: [] for key in attacks}
    correct: dict[str, list[float]] = {key: [] for key in attacks}
    for round_number in range(ROUNDS + 1):
        for key, attack in attacks.items():
            started = time.perf_counter()
            adversarial = [
                attack(*batch, round_number)
                for batch in zip(x.split(BATCH), y.split(BATCH), ids.split(BATCH), strict=True)
            ]
            elapsed = time.perf_counter() - started
            with torch.no_grad():
                share = (net(torch.cat(adversarial)).argmax(1) == y).float().mean().item()
            if round_number:  # the first is a warm-up
                seconds[key].append(elapsed)
                correct[key].append(share)
    rates = {key: COUNT / statistics.median(values) for key, values in seconds.items()}
    print(f"\nPGD-{STEPS} on the {name} network, {COUNT} images, {torch.get_num_threads()} threads, median of {ROUNDS}")
    for key, rate in rates.items():
        shares = [100 * share for share in correct[key]]
        spread = f"mean {statistics.mean(shares):.2f}% ({min(shares):.1f} to {max(shares):.1f})"
        print(f"  {key:14}{rate:8.0f} images/s   robust accuracy over {ROUNDS} seeds: {spread}")
    best = max(rate for key, rate in rates.items() if key != "temper")
    print(f"  temper is {rates['temper'] / best:.2f}x the faster peer")


def main() -> None:
    """Both networks."""
    measure("undefended", EXAMPLE / "checkpoint.pt")
    measure("hardened", hardened_checkpoint())
