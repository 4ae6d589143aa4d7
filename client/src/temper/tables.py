"""Answers of the service as people read them in a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from temper.course import duration, percent
from temper.plain import plain

_MEANS = {
    "robust": " (against these attacks, on these images)",
    "brittle": " (little robustness, or no gain)",
    "suspect": " (the robust accuracy is likely too good to be true)",
    "unverified": " (it may be robust: this evaluation cannot show it)",
}


def _text(of: object, style: str = "") -> Text:
    return Text(plain(of), style=style)


def of_jobs(jobs: Sequence[dict[str, Any]]) -> RenderableType:
    """Jobs, one a line."""
    table = Table(box=None, pad_edge=False)
    table.add_column("id", no_wrap=True)  # whole, to be copied
    for title in ("name", "defense", "state", "clean", "robust", "created"):
        table.add_column(title)
    for job in jobs:
        outcome = job.get("outcome")  # a service from before there were any does not tell
        side = outcome and (outcome["after"] or outcome["before"])
        shares = [percent(side[kind]["accuracy"]) for kind in ("clean", "robust")] if side else ["", ""]
        created = (job["created_at"] or "")[:16].replace("T", " ")
        table.add_row(*map(_text, (job["id"], job["name"] or "", job["defense"], _state(job), *shares, created)))
    return table


def _state(job: dict[str, Any]) -> str:
    """With how far it is, or the verdict: no accuracy is shown without it."""
    if job["phase"]:
        return f"{job['state']}: {job['phase']}, {percent(job['progress'].get('fraction', 0.0))}"
    return f"{job['state']}: {job['outcome']['verdict']}" if job.get("outcome") else str(job["state"])


def of_report(report: dict[str, Any]) -> RenderableType:
    """The verdict in words, then before and after, then what it cost."""
    return Group(*_report(report))


def _report(report: dict[str, Any]) -> Iterator[RenderableType]:
    yield _text(f"verdict: {report['verdict']['kind']}{_MEANS.get(report['verdict']['kind'], '')}", style="bold")
    for reason in report["verdict"]["reasons"]:
        yield _text(f"- {reason}")
    for remedy in report["verdict"].get("remedies", []):  # a service from before there were any names none
        yield _text(
            f"-> to know: {remedy}" + ("; with the hardened checkpoint and defense none" if report["after"] else "")
        )
    before, after = report["before"], report["after"] or {}
    threat = report["threat"]
    title = (
        f"{report['images']['count']} test images, {threat['norm']} eps {_eps(threat['eps'])}, suite {report['suite']}"
    )
    table = Table("accuracy", "before", *(["after"] if after else []), title=title)
    rows = [("clean", before["clean"], after.get("clean"))]
    for was, now in zip(before["attacks"], after.get("attacks", before["attacks"]), strict=True):
        rows.append((f"under {was['name']}", was, now))
    rows.append(("robust: under all", before["robust"], after.get("robust")))
    for name, was, now in rows:
        table.add_row(_text(name), _share(was), *([_share(now)] if now and after else []))
    yield table
    if report["change"]:
        for kind in ("clean", "robust"):
            change = report["change"][kind]
            yield _text(f"{kind}: {100 * change['delta']:+.1f} points (p = {change['p_value']:.2g})")
    for sign in report["diagnostics"]:
        yield _text(f"{sign['side']}: {sign['code']}: {sign['sentence']}")
    for note in report["notes"]:
        yield _text(f"note: {note}")
    cost = report["cost"]
    yield _text(f"cost: {cost['total_fb']:,} forward and backward passes in {duration(cost['total_seconds'])}")


def _eps(eps: float) -> str:
    """As people write it: of 255, or as a number."""
    levels = eps * 255
    return f"{levels:.4g}/255" if levels > 0 and abs(levels - round(levels)) < 1e-6 else f"{eps:.4g}"


def _share(count: dict[str, Any]) -> Text:
    low, high = count["ci95"]
    return _text(f"{percent(count['accuracy'])} [{percent(low)}, {percent(high)}]")


def of_catalog(kind: str, items: Sequence[dict[str, Any]]) -> RenderableType:
    """Names, and what they stand for."""
    table = Table(box=None, pad_edge=False)
    table.add_column(kind, no_wrap=True)
    table.add_column()
    for item in items:
        table.add_row(_text(item["name"]), _text(str(item.get("title") or "")))
    return table


def of_entry(item: dict[str, Any]) -> RenderableType:
    """One of them, with its fields."""
    head = [_text(f"{item['name']}: {item.get('title') or ''}", style="bold")]
    if item.get("paper"):
        head.append(_text(str(item["paper"])))
    fields = item.get("schema", {}).get("properties", {})
    table = Table("field", "default", "", box=None, pad_edge=False)
    for name, field in fields.items():
        if name != "name":
            default = item.get("defaults", {}).get(name, field.get("default"))
            table.add_row(
                _text(name), _text("" if default is None else str(default)), _text(field.get("description", ""))
            )
    return Group(*head, *([table] if fields else []))
