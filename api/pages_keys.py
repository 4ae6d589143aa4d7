"""/keys: an admin gives keys out and revokes them; /login and /logout for people."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from api import login as api_login
from api.caller import ADMIN, WRITE, Asking
from api.pages import PageRoute, go, page
from api.refusals import InvalidKeyError, MissingScopeError, TooManyFailuresError
from api.services import Provided, Services
from api.views import iso
from jobs.keys import NAME, NAME_RULE, KeyRepository
from jobs.scopes import Scope

router = APIRouter(include_in_schema=False, route_class=PageRoute)
_DAY = 86400.0
_MOST_DAYS = 3660


@router.get("/keys", dependencies=[ADMIN])
def list_keys(request: Request, services: Provided) -> Response:
    """All that were ever made, and the form for one more."""
    return _show(request, services)


@router.post("/keys", dependencies=[WRITE, ADMIN])
def create_key(
    request: Request,
    asking: Asking,
    services: Provided,
    tenant: Annotated[str, Form(max_length=100)] = "",
    label: Annotated[str, Form(max_length=200)] = "",
    scopes: Annotated[list[str] | None, Form(max_length=len(Scope))] = None,
    days: Annotated[str, Form(max_length=10)] = "",
) -> Response:
    """The page again, with the new key on it this once. Nobody gives a scope that is not their own."""
    keys = _keys(services)
    tenant, label, days, scopes = tenant.strip(), label.strip(), days.strip(), scopes or []
    errors = _wrong(tenant, label, days, scopes)
    if errors:
        values = {"tenant": tenant, "label": label, "days": days, "scopes": scopes}
        return _show(request, services, 422, values=values, errors=errors)
    wanted = {Scope(scope) for scope in scopes}
    for scope in sorted(wanted - asking.scopes):
        raise MissingScopeError(scope)
    _, token = keys.create(tenant, label, wanted, int(days) * _DAY if days else None)
    return _show(request, services, made={"token": token, "label": label})


@router.post("/keys/{key_id}/revoke", dependencies=[WRITE, ADMIN])
def revoke_key(key_id: str, services: Provided) -> Response:
    """From now on it opens nothing, and neither do the browsers that logged in with it."""
    _keys(services).revoke(key_id)
    return go("/keys")


@router.get("/login")
def ask_for_key(request: Request, services: Provided, after: Annotated[str, Query(alias="next")] = "/") -> Response:
    """The form for a key."""
    return page(request, "dashboard/login.html", after=_own(after), open=services.keys is None, wrong="")


@router.post("/login")
async def log_in(request: Request, services: Provided, after: Annotated[str, Query(alias="next")] = "/") -> Response:
    """As the API's, and on to where the person wanted to go."""
    try:
        session = await api_login.log_in(request, services)
    except (InvalidKeyError, TooManyFailuresError) as error:
        return page(request, "dashboard/login.html", error.status, after=_own(after), open=False, wrong=str(error))
    answer = go(_own(after))
    for cookie in session.headers.getlist("set-cookie"):
        answer.headers.append("set-cookie", cookie)
    return answer


@router.post("/logout")
async def log_out(request: Request, services: Provided) -> Response:
    """As the API's, and back to the form for a key."""
    ended = await api_login.log_out(request, services)
    answer = go("/login")
    for cookie in ended.headers.getlist("set-cookie"):
        answer.headers.append("set-cookie", cookie)
    return answer


def _own(address: str) -> str:
    """An address of this service, whatever was asked for: a link must not lead on to another host."""
    parts = urlsplit(address)
    strange = parts.scheme or parts.netloc or not address.startswith("/") or "\\" in address or address[1:2] == "/"
    return "/" if strange or not address.isprintable() else address


def _keys(services: Services) -> KeyRepository:
    if services.keys is None:
        raise HTTPException(404)
    return services.keys


def _show(request: Request, services: Services, status: int = 200, **more: object) -> Response:
    if services.keys is None:
        return page(request, "dashboard/keys.html", keys=None)
    keys = [
        {
            "id": key.id,
            "tenant": tenant,
            "label": key.label,
            "prefix": key.prefix,
            "scopes": key.scopes.split(","),
            "created_at": iso(key.created_at),
            "expires_at": iso(key.expires_at),
            "revoked_at": iso(key.revoked_at),
            "last_used_at": iso(key.last_used_at),
        }
        for key, tenant in reversed(services.keys.every())
    ]
    empty = {"tenant": "", "label": "", "days": "", "scopes": [Scope.READ, Scope.WRITE]}
    usual: dict[str, object] = {"values": empty, "errors": {}, "made": None}
    tenants = [tenant.name for tenant in services.keys.tenants()]
    context = {**usual, "keys": keys, "tenants": tenants, "scopes": [*Scope], **more}
    return page(request, "dashboard/keys.html", status, **context)


def _wrong(tenant: str, label: str, days: str, scopes: list[str]) -> dict[str, str]:
    """Sentences by field."""
    errors = {}
    for field, value in (("tenant", tenant), ("label", label)):
        if not NAME.fullmatch(value):
            errors[field] = NAME_RULE
    if not scopes or not {*scopes} <= {*Scope}:
        errors["scopes"] = "choose at least one"
    if days and not (days.isdecimal() and 0 < int(days) <= _MOST_DAYS):
        errors["days"] = f"a whole number of days from 1 to {_MOST_DAYS}; empty: for ever"
    return errors
