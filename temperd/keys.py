"""temperd keys and temperd tenants: who may use the service, and how much of it."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.exc import DatabaseError

from jobs.database import open_database
from jobs.errors import JobsError
from jobs.keys import NAME, NAME_RULE, KeyRepository
from jobs.scopes import Scope
from jobs.settings import Settings
from temperd.schema import upgrade

DataDir = Annotated[
    Path, typer.Option(help="Folder of the embedded service; TEMPER_DATABASE_URL goes first.", envvar="TEMPER_DATA_DIR")
]
DEFAULT_DATA_DIR = Path("temper-data")
keys_app = typer.Typer(no_args_is_help=True, help="Keys for the API.")
tenants_app = typer.Typer(no_args_is_help=True, help="Tenants and their limits.")
_LIMITS = ("max_queued", "max_bytes", "max_upload_bytes", "requests_per_minute")
_UNITS = {"m": 60.0, "h": 3600.0, "d": 86400.0}


@keys_app.command()
def create(
    tenant: Annotated[str, typer.Option(help="Whose jobs it sees; made if it is new.")],
    name: Annotated[str, typer.Option(help="What you will know it by.")],
    scopes: Annotated[str, typer.Option(help=f"Comma-separated: {', '.join(Scope)}.")] = "jobs:read,jobs:write",
    expires: Annotated[str | None, typer.Option(help="After so long: 90d, 12h, 30m. Never if left out.")] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Make a key. It is told this once, on stdout: only its SHA-256 is kept."""
    for option, value in (("--tenant", tenant), ("--name", name)):
        if not NAME.fullmatch(value):
            raise typer.BadParameter(NAME_RULE, param_hint=option)
    key_id, token = _keys(data_dir).create(tenant, name, _scopes(scopes), _seconds(expires))
    typer.echo(f"{key_id} of tenant {tenant}, for {scopes}; temperd keys revoke {key_id} ends it", err=True)
    typer.echo(f"a service started without keys asks for one after its next start; data in {data_dir}", err=True)
    typer.echo(token)


@keys_app.command("list")
def list_keys(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """All that were ever made."""
    for key, tenant in _keys(data_dir).every():
        ended = f"revoked {_day(key.revoked_at)}" if key.revoked_at else f"expires {_day(key.expires_at)}"
        used = f"used {_day(key.last_used_at)}"
        typer.echo("  ".join((key.id, f"{key.prefix}...", tenant, key.label, key.scopes, ended, used)))


@keys_app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="As temperd keys list shows it: key_...")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """End a key: requests at once, streams that are open within a minute."""
    try:
        _keys(data_dir).revoke(key_id)
    except JobsError as error:
        raise typer.BadParameter(f"{error}; {error.hint}") from error
    typer.echo(f"{key_id} is revoked")


@tenants_app.command("list")
def list_tenants(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """All of them, with the limits that are their own."""
    for tenant in _keys(data_dir).tenants():
        limits = {name: getattr(tenant, name) for name in _LIMITS}
        own = " ".join(f"{name}={value}" for name, value in limits.items() if value is not None)
        typer.echo(f"{tenant.name}  {own or 'the limits of the settings'}")


@tenants_app.command("set")
def set_limits(
    tenant: Annotated[str, typer.Argument(help="Its name.")],
    max_queued: Annotated[int | None, typer.Option(help="Jobs that wait or are paused.")] = None,
    max_bytes: Annotated[int | None, typer.Option(help="Of uploads, training states and results together.")] = None,
    max_upload: Annotated[int | None, typer.Option(help="Bytes of one request.")] = None,
    requests: Annotated[int | None, typer.Option(help="A minute.")] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Give a tenant limits of its own; -1 takes that of the settings again."""
    given = dict(zip(_LIMITS, (max_queued, max_bytes, max_upload, requests), strict=True))
    changes = {name: None if value < 0 else value for name, value in given.items() if value is not None}
    try:
        _keys(data_dir).set_limits(tenant, changes)
    except JobsError as error:
        raise typer.BadParameter(f"{error}; {error.hint}") from error
    list_tenants(data_dir)


def has_keys(settings: Settings) -> bool:
    """Whether this service ever had a key, also one that is revoked. Makes nothing."""
    if not settings.database_url and not (settings.root / "temper.db").exists():
        return False
    engine = open_database(settings.database)
    try:
        return bool(KeyRepository(engine).every())
    except DatabaseError:
        return False  # of a version that knew none
    finally:
        engine.dispose()


def _keys(data_dir: Path) -> KeyRepository:
    settings = Settings(data_dir=data_dir)
    if not settings.database_url:  # the embedded service's; a team's is migrated by temperd migrate
        settings.root.mkdir(parents=True, exist_ok=True)
        upgrade(settings.database)
    return KeyRepository(open_database(settings.database))


def _scopes(text: str) -> frozenset[Scope]:
    try:
        return frozenset(Scope(name.strip()) for name in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"scopes are {', '.join(Scope)}", param_hint="--scopes") from error


def _seconds(text: str | None) -> float | None:
    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,4})([mhd])", text)
    if match is None:
        raise typer.BadParameter("a number and m, h or d: 90d", param_hint="--expires")
    return int(match[1]) * _UNITS[match[2]]


def _day(seconds: float | None) -> str:
    return "never" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
