"""Single attacks on the CPU: images a second and robust accuracy, against torchattacks, foolbox and ART in one run.

Every contender gets the same weights, images and batches; rounds are interleaved, and medians are compared.
Ours gets the network wrapped as the engine wraps it (channels_last); peers get it as they would from a user.
"""

from __future__ import annotations

import logging
import statistics
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.models import Subject, cifar10, fashion_mnist
from core.attacks.apgd import APGD
from core.attacks.base import Attack
from core.attacks.pgd import PGD
from core.attacks.square import Square
from core.models.classifier import Classifier
from core.rng import Rng
from core.threat import ThreatModel

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import foolbox
    import torchattacks
    from art.attacks.evasion import AutoProjectedGradientDescent, ProjectedGradientDescent, SquareAttack
    from art.estimators.classification import PyTorchClassifier

COUNT, BATCH, ROUNDS = 250, 250, 3
Craft = Callable[[Tensor, Tensor, Tensor, int], Tensor]

OURS: dict[str, Attack] = {
    "PGD-10": PGD(steps=10, step_size="eps/4"),
    "PGD-100": PGD(steps=100, step_size="eps/4"),
    "APGD-CE, 50 steps": APGD(name="apgd-ce", steps=50),
    "Square, 500 queries": Square(queries=500),
}


def ours(attack: Attack, subject: Subject) -> Craft:
    """Our attack on the engine's wrapping of the network."""
    model, threat = Classifier(subject.network()).eval(), ThreatModel(norm="linf", eps=subject.eps)
    return lambda x, y, ids, seed: attack.perturb(model, x, y, threat, Rng.for_images(seed, ids))


def peers(name: str, subject: Subject) -> dict[str, Craft]:
    """Those that have this attack; they draw from global generators."""
    net, eps = subject.network(), subject.eps
    art_model = PyTorchClassifier(
        net, nn.CrossEntropyLoss(), tuple(subject.x.shape[1:]), 10, clip_values=(0, 1), device_type="cpu"
    )
    found: dict[str, Craft] = {}

    def torchattack(attack: Callable[[Tensor, Tensor], Tensor]) -> Craft:
        return lambda x, y, _ids, _seed: attack(x, y)

    def art(attack: SquareAttack) -> Craft:
        return lambda x, y, _ids, _seed: torch.from_numpy(attack.generate(x.numpy(), y.numpy()))

    if name.startswith("PGD"):
        steps = int(name.removeprefix("PGD-"))
        found["torchattacks"] = torchattack(torchattacks.PGD(net, eps=eps, alpha=eps / 4, steps=steps))
        box, wrapped = foolbox.attacks.LinfPGD(rel_stepsize=0.25, steps=steps), foolbox.PyTorchModel(net, bounds=(0, 1))
        found["foolbox"] = lambda x, y, _ids, _seed: box(wrapped, x, y, epsilons=eps)[1]
        found["art"] = art(
            ProjectedGradientDescent(
                art_model, eps=eps, eps_step=eps / 4, max_iter=steps, num_random_init=1, batch_size=BATCH, verbose=False
            )
        )
    elif name.startswith("APGD"):
        found["torchattacks"] = torchattack(torchattacks.APGD(net, norm="Linf", eps=eps, steps=50, loss="ce"))
        found["art"] = art(
            AutoProjectedGradientDescent(
                art_model, eps=eps, eps_step=2 * eps, max_iter=50, nb_random_init=1, batch_size=BATCH,
                loss_type="cross_entropy", verbose=False,
            )
        )  # fmt: skip
    else:
        found["torchattacks"] = torchattack(torchattacks.Square(net, norm="Linf", eps=eps, n_queries=500, p_init=0.8))
        found["art"] = art(
            SquareAttack(art_model, eps=eps, max_iter=500, p_init=0.8, nb_restarts=1, batch_size=BATCH, verbose=False)
        )
    return found


def measure(name: str, subject: Subject) -> None:
    """One table."""
    contenders = {"temper": ours(OURS[name], subject), **peers(name, subject)}
    net = subject.network()
    x, y = subject.x[:COUNT], subject.y[:COUNT]
    batches = list(zip(x.split(BATCH), y.split(BATCH), torch.arange(COUNT).split(BATCH), strict=True))
    seconds: dict[str, list[float]] = {key: [] for key in contenders}
    correct: dict[str, list[float]] = {key: [] for key in contenders}
    for seed in range(ROUNDS):
        for key, craft in contenders.items():
            started = time.perf_counter()
            adversarial = torch.cat([craft(*batch, seed) for batch in batches])
            seconds[key].append(time.perf_counter() - started)
            with torch.no_grad():
                correct[key].append((net(adversarial).argmax(1) == y).float().mean().item())
    rates = {key: COUNT / statistics.median(values) for key, values in seconds.items()}
    best = max(rate for key, rate in rates.items() if key != "temper")
    where = f"{COUNT} images, {torch.get_num_threads()} threads, median of {ROUNDS}"
    print(f"\n{name} on {subject.name}, {where}: {rates['temper'] / best:.1f}x the best peer")
    for key, rate in rates.items():
        print(
            f"  {key:14}{rate:8.1f} images/s   robust accuracy {100 * statistics.mean(correct[key]):.2f}%", flush=True
        )


def growth(subject: Subject) -> None:
    """Time against images and against steps, four sizes each, as ratios to the smallest."""
    model, threat = Classifier(subject.network()).eval(), ThreatModel(norm="linf", eps=subject.eps)

    def seconds(steps: int, count: int) -> float:
        attack, times = PGD(steps=steps), []
        for _ in range(3):
            started = time.perf_counter()
            for first in range(0, count, BATCH // 2):
                rows = slice(first, min(first + BATCH // 2, count))
                ids = torch.arange(rows.start, rows.stop)
                attack.perturb(model, subject.x[rows], subject.y[rows], threat, Rng.for_images(0, ids))
            times.append(time.perf_counter() - started)
        return statistics.median(times)

    seconds(10, 125)
    by_images = [seconds(20, count) for count in (125, 250, 500, 1000)]
    by_steps = [seconds(steps, 250) for steps in (10, 20, 40, 80)]
    for what, values in (("125, 250, 500, 1000 images", by_images), ("10, 20, 40, 80 steps", by_steps)):
        print(f"  {what}: {', '.join(f'{value / values[0]:.2f}' for value in values)} times the first")


def main() -> None:
    """Every attack on every network, then growth."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    subjects = [*fashion_mnist(), *cifar10()]
    for subject in subjects:
        for name in OURS:
            measure(name, subject)
    print(f"\ngrowth of PGD on {subjects[1].name}")
    growth(subjects[1])
