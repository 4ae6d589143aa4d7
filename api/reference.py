"""python -m api.reference > docs/api.md: every call and field, from the OpenAPI document and the registries."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from api.app import endpoints
from core.attacks import ATTACKS
from core.defenses import DEFENSES
from core.eps_schedules import EPS_SCHEDULES
from core.models import ARCHITECTURES
from core.optimizers import OPTIMIZERS
from core.registry import Registry
from core.schedules import SCHEDULES

_HEAD = """\
# API

Written by `python -m api.reference` from the service's OpenAPI document, which your service has at `/openapi.json` and,
to read and to try, at `/docs`.

- **Keys**: `Authorization: Bearer tmp_...`; a service for one person on loopback needs none. The scope that a call
  needs is named with it.
- **Errors** are `application/problem+json` with a stable `code`: [Errors](errors.md). Any call can answer 4XX or
  5XX so.
- **Repeating**: with an `Idempotency-Key`, `POST /jobs` makes one job however often it is sent.
- **Waiting**: `GET /jobs/{job_id}?wait=30` answers when something changed; `GET /jobs/{job_id}/events` with
  `Accept: text/event-stream` goes on where `Last-Event-ID` says.
- **Pages**: lists have `next`; send it as `cursor`.
- A job is `queued`, `running` (or `pausing`, `cancelling`), `paused`, and ends as `succeeded`, `failed` or `cancelled`.
"""
_SPEC = """
## The spec

What `POST /jobs` takes as JSON, or as the form field `spec`. What is left out is the defense's published set-up; the
stored spec shows all of it.
"""
_CATALOG: tuple[tuple[str, Registry[Any]], ...] = (
    ("Defenses", DEFENSES),
    ("Attacks", ATTACKS),
    ("Learning-rate schedules", SCHEDULES),
    ("Eps schedules", EPS_SCHEDULES),
    ("Optimizers", OPTIMIZERS),
    ("Architectures", ARCHITECTURES),
)
_SECTIONS = {"ModelSpec": "model", "DataSpec": "data", "ThreatModel": "threat"} | {
    "TrainingSpec": "training",
    "EvaluationSpec": "evaluation",
}
_OTHERS = {"State": "a state"}
Schema = Mapping[str, Any]


def reference(document: Schema) -> str:
    """The page, as Markdown."""
    return "\n".join([_HEAD, "## Calls", *_calls(document), _SPEC, *_spec(document), *_catalog()]) + "\n"


def _calls(document: Schema) -> Iterator[str]:
    calls = [(path, verb, call) for path, verbs in document["paths"].items() for verb, call in verbs.items()]
    for path, verb, call in calls:
        yield f"\n### `{verb.upper()} {path}`\n"
        text = call.get("description", "").replace("\n", " ")
        yield f"{call['summary']}. {text}".strip()
        scopes = [scope for option in call["security"] for scope in option.get("key", ())]
        yield f"\n{'Scope: `' + scopes[0] + '`.' if scopes else 'Public.'} {_answers(call['responses'])}"
        if rows := [*_parameters(call), *_form(call)]:
            yield "\n| | in | type | |\n|---|---|---|---|"
            yield from rows


def _answers(responses: Schema) -> str:
    told = {status: answer["description"] for status, answer in responses.items() if not status.endswith("XX")}
    words = [f"{s}" if text == "Successful Response" else f"{s} ({text.rstrip('.')})" for s, text in told.items()]
    return f"Answers {', '.join(words)}."


def _parameters(call: Schema) -> Iterator[str]:
    for each in call.get("parameters", ()):
        if each["in"] != "path":
            yield _row(each["name"], each["in"], _type(each["schema"]), each.get("description", ""))


def _form(call: Schema) -> Iterator[str]:
    content = call.get("requestBody", {}).get("content", {})
    schema = content.get("multipart/form-data", content.get("application/json", {})).get("schema", {})
    for name, field in schema.get("properties", {}).items():
        kind = "file" if field.get("format") == "binary" else _type(field)
        yield _row(name, "form", kind, field.get("description", ""))


def _spec(document: Schema) -> Iterator[str]:
    schemas = document["components"]["schemas"]
    nested = [name for name in _SECTIONS if name in schemas]
    yield "| field | type | default | |\n|---|---|---|---|"
    for name, field in schemas["JobSpec"]["properties"].items():
        yield _field(name, field)
    for name in nested:
        yield f"\n### `{_SECTIONS[name]}`\n\n{_line(schemas[name].get('description', ''))}\n"
        yield "| field | type | default | |\n|---|---|---|---|"
        for field_name, field in schemas[name]["properties"].items():
            yield _field(f"{_SECTIONS[name]}.{field_name}", field)


def _catalog() -> Iterator[str]:
    for title, registry in _CATALOG:
        yield f"\n## {title}"
        for cls, names in groupby(registry.names(), key=registry.__getitem__):
            yield f"\n### {', '.join(f'`{name}`' for name in names)}\n"
            paper = f" [Source]({cls.paper})." if cls.paper.startswith("https://") else ""
            yield f"{cls.title}.{paper}"
            fields = {k: v for k, v in cls.model_json_schema()["properties"].items() if k != "name"}
            if fields:
                yield "\n| field | type | default | |\n|---|---|---|---|"
                yield from (_field(name, field) for name, field in fields.items())


def _field(name: str, field: Schema) -> str:
    default = "" if "default" not in field or isinstance(field["default"], dict) else _code(field["default"])
    return _row(name, _type(field), default, field.get("description", ""))


def _row(name: str, *cells: str) -> str:
    return f"| {' | '.join([f'`{name}`', *map(_line, cells)])} |"


def _line(text: str) -> str:
    return text.replace("\n", " ").replace("|", "\\|")


def _code(value: Any) -> str:
    return f"`{json.dumps(value)}`"


def _type(schema: Schema) -> str:
    """In words, with bounds: ``integer, 1 to 1000``."""
    if "const" in schema:
        return _code(schema["const"])
    if "enum" in schema:
        return ", ".join(map(_code, schema["enum"]))
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[object](#{_SECTIONS[name]})" if name in _SECTIONS else _OTHERS.get(name, "object")
    options = schema.get("anyOf") or schema.get("oneOf")
    if options:
        return " or ".join(dict.fromkeys(_type(option) for option in options))
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {_type(schema['items'])}" if "items" in schema else "list"
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is None:
        return str(kind)
    return f"{kind}, from {low:,}" if high is None else f"{kind}, {low:,} to {high:,}"


if __name__ == "__main__":
    sys.stdout.write(reference(endpoints().openapi()))
