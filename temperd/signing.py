"""temperd signing-keys: what the service signs certificates with."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.database import open_database
from jobs.errors import JobsError
from jobs.settings import Settings
from jobs.signing import Signer, SigningKeyRepository, new_signing_key
from temperd.keys import DEFAULT_DATA_DIR, DataDir
from temperd.schema import upgrade

signing_app = typer.Typer(no_args_is_help=True, help="Keys that sign certificates.")


@signing_app.command()
def create() -> None:
    """Make a private key for TEMPER_SIGNING_KEY of all workers. It is told this once, on stdout, and kept nowhere."""
    secret = new_signing_key()
    signer = Signer.parse(secret)
    typer.echo(f"{signer.key_id} is its id, and this its public key:\n{signer.public_pem.strip()}", err=True)
    typer.echo("set TEMPER_SIGNING_KEY of every worker to what follows; older certificates stay valid", err=True)
    typer.echo(secret)


@signing_app.command("list")
def list_keys(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """The public keys that ever signed here."""
    for row in _keys(data_dir).every():
        typer.echo(f"{row.id}{'  revoked: believe nothing that it signed' if row.revoked_at is not None else ''}")
        typer.echo(row.public_key.strip())


@signing_app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="As temperd signing-keys list shows it.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Say of a key that was stolen: no certificate of it counts any more, whenever it was signed."""
    try:
        _keys(data_dir).revoke(key_id)
    except JobsError as error:
        raise typer.BadParameter(f"{error}; {error.hint}") from error
    typer.echo(f"{key_id} is revoked; give the workers another before they go on")


def _keys(data_dir: DataDir) -> SigningKeyRepository:
    settings = Settings(data_dir=data_dir)
    if not settings.database_url:  # the embedded service's; a team's is migrated by temperd migrate
        settings.root.mkdir(parents=True, exist_ok=True)
        upgrade(settings.database)
    return SigningKeyRepository(open_database(settings.database))
