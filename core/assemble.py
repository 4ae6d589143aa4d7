"""Puts the report together from what the phases measured."""

from __future__ import annotations

import platform
import resource
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from core import __version__
from core.export import file_sha256, loading_snippet
from core.inputs import Inputs
from core.outcome import Outcome
from core.prepared import FORMATS, Workdir
from core.report import (
    Change,
    Cost,
    Diagnostic,
    EpochCurve,
    Images,
    Output,
    PairedChange,
    PhaseCost,
    Report,
    Search,
    Training,
)
from core.tally import Mask
from core.train import Trained
from core.verdict import judge


def assemble(
    inputs: Inputs,
    workdir: Workdir,
    before: Outcome,
    after: Outcome | None,
    trained: Trained | None,
    costs: dict[str, PhaseCost],
    notes: Sequence[str],
    search: Search | None = None,
) -> Report:
    """The report of a finished run; ``after`` and ``trained`` are None if nothing was trained.

    ``notes``: what the run itself has to say, beside what the inputs and the training say.
    """
    spec = inputs.spec
    change = _change(before, after) if after else None
    return Report(
        verdict=judge(
            suite=spec.evaluation.suite,
            threat=inputs.headline,
            chance=inputs.chance,
            before=before.side,
            after=after.side if after else None,
            change=change,
            leaked=inputs.data.leaks / inputs.data.counts["test"] if after else 0.0,
        ),
        threat=inputs.headline,
        suite=spec.evaluation.suite,
        images=Images(count=len(inputs.images), ids_sha256=inputs.images.ids_sha256()),
        before=before.side,
        after=after.side if after else None,
        change=change,
        training=training_of(inputs, trained) if trained else None,
        search=search,
        notes=(*inputs.notes(), *(_ended_early(trained) if trained else ()), *notes),
        diagnostics=_raised(before, after),
        cost=Cost(
            phases=costs,
            total_fb=sum(phase.fb for phase in costs.values()),
            total_seconds=sum(phase.seconds for phase in costs.values()),
            peak_memory_bytes=_peak_memory(inputs.device),
        ),
        inputs=_files(inputs),
        output=_output(inputs, workdir) if trained else None,
        environment=_environment(inputs.device),
        spec=spec,
    )


def _ended_early(trained: Trained) -> list[str]:
    """Why training ended before its last epoch, if it did."""
    state = trained.state
    if state.stopped == "catastrophic-overfitting":
        last = state.history()[-1]
        return [
            f"Training ended after epoch {last.epoch}: catastrophic overfitting. On held-out images accuracy under one "
            f"FGSM step was {last.held_out_fgsm:.1%}, under PGD-10 only {last.held_out_robust:.1%}; "
            f"epoch {state.best_epoch} ships."
        ]
    if state.stopped == "goal":
        return [f"Training ended after epoch {len(state.curves)}: the goal is met on the held-out images."]
    if state.stopped == "budget":
        return [f"Training ended after epoch {len(state.curves)}: the budget of minutes is spent."]
    if state.stopped == "patience":
        return [f"Training ended after epoch {len(state.curves)}: no better held-out robustness for a while."]
    return []


def _raised(before: Outcome, after: Outcome | None) -> tuple[Diagnostic, ...]:
    sides = {"before": before, "after": after}
    return tuple(
        Diagnostic.model_validate({**sign.model_dump(), "side": name})
        for name, outcome in sides.items()
        if outcome is not None
        for sign in outcome.side.diagnosis or ()
        if sign.raised
    )


def _change(before: Outcome, after: Outcome) -> Change:
    def paired(was: Mask, now: Mask) -> PairedChange:
        return PairedChange.of(int((~was & now).sum()), int((was & ~now).sum()), len(was))

    return Change(clean=paired(before.clean, after.clean), robust=paired(before.robust, after.robust))


def training_of(inputs: Inputs, trained: Trained) -> Training:
    """The training curves, as the report has them."""
    return Training(
        curves=tuple(EpochCurve(**curve) for curve in trained.state.curves),
        selected_epoch=trained.state.best_epoch,
        stopped=trained.state.stopped,
        selected_by=inputs.spec.training.select if inputs.spec.training else "goal",
        train_images=len(inputs.train or ()),
        held_out_images=len(inputs.held_out or ()),
    )


def _files(inputs: Inputs) -> dict[str, Any]:
    manifest = inputs.manifest
    return {
        "checkpoint": {
            **manifest.source.model_dump(),
            "format": manifest.format,
            "tensors": len(manifest.tensors),
            "matched_by": inputs.match.by,
        },
        "data": inputs.data.model_dump(mode="json", exclude={"class_names"}),
    }


def _output(inputs: Inputs, workdir: Workdir) -> Output:
    manifest = inputs.manifest
    files = {workdir.checkpoint(kind).name: file_sha256(workdir.checkpoint(kind)) for kind in FORMATS}
    return Output(
        sha256=files[workdir.checkpoint(manifest.format).name],
        format=manifest.format,
        files=files,
        tensors=len(manifest.tensors),
        snippet=loading_snippet(manifest),
    )


def _peak_memory(device: torch.device) -> int:
    """Device memory on CUDA, else the process's peak resident size."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _environment(device: torch.device) -> dict[str, Any]:
    return {
        "temper": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": sys.platform,
        "machine": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),  # another set rounds otherwise
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
    }
