"""The OpenAPI document, with the job spec's schema taken from the engine."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.submit import FORM_FIELDS
from core import __version__
from core.spec import JobSpec

_REFERENCE = {"type": "object", "description": 'A file that is there already: {"upload": ID} or {"job": ID}.'}


def install(app: FastAPI) -> None:
    """Describe the body of POST /jobs, which the endpoint reads by itself."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(title=app.title, version=__version__, summary=app.summary, routes=app.routes)
            spec = JobSpec.model_json_schema(ref_template="#/components/schemas/{model}")
            document["components"]["schemas"].update(spec.pop("$defs"))
            # what is filled in from the defense's published set-up may be left out
            spec["required"] = ["model", "defense"]
            document["components"]["schemas"]["JobSpec"] = spec
            operation = document["paths"]["/jobs"]["post"]
            del operation["x-temper-body"]
            operation["requestBody"] = {"required": True, "content": _bodies()}
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _bodies() -> dict[str, Any]:
    spec = {"$ref": "#/components/schemas/JobSpec"}
    file = {"type": "string", "format": "binary"}
    fields = {name: {"type": "string", "description": "Overrides " + ".".join(p)} for name, p in FORM_FIELDS.items()}
    form = {
        "type": "object",
        "properties": {
            "checkpoint": {**file, "description": "safetensors, or a zip-format state_dict (.pt, .pth)"},
            "data": {**file, "description": "npz, or an image folder as zip or tar"},
            "spec": {"type": "string", "description": "A JobSpec as JSON text"},
            **fields,
        },
    }
    references = {"type": "object", "properties": {"checkpoint": _REFERENCE}}
    return {
        "multipart/form-data": {"schema": form},
        "application/json": {"schema": {"allOf": [spec, references]}},
    }
