"""From a JSON Schema to a form: pure functions, so that no field of the spec is listed twice."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["text", "number", "choice", "switch", "list", "pairs"]
Schema = Mapping[str, Any]
Values = Mapping[str, str]
_NONE = "none"


@dataclass(frozen=True)
class Field:
    """One control. ``path`` is dotted, as in the spec and in its errors; ``default``: in words, None if it has none.

    ``decides``: which other fields there are depends on its value.
    """

    path: str
    label: str
    kind: Kind
    description: str = ""
    choices: tuple[str, ...] = ()
    default: str | None = None
    decides: bool = False

    @property
    def id(self) -> str:
        """Of its control in the page."""
        return f"field-{self.path}"


@dataclass(frozen=True)
class Group:
    """Fields that belong together."""

    path: str
    label: str
    description: str
    parts: tuple[Field | Group, ...]

    def fields(self) -> Iterator[Field]:
        """All of them, in order."""
        for part in self.parts:
            if isinstance(part, Group):
                yield from part.fields()
            else:
                yield part

    def without(self, *paths: str) -> Group:
        """The same, less some fields or groups."""
        kept = tuple(
            part.without(*paths) if isinstance(part, Group) else part for part in self.parts if part.path not in paths
        )
        return Group(self.path, self.label, self.description, kept)

    def part(self, path: str) -> Field | Group:
        """A field or group directly below. Raises: KeyError."""
        found = {part.path: part for part in self.parts}
        return found[path]


def describe(schema: Schema, values: Values, defaults: Mapping[str, Any], path: str = "") -> Group:
    """The form of an object's schema.

    Args:
        schema: with ``$defs``; of a pydantic model.
        values: what was filled in so far, by path: it decides which fields an algorithm that is chosen by name has.
        defaults: the resolved object, where it is known; its values stand before the schema's own defaults.
        path: where the object lies in the spec.
    """
    return _Walk(schema.get("$defs", {}), values).group(schema, path, _name(path), "", defaults)


def paths(schema: Schema) -> set[str]:
    """Every path that some choice of algorithms can show."""
    return {*_Walk(schema.get("$defs", {}), {}).every(schema, "")}


def assemble(fields: Iterator[Field], values: Values) -> dict[str, Any]:
    """The object that was filled in. What is empty is left out; what is no number stays text, for the server to say."""
    content: dict[str, Any] = {}
    for field in fields:
        text = values.get(field.path, "").strip()
        if text:
            *outer, last = field.path.split(".")
            place = content
            for part in outer:
                place = place.setdefault(part, {})
            place[last] = _parse(field, text)
    return content


class _Walk:
    def __init__(self, definitions: Schema, values: Values) -> None:
        self._definitions, self._values = definitions, values

    def group(self, schema: Schema, path: str, label: str, description: str, defaults: Any) -> Group:
        known = defaults if isinstance(defaults, Mapping) else {}
        parts = [
            part
            for name, below in schema.get("properties", {}).items()
            if (part := self._part(below, f"{path}.{name}" if path else name, known.get(name)))
        ]
        return Group(path, label, description or schema.get("description", ""), tuple(parts))

    def every(self, schema: Schema, path: str) -> Iterator[str]:
        for name, below in schema.get("properties", {}).items():
            place = f"{path}.{name}" if path else name
            if "const" in below:
                continue
            plain = self._plain(below)
            if variants := self._variants(plain):
                yield f"{place}.name"
                for variant in variants.values():
                    yield from self.every(variant, place)
            elif "properties" in plain:
                yield from self.every(plain, place)
            else:
                yield place

    def _part(self, below: Schema, path: str, default: Any) -> Field | Group | None:
        if "const" in below:
            return None
        if default is None:
            default = below.get("default")
        plain, description = self._plain(below), below.get("description", "")
        if variants := self._variants(plain):
            return self._chosen(variants, path, description, default)
        if "properties" in plain:
            return self.group(plain, path, _name(path), description, default)
        written = None if default is None and "default" not in below else write(default, path)
        kind, choices = self._kind(plain)
        return Field(path, _name(path), kind, description, choices, written)

    def _chosen(self, variants: Mapping[str, Schema], path: str, description: str, default: Any) -> Group:
        """A choice of algorithm, and the fields of the one that is chosen."""
        usual = default.get("name") if isinstance(default, Mapping) else default
        name = str(self._values.get(f"{path}.name") or usual)
        choice = Field(f"{path}.name", _name(path), "choice", description, tuple(sorted(variants)), usual, decides=True)
        below = self.group(variants[name], path, "", "", default if name == usual else {}) if name in variants else None
        parts = [part for part in below.parts if part.path != f"{path}.name"] if below else []
        return Group(path, _name(path), below.description if below else "", (choice, *parts))

    def _plain(self, schema: Schema) -> Schema:
        """Without references, and without "or null"."""
        while True:
            if "$ref" in schema:
                schema = self._definitions[schema["$ref"].rpartition("/")[2]]
            elif len(kept := [each for each in schema.get("anyOf", []) if each.get("type") != "null"]) == 1:
                schema = kept[0]
            else:
                return schema

    def _variants(self, schema: Schema) -> dict[str, Schema]:
        """Algorithms by name, where the schema is a choice among them."""
        for each in (schema, *schema.get("anyOf", [])):
            if mapping := each.get("discriminator", {}).get("mapping"):
                return {name: self._plain({"$ref": reference}) for name, reference in mapping.items()}
        return {}

    def _kind(self, schema: Schema) -> tuple[Kind, tuple[str, ...]]:
        if "enum" in schema:
            return "choice", tuple(map(str, schema["enum"]))
        kinds = {each.get("type") for each in schema.get("anyOf", [schema])}
        for kind, names in _KINDS.items():
            if kinds & names:
                return kind, ()
        return "text", ()


_KINDS: dict[Kind, set[str]] = {
    "switch": {"boolean"},
    "number": {"integer", "number"},
    "list": {"array"},
    "pairs": {"object"},
}


def write(value: Any, path: str = "") -> str:
    """A default in words."""
    if value is None:
        return _NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        levels = value * 255
        is_levels = path.rpartition(".")[2] == "eps" and 0 < levels < 255 and abs(levels - round(levels)) < 1e-6
        return f"{round(levels)}/255" if is_levels else f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(write(each) for each in value) or _NONE
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={write(each)}" for key, each in value.items()) or _NONE
    return str(value)


def _name(path: str) -> str:
    return path.rpartition(".")[2].replace("_", " ")


def _parse(field: Field, text: str) -> Any:
    if field.kind == "switch":
        return {"yes": True, "no": False}.get(text, text)
    if field.kind == "pairs":
        pairs = (each.partition("=") for each in text.split(","))
        return {key.strip(): value.strip() for key, _, value in pairs}
    if field.kind == "list":
        if text.startswith("["):
            return _json(text)
        return [] if text == _NONE else [_json(each.strip()) for each in text.split(",")]
    return _json(text) if field.kind == "number" else text


def _json(text: str) -> Any:
    """A number or a JSON list; else the text as it is."""
    try:
        value = json.loads(text, parse_constant=str)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, int | float | list) and not isinstance(value, bool) else text
