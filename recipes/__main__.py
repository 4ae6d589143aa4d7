"""python -m recipes run|compare|results: recipes without the service, resumable."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from core.errors import RunError, Stopped
from recipes.catalog import RecipeError, load
from recipes.catalog import names as all_names
from recipes.results import Result, keep, obtain, read
from recipes.runner import Bench, run_recipe
from recipes.studies import PAGE, page, run_study, studies
from recipes.tables import comparison, repeated

app = typer.Typer(add_completion=False, help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)

Home = Annotated[Path, typer.Option(help="Where work folders are kept, to go on from.")]
Datasets = Annotated[Path, typer.Option(help="Where `temperd datasets fetch NAME` leaves datasets.")]
Checkpoint = Annotated[Path | None, typer.Option(help="Start from this file, not from the recipe's own start.")]

_HOME, _DATASETS = Path("temper-data/recipes"), Path("temper-data/datasets")


@app.command("list")
def list_recipes() -> None:
    """Names and titles."""
    for name in all_names():
        typer.echo(f"{name}  {load(name).title}")


@app.command()
def run(
    name: str,
    seed: Annotated[int, typer.Option(help="Seed of this recipe; those it starts from keep theirs.")] = 0,
    checkpoint: Checkpoint = None,
    home: Home = _HOME,
    datasets: Datasets = _DATASETS,
) -> None:
    """Run one recipe; its report and checkpoint are left in the work folder."""
    ran = run_recipe(name, _bench(home, datasets), seed=seed, checkpoint=checkpoint)
    after = ran.report.after or ran.report.before
    typer.echo(
        f"{name}: clean {after.clean.accuracy:.1%}, robust {after.robust.accuracy:.1%}, {ran.report.verdict.kind}"
    )
    typer.echo(f"report and checkpoint: {ran.workdir.output}")


@app.command()
def compare(
    names: list[str],
    seeds: Annotated[str, typer.Option(help="Seeds, with commas between them.")] = "0",
    samples: Annotated[int | None, typer.Option(help="Test images, if not as the recipes say.")] = None,
    standard: Annotated[int | None, typer.Option(help="Also suite standard, on so many test images.")] = None,
    checkpoint: Checkpoint = None,
    home: Home = _HOME,
    datasets: Datasets = _DATASETS,
) -> None:
    """Run several recipes, and print one table; what is done already is not done again."""
    bench = _bench(home, datasets)
    by_recipe: list[list[Result]] = []
    for name in names:
        by_recipe.append([])
        for seed in map(int, seeds.split(",")):
            # what starts from a file of the user's is not kept under the recipe's name
            result = None if checkpoint else read("compare", name, seed, samples, standard)
            if result is None:
                result = obtain(name, bench, seed=seed, samples=samples, standard=standard, checkpoint=checkpoint)
                if checkpoint is None:
                    keep(result, "compare")
            by_recipe[-1].append(result)
    typer.echo(comparison([results[0] for results in by_recipe]))
    if "," in seeds:
        typer.echo("\n" + repeated(by_recipe))


@app.command()
def results(
    names: Annotated[list[str] | None, typer.Argument(help="Studies; all, if none is named.")] = None,
    home: Home = _HOME,
    datasets: Datasets = _DATASETS,
) -> None:
    """Run the studies that docs/results.md is made of, as far as results are missing, and write it."""
    known = {study.name: study for study in studies()}
    for name in names or known:
        if name not in known:
            raise RecipeError(f"unknown study {name!r}; known: {', '.join(known)}")
        findings = run_study(known[name], _bench(home, datasets))
        PAGE.write_text(page())
        typer.echo(f"{name}: {'written' if findings else 'what there is of it is written'} to {PAGE.name}")


def _bench(home: Path, datasets: Path) -> Bench:
    """Ctrl-C asks for a stop, after which the same command goes on; a second one ends at once."""
    asked = {"stop": False}

    def stop(_signal: int, _frame: FrameType | None) -> None:
        if asked["stop"]:
            raise KeyboardInterrupt
        asked["stop"] = True

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    return Bench(home, datasets, lambda line: typer.echo(line, err=True), lambda: asked["stop"])


def main() -> int:
    """The command; a fault in a recipe or its inputs is one sentence and status 1."""
    try:
        app()
    except RecipeError as error:
        typer.echo(str(error), err=True)
    except RunError as error:
        typer.echo(f"{error.code}: {error.detail}" + (f" ({error.hint})" if error.hint else ""), err=True)
    except Stopped:
        typer.echo("stopped; the same command goes on from here", err=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
