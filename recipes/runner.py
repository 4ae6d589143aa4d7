"""Runs a recipe by ingest and the engine alone, without the service; goes on where it was stopped."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.prepared import Workdir
from core.report import Report
from core.run import run
from core.spec import JobSpec
from recipes.catalog import Recipe, RecipeError, load

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Bench:
    """Where runs are kept, where named datasets are, and what is told on the way."""

    home: Path
    datasets: Path
    tell: Callable[[str], None]
    should_stop: Callable[[], bool] = lambda: False

    def folder(self, recipe: Recipe, spec: JobSpec, checkpoint: str) -> Path:
        """The work folder of one spec from one checkpoint; another spec gets another, and nothing is overwritten."""
        key = hashlib.sha256(f"{spec.digest()} {checkpoint}".encode()).hexdigest()[:12]
        return self.home / recipe.name / f"{spec.evaluation.suite}-seed-{spec.seed}-{key}"


@dataclass(frozen=True)
class Ran:
    """A finished run."""

    recipe: Recipe
    seed: int
    report: Report
    workdir: Workdir


def run_recipe(name: str, bench: Bench, *, seed: int = 0, checkpoint: Path | None = None) -> Ran:
    """Run a recipe to its report, with the recipe that it starts from before it.

    Args:
        seed: of this recipe; the one it starts from keeps its own, so that all seeds start from one checkpoint.
        checkpoint: what to start from, in place of the recipe's own ``start``.
    Raises: RecipeError, RunError with the way out; Stopped once the state is saved.
    """
    recipe = load(name)
    spec = recipe.resolve({"seed": seed})
    if spec.model.weights == "random":
        if checkpoint is not None:
            raise RecipeError(f"recipe {name!r} trains from scratch: leave out --checkpoint")
    elif checkpoint is None:
        if recipe.start is None:
            raise RecipeError(f"recipe {name!r} fine-tunes a checkpoint of yours: give --checkpoint FILE")
        checkpoint = run_recipe(recipe.start, bench).workdir.checkpoint("pt")
    return _run(recipe, spec, checkpoint, bench)


def evaluate(ran: Ran, suite: str, samples: int, bench: Bench) -> Ran:
    """The hardened checkpoint of a run under a suite."""
    content = {
        **ran.report.spec.model_dump(mode="json", exclude={"training"}),
        "defense": "none",
        "evaluation": {"suite": suite, "samples": samples, "diagnose": False, "allow_low_baseline": True},
        "seed": 0,
    }
    content["model"]["weights"] = "uploaded"
    return _run(ran.recipe, JobSpec.model_validate(content), ran.workdir.checkpoint("pt"), bench)


def _run(recipe: Recipe, spec: JobSpec, checkpoint: Path | None, bench: Bench) -> Ran:
    weights = hashlib.sha256(checkpoint.read_bytes()).hexdigest() if checkpoint else "random"
    workdir = Workdir(bench.folder(recipe, spec, weights))
    (workdir.root / "state").mkdir(parents=True, exist_ok=True)
    done = workdir.output / "report.json"
    with (workdir.root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process may be at the very same run
        if not done.exists():
            bench.tell(f"{recipe.name}, seed {spec.seed}, suite {spec.evaluation.suite}")
            if not (workdir.input / "data.json").exists():
                workdir.spec.write_text(spec.model_dump_json())
                _ingest(recipe, spec, workdir, checkpoint, bench)
            report = run(spec, workdir, _teller(bench), bench.should_stop)
            workdir.output.mkdir(exist_ok=True)
            temporary = done.with_suffix(".tmp")
            temporary.write_text(report.model_dump_json())
            temporary.replace(done)
            shutil.rmtree(workdir.root / "state")
            shutil.rmtree(workdir.input)
    return Ran(recipe, spec.seed, Report.model_validate_json(done.read_bytes()), workdir)


def _ingest(recipe: Recipe, spec: JobSpec, workdir: Workdir, checkpoint: Path | None, bench: Bench) -> None:
    if spec.data.dataset is None:
        raise RecipeError(f"recipe {recipe.name!r}: spec.data.dataset: a recipe names its dataset")
    request = {
        "checkpoint": _described(checkpoint) if checkpoint else None,
        "data": None,
        "datasets": [str(bench.datasets)],
    }
    (workdir.root / "ingest.json").write_text(json.dumps(request))
    done = subprocess.run(
        [sys.executable, "-m", "ingest", str(workdir.root)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    if done.returncode != 0:
        lines = done.stdout.strip().splitlines()
        failure = json.loads(lines[-1]) if lines else {"detail": done.stderr.strip()[-500:], "hint": ""}
        raise RecipeError(f"recipe {recipe.name!r}: {failure['detail']} ({failure['hint']})")


def _described(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {
        "path": str(path.resolve()),
        "filename": path.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "size": len(content),
    }


def _teller(bench: Bench) -> Callable[[dict[str, Any]], None]:
    def tell(event: dict[str, Any]) -> None:
        if event["type"] == "epoch":
            accuracies = f"held-out clean {event['held_out_clean']:.1%}, PGD-10 {event['held_out_robust']:.1%}"
            bench.tell(
                f"  epoch {event['epoch']}: loss {event['train_loss']:.3f}, {accuracies}, {event['seconds']:.0f} s"
            )
        elif event["type"] == "result":
            bench.tell(
                f"  {event['side']}: clean {event['clean']['accuracy']:.1%}, robust {event['robust']['accuracy']:.1%}"
            )

    return tell
