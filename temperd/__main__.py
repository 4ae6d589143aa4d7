"""temperd: runs the service and looks after it."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from jobs.datasets import DATASETS
from jobs.settings import Settings
from temperd.keys import DEFAULT_DATA_DIR, has_keys, keys_app, tenants_app
from temperd.signing import signing_app

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
datasets_app = typer.Typer(no_args_is_help=True, help="Datasets by name.")
app.add_typer(datasets_app, name="datasets")

app.add_typer(keys_app, name="keys")
app.add_typer(tenants_app, name="tenants")
app.add_typer(signing_app, name="signing-keys")

DataDir = Annotated[Path, typer.Option(help="Folder for database, files and datasets.", envvar="TEMPER_DATA_DIR")]


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Loopback only, until it has a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free port.")] = 8000,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """API and runner in one process, on SQLite and a local folder."""
    if not _is_loopback(host) and not has_keys(Settings(data_dir=data_dir, database_url="")):
        way = f"temperd keys create --tenant NAME --name LABEL --data-dir {data_dir}"
        raise typer.BadParameter(f"without keys it listens on loopback only; make one: {way}", param_hint="--host")
    from temperd.embedded import serve_embedded  # imports torch: not for --help
    from temperd.logs import configure

    configure(as_json=False)
    serve_embedded(host, port, data_dir)


@app.command()
def api(
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free port.")] = 8000,
) -> None:
    """The API alone, on TEMPER_DATABASE_URL, TEMPER_BROKER_URL and TEMPER_STORE_URL."""
    settings = _team_settings()
    from temperd.team import serve_api  # imports torch

    serve_api(host, port, settings)


@app.command()
def worker(
    queues: Annotated[str | None, typer.Option(help="Comma-separated; as TEMPER_QUEUES.")] = None,
) -> None:
    """Runs jobs of its queues, one at a time; several on one machine share its GPUs by CUDA_VISIBLE_DEVICES."""
    settings = _team_settings(**({"queues": queues} if queues else {}))
    from temperd.worker import run_worker

    run_worker(settings)


@app.command()
def reconciler() -> None:
    """Looks after lost jobs, rings and files; every worker does, this one does nothing else."""
    settings = _team_settings()
    from temperd.worker import run_reconciler

    run_reconciler(settings)


@app.command()
def doctor(
    checks: Annotated[
        list[str] | None,
        typer.Argument(
            help="database, schema, broker, store, workers, sandbox; here: a worker or reconciler of this host."
        ),
    ] = None,
    wait: Annotated[float, typer.Option(min=0, help="Ask again until all is well, for so many seconds.")] = 0,
) -> None:
    """Says what a team's service lacks: all but "here" if none is named. Exit status 1 if anything is wrong."""
    settings = _team_settings()
    from jobs.checks import is_wrong
    from temperd.doctor import CHECKS, OF_THE_SERVICE, examine

    names = checks or OF_THE_SERVICE
    if unknown := [name for name in names if name not in CHECKS]:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(CHECKS)}")
    found = examine(settings, names, wait)
    for name, answer in found.items():
        typer.echo(f"{name}: {answer or 'ok'}")
    if any(map(is_wrong, found.values())):
        raise typer.Exit(1)


def _team_settings(**changes: Any) -> Settings:
    from temperd.logs import configure

    configure(as_json=True)
    try:
        settings = Settings(**changes)
    except ValidationError as error:
        row = error.errors()[0]
        raise typer.BadParameter(f"TEMPER_{str(row['loc'][0]).upper()}: {row['msg']}") from error
    missing = [name for name in ("database_url", "broker_url", "store_url") if not getattr(settings, name)]
    if missing:
        raise typer.BadParameter(f"set {', '.join(f'TEMPER_{name.upper()}' for name in missing)}")
    return settings


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@app.command()
def migrate(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Bring the schema of TEMPER_DATABASE_URL, or of the data folder, up to date; serve does so by itself."""
    from temperd.schema import upgrade

    settings = Settings(data_dir=data_dir)
    if not settings.database_url:
        settings.root.mkdir(parents=True, exist_ok=True)
    upgrade(settings.database)


@datasets_app.command()
def fetch(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(DATASETS)}.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
    source: Annotated[
        Path | None,
        typer.Option(help="Folder that has it already, as torchvision keeps it; for imagenet, with train/ and val/."),
    ] = None,
) -> None:
    """Download a dataset by torchvision and keep it for jobs that name it."""
    from temperd.datasets import fetch_dataset

    path = fetch_dataset(name, Settings(data_dir=data_dir).datasets_dir, source)
    typer.echo(f"{name} is ready: {path}")


if __name__ == "__main__":
    app()
