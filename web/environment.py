"""The jinja2 environment of all pages, and the static files that they load."""

from __future__ import annotations

import hashlib
import mimetypes
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from web import figures

_HERE = Path(__file__).parent
_STATIC = _HERE / "static"


@dataclass(frozen=True)
class StaticFile:
    """A file as it is served: its bytes, their kind, and the version that its address carries."""

    content: bytes
    media_type: str
    version: str


@cache
def static_files() -> dict[str, StaticFile]:
    """All static files by path below ``static/``, read once: they change with the installed version only."""
    found = {}
    for path in sorted(_STATIC.rglob("*")):
        if path.is_file():
            content, kind = path.read_bytes(), mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            version = hashlib.sha256(content).hexdigest()[:12]
            found[path.relative_to(_STATIC).as_posix()] = StaticFile(content, kind, version)
    return found


def static_url(name: str) -> str:
    """Where a static file is served; another content has another address. Raises: KeyError."""
    return f"/static/{name}?v={static_files()[name].version}"


def inlined(name: str) -> Markup:
    """A static file's text, to stand inside a page; for our own style sheets. Raises: KeyError."""
    return Markup(static_files()[name].content.decode())  # noqa: S704 - a file of this package


@cache
def environment() -> Environment:
    """Escapes everything, and fails on a name that no template was given."""
    made = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(static_url=static_url, inlined=inlined)
    made.filters.update(
        count=figures.count,
        duration=figures.duration,
        percent=figures.percent,
        points=figures.points,
        probability=figures.probability,
        radius=figures.radius,
        size=figures.size,
    )
    return made


def render(template: str, **context: Any) -> str:
    """A page. Raises: UndefinedError, for what the template names and ``context`` lacks."""
    return environment().get_template(template).render(**context)
