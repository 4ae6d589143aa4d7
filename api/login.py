"""/login and /logout: a browser's session in place of a key, since EventSource and links can send no header."""

from __future__ import annotations

import json

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from api.browsers import check_origin
from api.credentials import Credentials, cookie_name
from api.refusals import InvalidKeyError
from api.services import Provided
from api.shapes import Session
from jobs.keys import SESSION_SECONDS
from jobs.scopes import SCOPES

router = APIRouter(tags=["browsers"])


@router.post(
    "/login", summary="Begin a browser's session", response_model=Session, openapi_extra={"x-temper-body": "login"}
)
async def log_in(request: Request, services: Provided) -> JSONResponse:
    """JSON or a form with `key`. The session ends after a week, at `/logout`, and with the key."""
    check_origin(request.scope)  # nobody is logged in as somebody else by another site's page
    credentials: Credentials | None = request.app.state.credentials
    if credentials is None or services.keys is None:
        return JSONResponse(Session(scopes=sorted(SCOPES), expires_in=None))
    known = await credentials.check_login(request, await _key(request))
    token = await run_in_threadpool(services.keys.log_in, known.key_id)
    answer = JSONResponse(Session(scopes=sorted(known.scopes), expires_in=SESSION_SECONDS))
    answer.set_cookie(
        cookie_name(request),
        token,
        max_age=int(SESSION_SECONDS),
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return answer


@router.post("/logout", summary="End a browser's session", status_code=204)
async def log_out(request: Request, services: Provided) -> Response:
    """Also where there is none."""
    check_origin(request.scope)
    name = cookie_name(request)
    token = request.cookies.get(name)
    if token and services.keys is not None:
        await run_in_threadpool(services.keys.log_out, token)
    answer = Response(status_code=204)
    answer.delete_cookie(name, secure=request.url.scheme == "https", httponly=True, samesite="strict")
    return answer


async def _key(request: Request) -> str:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        try:
            content = json.loads(await request.body())
        except (ValueError, RecursionError) as error:
            raise InvalidKeyError from error
        key = content.get("key") if isinstance(content, dict) else None
    elif kind in ("application/x-www-form-urlencoded", "multipart/form-data"):
        async with request.form(max_files=0) as form:
            key = form.get("key")
    else:
        raise HTTPException(415, 'send a form or JSON: {"key": "tmp_..."}')
    return key.strip() if isinstance(key, str) else ""
