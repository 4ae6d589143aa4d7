"""Puts the report page together."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cache

from markupsafe import Markup

from core.embedding import Embedding
from core.examples import Examples, Picture
from core.report import Report
from web.environment import render, static_files
from web.report import drawings, tables, words
from web.report.verdict import reading

_STYLES = ("temper.css", "report.css")


@dataclass(frozen=True)
class About:
    """The job that the report is of. ``finished_at``: UTC, ISO 8601."""

    job_id: str
    name: str | None
    finished_at: str | None


@dataclass(frozen=True)
class Pictures:
    """What a job made to be looked at, beside its report; None where it made none."""

    examples: Examples | None = None
    embedding_before: Embedding | None = None
    embedding_after: Embedding | None = None


@cache
def content_policy() -> str:
    """The Content-Security-Policy of the page: its own style sheet and pictures inside it, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(_styles().encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"


def report_page(report: Report, about: About, pictures: Pictures, *, alone: bool) -> str:
    """The whole page, with style sheet and pictures inside it.

    Args:
        alone: to be sent around as a file: without links to the service.
    """
    names = pictures.examples.class_names if pictures.examples else None
    rows, classes = tables.accuracies(report), tables.classes(report, names)
    before, training = pictures.embedding_before, report.training
    corruptions = [(side.corruptions if side else None) for side in (report.before, report.after)]
    embedding = drawings.of_embedding(before, pictures.embedding_after, names) if before else None
    return render(
        "report/page.html",
        report=report,
        about=about,
        alone=alone,
        title=about.name or f"{_architecture(report)}, {report.spec.defense.name}",
        styles=Markup(_styles()),  # noqa: S704 - files of this package
        policy=content_policy(),
        reading=reading(report),
        lead=words.lead(report),
        change_sentence=words.change_sentence(report),
        ball=words.ball(report.threat),
        selection=words.selection(report),
        epoch_ships=words.epoch_ships(report),
        overlooked=words.overlooked(words.shipped(report)),
        rows=rows,
        cumulative=any(attack.cumulative for attack in words.shipped(report).attacks),
        chart_of_accuracies=drawings.of_accuracies(rows),
        chart_of_curves=drawings.of_curves(report),
        chart_of_training=drawings.of_training(report) if training else None,
        epochs=tables.epochs(training.curves, training.selected_epoch) if training else [],
        examples=pictures.examples,
        picture=_address,
        class_name=lambda label: tables.class_name(label, names),
        classes=classes,
        all_classes=len(report.before.by_class),
        chart_of_classes=drawings.of_classes(classes) if classes else None,
        confusions=tables.confusions(words.shipped(report), names),
        corruptions=tables.corruptions(*corruptions),
        corrupted=[each for each in corruptions if each is not None],
        chart_of_corruptions=drawings.of_corruptions(*corruptions) if any(corruptions) else None,
        embedding=embedding,
        embedded=before,
        raised=tables.raised(report),
        checks=tables.checks(report),
        trained_on=_normalisation(report),
        spec=report.spec.model_dump(mode="json"),
    )


def _styles() -> str:
    return "".join(static_files()[name].content.decode() for name in _STYLES)


def _address(picture: Picture) -> str:
    return f"data:{picture.media_type};base64,{picture.content}"


def _architecture(report: Report) -> str:
    architecture = report.spec.model.architecture
    return str(getattr(architecture, "model", architecture.name))


def _normalisation(report: Report) -> str:
    mean, std = report.spec.model.mean, report.spec.model.std
    if mean is None and std is None:
        return "Images are given in [0, 1], without normalisation."
    return f"Images are given in [0, 1], then normalised with mean {list(mean or [0.0])} and std {list(std or [1.0])}."
