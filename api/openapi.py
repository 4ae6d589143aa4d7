"""The OpenAPI document, with the job spec's schema taken from the engine, and what every call has in common."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

from api.caller import Needs
from api.shapes import Problem
from api.submit import FORM_FIELDS
from core import __version__
from core.spec import JobSpec

_SCHEMAS = "#/components/schemas/{model}"
_REFERENCE = {"type": "object", "description": 'A file that is there already: {"upload": ID} or {"job": ID}.'}
_PROBLEM = {"application/problem+json": {"schema": {"$ref": _SCHEMAS.format(model="Problem")}}}
_EXAMPLE = {
    "model": {"architecture": "fmnist-cnn", "weights": "random", "num_classes": 10},
    "data": {"dataset": "fashion-mnist"},
    "defense": "pgd-at",
    "threat": {"norm": "linf", "eps": 0.1},
}
_SECURITY = {
    "key": {"type": "http", "scheme": "bearer", "description": "`temperd keys create`; an open service needs none."},
    "session": {"type": "apiKey", "in": "cookie", "name": "__Host-temper", "description": "By `POST /login`."},
}


def install(app: FastAPI) -> None:
    """Describe what the endpoints read by themselves, and how a call can fail."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=__version__, summary=app.summary, routes=app.routes)
            _add_schemas(document)
            for route in app.state.routes:
                for method in route.methods or ():
                    operation = document["paths"].get(route.path, {}).get(method.lower())
                    if isinstance(route, APIRoute) and operation is not None:
                        _complete(operation, route)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def scope_of(route: APIRoute) -> str | None:
    """The scope that a route needs; None for a public one."""
    found = [d.dependency.scope for d in route.dependencies if isinstance(d.dependency, Needs)]
    return found[0] if found else None


def _add_schemas(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    spec = JobSpec.model_json_schema(ref_template=_SCHEMAS)
    schemas.update(spec.pop("$defs"))
    # what is filled in from the defense's published set-up may be left out
    spec["required"] = ["model", "defense"]
    schemas["JobSpec"] = spec
    problem = TypeAdapter(Problem).json_schema(ref_template=_SCHEMAS)
    schemas.update(problem.pop("$defs"))
    schemas["Problem"] = problem
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    document["components"]["securitySchemes"] = _SECURITY


def _complete(operation: dict[str, Any], route: APIRoute) -> None:
    scope = scope_of(route)
    operation["security"] = [{"key": [scope]}, {"session": []}] if scope else []
    answers = operation["responses"]
    answers.pop("422", None)  # the framework's own shape, which no answer here has
    for status in [*answers]:
        if status[0] in "45" and "content" not in answers[status]:
            answers[status]["content"] = _PROBLEM
    answers["4XX"] = {"description": "The request is refused; `code` says why.", "content": _PROBLEM}
    answers["5XX"] = {"description": "A fault of the service; `request_id` is in its log.", "content": _PROBLEM}
    body = operation.pop("x-temper-body", None)
    if body is not None:
        operation["requestBody"] = {"required": True, "content": _BODIES[body]()}


def _submit() -> dict[str, Any]:
    file = {"type": "string", "format": "binary"}
    fields = {name: {"type": "string", "description": "Overrides " + ".".join(p)} for name, p in FORM_FIELDS.items()}
    form = {
        "type": "object",
        "properties": {
            "checkpoint": {**file, "description": "safetensors, or a zip-format state_dict (.pt, .pth)"},
            "data": {**file, "description": "npz, Parquet, or images as zip or tar"},
            "spec": {"type": "string", "description": "A JobSpec as JSON text"},
            **fields,
        },
    }
    references = {"type": "object", "properties": {"checkpoint": _REFERENCE}}
    spec = {"$ref": _SCHEMAS.format(model="JobSpec")}
    return {
        "multipart/form-data": {"schema": form},
        "application/json": {"schema": {"allOf": [spec, references]}, "example": _EXAMPLE},
    }


def _login() -> dict[str, Any]:
    schema = {"type": "object", "required": ["key"], "properties": {"key": {"type": "string"}}}
    return {kind: {"schema": schema} for kind in ("application/json", "application/x-www-form-urlencoded")}


_BODIES = {"submit": _submit, "login": _login}
