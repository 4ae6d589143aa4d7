"""What a run leaves beside its report and its checkpoint, to look at and to compute with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from core import per_image
from core.assemble import training_of
from core.attacks.pgd import PGD
from core.embedding import embed
from core.errors import UnsupportedError
from core.examples import choose_examples, write_examples
from core.inputs import Inputs
from core.models.classifier import Classifier
from core.outcome import Outcome
from core.prepared import Workdir
from core.rng import Rng, derive_seed
from core.tally import Mask
from core.train import Trained


def write_images(inputs: Inputs, workdir: Workdir, before: Outcome, after: Outcome | None) -> Path:
    """Every image's labels, successes, queries and norms, as Parquet."""
    workdir.output.mkdir(exist_ok=True)
    path = workdir.output / per_image.NAME
    per_image.write_per_image(path, inputs.bench, inputs.suite, before, after)
    return path


def write_pictures(
    inputs: Inputs, workdir: Workdir, trained: Trained, uploaded: Classifier, exported: Classifier
) -> tuple[list[Path], list[str]]:
    """The training curves, and the embedding of Jeddi et al. before and after; with notes for the report.

    A picture that cannot be drawn is such a note, and no reason to lose the report.
    """
    from core.pictures import write_curves, write_embedding  # matplotlib takes its time

    paths, train = write_curves(workdir.output, training_of(inputs, trained)), inputs.train or inputs.images
    try:
        before = embed(uploaded, train, inputs.bench, craft=_craft(inputs, uploaded))
        after = embed(exported, train, inputs.bench, craft=_craft(inputs, exported), like=before)
        paths += write_embedding(workdir.output, before, after, inputs.data.class_names)
    except (UnsupportedError, RuntimeError) as error:  # torch's own: no memory, or no convergence
        return paths, [f"No picture of the embedding: {error}."]
    return paths, []


def write_examples_of(
    inputs: Inputs, workdir: Workdir, uploaded: Classifier, exported: Classifier | None, robust: Mask
) -> Path:
    """A few adversarial examples.

    Args:
        exported: the hardened model; None if nothing was trained.
        robust: (n,), which images no attack of the suite fooled on the model that ships.
    """
    names = inputs.data.class_names
    return write_examples(
        workdir.output, choose_examples(uploaded, exported, inputs.bench, inputs.headline, names, robust)
    )


def _craft(inputs: Inputs, model: Classifier) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The attacked images of the embedding."""
    attack, seed, threat = PGD(steps=10), derive_seed(inputs.spec.seed, "picture"), inputs.headline
    return lambda x, y, ids: attack.perturb(model, x, y, threat, Rng.for_images(seed, ids))
