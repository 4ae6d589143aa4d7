"""What is at no other address: a page that says so, for browsers; the API answers all others itself."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.exceptions import HTTPException

from api.caller import READ
from api.pages import PageRoute

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/{path:path}", dependencies=[READ])
def nothing(path: str) -> None:
    """Last of all routes."""
    raise HTTPException(404)
