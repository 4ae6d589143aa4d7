"""The model card: a README.md in the form of the Hugging Face Hub, https://huggingface.co/docs/hub/model-cards.

It holds nothing that differs between equal jobs: no time, no duration, no id. Text of users is escaped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from core.report import AttackResult, Count, Report, Search, Side, Training
from core.suites import STRONG
from core.threat import ThreatModel

NAME = "model-card.md"
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.\-]{0,49}")
_MARKUP = re.compile(r"[\\`*_\[\]<>|#~&!$@]|:(?=//)|(?<=www)\.")
_VERDICTS = {
    "robust": "**Robust.** The share below withstands strong attacks, and no sign of gradient masking was found.",
    "brittle": "**Brittle.** The model has little or no robustness, or hardening brought no real gain.",
    "suspect": "**Suspect.** There are signs of gradient masking: the robust accuracy may be too good to be true.",
    "unverified": "**Unverified.** The robust accuracy is an upper bound that cannot be relied on yet.",
}
_BALLS = {
    "linf": "no value of a pixel changes by more than eps",
    "l2": "the Euclidean norm of the change is at most eps",
    "l1": "the sum of the absolute changes is at most eps",
}


def model_card(report: Report) -> str:
    """The whole card, Markdown with YAML front matter.

    The license is that of the spec's tag ``license``, else unknown. For a job that trained nothing it describes the
    uploaded checkpoint.
    """
    parts = (_front_matter, _head, _numbers, _verdict, _threat, _loading, _limits, _reproducing)
    return "\n\n".join("\n".join(part(report)) for part in parts) + "\n"


def _shipped(report: Report) -> Side:
    return report.after or report.before


def _front_matter(report: Report) -> Iterator[str]:
    told = report.spec.tags.get("license", "").lower()
    yield "---"
    yield f"license: {_yaml(told if _LICENSE.fullmatch(told) else 'unknown')}"
    yield "pipeline_tag: image-classification"
    yield "tags:"
    defense = report.spec.defense.name
    for tag in ("image-classification", "adversarial-robustness", "temper", f"defense-{defense}"):
        yield f"- {_yaml(tag)}"
    yield "model-index:"
    yield f"- name: {_yaml(_name(report))}"
    yield "  results:"
    yield "  - task:"
    yield "      type: image-classification"
    yield "      name: Image classification"
    yield "    dataset:"
    yield f"      type: {_yaml(report.spec.data.dataset or 'custom')}"
    yield f"      name: {_yaml(_data_name(report))}"
    yield "      split: test"
    yield "    metrics:"
    side = _shipped(report)
    rows = [("Clean accuracy", side.clean), (f"Robust accuracy ({_suite(report)}; {report.verdict.kind})", side.robust)]
    rows += [(f"Accuracy under {_attack(attack)}", attack) for attack in side.attacks]
    for name, count in rows:
        yield "    - type: accuracy"
        yield f"      name: {_yaml(name)}"
        yield f"      value: {count.accuracy:.6f}"
    yield "---"


def _head(report: Report) -> Iterator[str]:
    spec = report.spec
    yield f"# {_plain(_name(report))}"
    yield ""
    if report.after is None:
        yield f"An image classifier ({_architecture(report)}) as it was uploaded, evaluated by Temper."
    else:
        yield (
            f"An image classifier ({_architecture(report)}) that Temper fine-tuned by the defense "
            f"`{spec.defense.name}` to withstand adversarial examples."
        )


def _numbers(report: Report) -> Iterator[str]:
    sides = [("Before", report.before), ("After", report.after)]
    shown = [(name, side) for name, side in sides if side is not None]
    total = report.images.count
    yield "## Numbers"
    yield ""
    yield f"Of {total} test images of {_plain(_data_name(report))}, with 95% intervals (Wilson):"
    yield ""
    yield f"| | {' | '.join(name for name, _ in shown)} |"
    yield f"|---|{'---|' * len(shown)}"
    yield _row("Clean accuracy", [side.clean for _, side in shown])
    names = list(dict.fromkeys(_attack(attack) for _, side in shown for attack in side.attacks))
    for name in names:
        yield _row(
            f"Under {name}",
            [next((each for each in side.attacks if _attack(each) == name), None) for _, side in shown],
        )
    yield _row("**Robust accuracy** (worst case of each image)", [side.robust for _, side in shown])
    if any(attack.cumulative for _, side in shown for attack in side.attacks):
        yield ""
        yield "Each attack was tried on what those above it had left; its accuracy is that of all so far."
    if report.change is not None:
        yield ""
        for name, change in (("Clean", report.change.clean), ("Robust", report.change.robust)):
            yield (
                f"- {name} accuracy changed by {100 * change.delta:+.1f} points: {change.gained} image(s) gained, "
                f"{change.lost} lost (McNemar's exact test, p = {change.p_value:.2g})."
            )


def _verdict(report: Report) -> Iterator[str]:
    yield "## Verdict"
    yield ""
    yield _VERDICTS[report.verdict.kind]
    yield ""
    yield from (f"- {_plain(reason)}" for reason in report.verdict.reasons)


def _threat(report: Report) -> Iterator[str]:
    threat = report.threat
    yield "## Threat model"
    yield ""
    yield (
        f"The attacker knows the whole model and changes an image within {threat.norm} eps {threat.eps:.4g} "
        f"(pixels in [0, 1]): {_BALLS[threat.norm]}. The suite is `{report.suite}`."
    )


def _loading(report: Report) -> Iterator[str]:
    mean, std = report.spec.model.mean, report.spec.model.std
    yield "## How to load it"
    yield ""
    if report.output is not None:
        yield "The file has the keys, dtypes and format of the one that was uploaded:"
        yield ""
        yield "```python"
        yield report.output.snippet
        yield "```"
    else:
        yield "It is the file that was uploaded: load it as before."
    yield ""
    if mean is not None and std is not None:
        yield f"Images are in [0, 1], then normalised with mean {list(mean)} and std {list(std)}."
    else:
        yield "Images are in [0, 1], without normalisation."


def _limits(report: Report) -> Iterator[str]:
    held = report.inputs["data"]["counts"]["test"]
    yield "## Limits"
    yield ""
    yield "- Robust accuracy is what these attacks left: an upper bound, no proof. A stronger attack may find more."
    yield "- It holds for this threat model only: not for other norms, a larger eps, patches, rotations or blur."
    yield f"- It was measured on {report.images.count} of {held} test images. Other data, other numbers."
    if report.suite not in STRONG:
        yield f"- Suite `{report.suite}` is a quick look. Take suite `standard` or `strict` before you rely on it."
    if _shipped(report).diagnosis is None:
        yield "- Whether the robustness is real was not diagnosed."
    if report.change is not None and report.change.clean.delta < 0:
        lost = -100 * report.change.clean.delta
        yield f"- Hardening cost {lost:.1f} points of clean accuracy; some classes may have lost more."
    if report.training is not None:
        training = report.training
        yield f"- {_selection(training, report.search)}"
        if not report.inputs["data"]["leaks"]:
            yield "- The test images had no part in the training."
    shown = [each for each in report.diagnostics if each.side == ("after" if report.after else "before")]
    yield from (f"- {each.code}: {_plain(each.sentence)}" for each in shown)
    yield from (f"- {_plain(note)}" for note in report.notes)
    yield "- The license of model and data is for whoever publishes them to settle; unknown means unknown."


def _selection(training: Training, search: Search | None) -> str:
    if search is not None and search.shipped.rung is not None:
        return f"What ships is what rung {search.shipped.rung} of a search left of `{search.shipped.candidate}`."
    if training.selected_by == "last":
        return "The last epoch ships; nothing was chosen."
    return (
        f"Epoch {training.selected_epoch} ships, chosen by `{training.selected_by}` on {training.held_out_images} "
        "training images that were held out from hardening."
    )


def _reproducing(report: Report) -> Iterator[str]:
    yield "## How to reproduce it"
    yield ""
    yield "Equal inputs, spec and versions on equal hardware give equal bytes. `certificate.json` binds all of this:"
    yield ""
    checkpoint, data = report.inputs["checkpoint"], report.inputs["data"]["source"]
    yield "| | SHA-256 |"
    yield "|---|---|"
    first = "uploaded checkpoint" if report.spec.model.weights == "uploaded" else "random weights"
    yield f"| {first} {_plain(checkpoint['filename'])} | `{checkpoint['sha256']}` |"
    yield f"| data {_plain(data['filename'])} | `{data['sha256']}` |"
    for name, sha256 in report.output.files.items() if report.output else ():
        yield f"| {name} | `{sha256}` |"
    yield f"| ids of the test images | `{report.images.ids_sha256}` |"
    yield ""
    names = ("temper", "python", "torch", "numpy", "machine", "device")
    yield ", ".join(f"{name} {_plain(str(report.environment[name]))}" for name in names)
    yield ""
    yield "```"
    yield "temper verify certificate.json CHECKPOINT                      # signature and hashes"
    yield "python -m core verify certificate.json CHECKPOINT DATA --sample 100   # attacks it again"
    yield "```"
    yield ""
    yield "The whole spec; POST it to `/jobs` again:"
    yield ""
    yield "```json"
    yield json.dumps(report.spec.model_dump(mode="json"), indent=2)
    yield "```"


def _row(name: str, counts: list[Count] | list[AttackResult | None]) -> str:
    return f"| {name} | {' | '.join(_share(count) for count in counts)} |"


def _share(count: Count | None) -> str:
    if count is None:
        return "not run"
    low, high = count.ci95
    return f"{count.accuracy:.1%} ({low:.1%} to {high:.1%}; {count.correct} of {count.total})"


def _attack(attack: AttackResult) -> str:
    return f"{attack.name} {_steps(attack)}({_ball(attack.threat)})"


def _steps(attack: AttackResult) -> str:
    said = [f"{key} {attack.params[key]}" for key in ("steps", "queries", "restarts") if key in attack.params]
    return f"{', '.join(said)} " if said else ""


def _ball(threat: ThreatModel) -> str:
    return f"{threat.norm} eps {threat.eps:.4g}"


def _suite(report: Report) -> str:
    return f"suite {report.suite}, {_ball(report.threat)}"


def _name(report: Report) -> str:
    done = f"hardened by {report.spec.defense.name}" if report.after else "as uploaded"
    return _line(report.spec.name or "") or f"{_architecture(report)}, {done}"


def _architecture(report: Report) -> str:
    architecture = report.spec.model.architecture
    return str(getattr(architecture, "model", architecture.name))


def _data_name(report: Report) -> str:
    return report.spec.data.dataset or str(report.inputs["data"]["source"]["filename"])


def _line(text: str) -> str:
    """One line of printable characters: YAML has no other ones."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _yaml(text: str) -> str:
    """A JSON string is a YAML string: whatever it holds, it stays text."""
    return json.dumps(_line(text), ensure_ascii=False)


def _plain(text: str) -> str:
    """Text as text: nothing in it is Markdown or HTML, and no address in it becomes a link."""
    return _MARKUP.sub(r"\\\g<0>", _line(text))
