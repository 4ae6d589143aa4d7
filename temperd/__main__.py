"""temperd: runs the service and looks after it."""

from __future__ import annotations

import ipaddress
import logging
from pathlib import Path
from typing import Annotated

import typer

from jobs.datasets import DATASETS

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
datasets_app = typer.Typer(no_args_is_help=True, help="Datasets by name.")
app.add_typer(datasets_app, name="datasets")

DataDir = Annotated[Path, typer.Option(help="Folder for database, files and datasets.", envvar="TEMPER_DATA_DIR")]
DEFAULT_DATA_DIR = Path("temper-data")


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Loopback only: this mode has no keys.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free port.")] = 8000,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """API and runner in one process, on SQLite and a local folder."""
    if not _is_loopback(host):
        raise typer.BadParameter("without keys the service listens on loopback only", param_hint="--host")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from temperd.embedded import serve_embedded  # imports torch: not for --help

    serve_embedded(host, port, data_dir)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@app.command()
def migrate(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Bring the database's schema up to date; serve does so by itself."""
    from jobs.settings import Settings
    from temperd.schema import upgrade

    settings = Settings(data_dir=data_dir)
    settings.root.mkdir(parents=True, exist_ok=True)
    upgrade(settings.database_url)


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
    from jobs.settings import Settings
    from temperd.datasets import fetch_dataset

    path = fetch_dataset(name, Settings(data_dir=data_dir).datasets_dir, source)
    typer.echo(f"{name} is ready: {path}")


if __name__ == "__main__":
    app()
