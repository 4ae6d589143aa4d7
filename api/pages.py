"""What all pages for people share: who gets one, how it is sent, and what an error looks like on one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import Scope as AsgiScope

from api.caller import Caller
from api.errors import SpecInvalidError, translate
from api.refusals import NotAuthenticatedError
from jobs.database import AWAY
from jobs.errors import JobsError
from jobs.scopes import Scope
from web.environment import render

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",  # without any, browsers send forms with the origin "null"
    "Vary": "Accept",
    "Cache-Control": "no-store",  # else "back" shows them after a logout
}
_HANDLED = (JobsError, SpecInvalidError, RequestValidationError, HTTPException, *AWAY)
_QUALITY = re.compile(r"q=([01](?:\.\d{0,3})?)$")


class PageRoute(APIRoute):
    """A route for those who name text/html among what they accept: the API has the same address for all others.

    Errors become pages, and a stranger is asked to log in.
    """

    def matches(self, scope: AsgiScope) -> tuple[Match, AsgiScope]:
        """See the base class."""
        match, child = super().matches(scope)
        return (match, child) if match == Match.NONE or wants_page(scope) else (Match.NONE, {})

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See the base class."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except NotAuthenticatedError:
                return _ask_who(request)
            except _HANDLED as error:
                return _error_page(request, error)

        return handle


def wants_page(scope: AsgiScope) -> bool:
    """Whether a request names text/html, and no JSON that it likes as much or more; or comes from a page's htmx."""
    headers = Headers(scope=scope)
    if "hx-request" in headers:
        return True
    weights = {"text/html": 0.0, "application/json": 0.0}
    for part in ",".join(headers.getlist("accept")).split(","):
        kind, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if kind in weights:
            quality = next((float(found[1]) for each in parameters if (found := _QUALITY.match(each))), 1.0)
            weights[kind] = max(weights[kind], quality)
    return weights["text/html"] > weights["application/json"]


def page(request: Request, template: str, status: int = 200, **context: Any) -> HTMLResponse:
    """A rendered page; templates know who asks by ``user``, and where by ``here``."""
    return HTMLResponse(render(template, **frame(request), **context), status, HEADERS)


def frame(request: Request) -> dict[str, Any]:
    """What the frame of each page shows."""
    asking: Caller | None = request.scope.get("temper.caller")
    scopes = asking.scopes if asking else frozenset()
    user = {
        "writes": Scope.WRITE in scopes,
        "admin": Scope.ADMIN in scopes,
        "session": bool(asking and asking.session),
    }
    return {"user": user, "here": request.url.path}


def go(address: str) -> RedirectResponse:
    """To a page of this service, after something was done."""
    return RedirectResponse(address, HTTPStatus.SEE_OTHER)


def _ask_who(request: Request) -> Response:
    if request.headers.get("sec-fetch-site") == "cross-site" and request.method == "GET":
        # a link from elsewhere brings no SameSite=Strict cookie; the same address, asked for by this page, does
        return page(request, "dashboard/moment.html", address=_address(request))
    login = f"/login?next={quote(_address(request) if request.method == 'GET' else '/')}"
    if "HX-Request" in request.headers:
        return Response(status_code=HTTPStatus.UNAUTHORIZED, headers={"HX-Redirect": login})
    return go(login)


def _address(request: Request) -> str:
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


def _error_page(request: Request, error: Exception) -> Response:
    status, detail, hint, headers = told(request, error)
    answer = page(request, "dashboard/error.html", status, phrase=HTTPStatus(status).phrase, detail=detail, hint=hint)
    answer.headers.update(headers)
    return answer


def told(request: Request, error: Exception) -> tuple[int, str, str, dict[str, str]]:
    """An error's status, sentence, hint and headers, as the API tells them."""
    if isinstance(error, HTTPException):
        missing = error.status_code == HTTPStatus.NOT_FOUND
        detail = "there is nothing at this address" if missing else error.detail
        return error.status_code, detail, "", dict(error.headers or {})
    if isinstance(error, RequestValidationError):
        rows = "; ".join(f"{'.'.join(map(str, row['loc'][1:]))}: {row['msg']}" for row in error.errors())
        return HTTPStatus.UNPROCESSABLE_ENTITY, rows, "", {}
    answer = translate(error)
    if answer is None:
        raise error
    body = json.loads(bytes(answer.body))
    headers = {"Retry-After": answer.headers["Retry-After"]} if "Retry-After" in answer.headers else {}
    return answer.status_code, body["detail"], body.get("hint", ""), headers
