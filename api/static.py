"""/static: style sheets, scripts and pictures of the pages, from this service's own files."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Response
from starlette.exceptions import HTTPException

from web.environment import static_files

router = APIRouter(include_in_schema=False)
_FOR_EVER = "public, max-age=31536000, immutable"
_ASK = "public, no-cache"


@router.get("/static/{name:path}")
async def static(name: str, v: str = "", if_none_match: Annotated[str, Header()] = "") -> Response:
    """A file; for a year if the address names its version, as the pages' addresses do, else to be asked for again."""
    file = static_files().get(name)
    if file is None:
        raise HTTPException(404)
    etag = f'"{file.version}"'
    headers = {"ETag": etag, "Cache-Control": _FOR_EVER if v == file.version else _ASK}
    if etag in [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]:
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.media_type)
