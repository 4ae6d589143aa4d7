"""Reads recipes: YAML in, a checked Recipe out. Every sentence about a fault names the file and the field.

``extends`` names one part or several, laid over each other in turn, and the recipe over them.
"""

from __future__ import annotations

import difflib
import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.spec import JobSpec, merge

FOLDER = Path(__file__).parent
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*/[a-z0-9][a-z0-9.-]*")


class RecipeError(Exception):
    """A recipe that does not exist or does not hold together."""


class PublishedRow(BaseModel):
    """One row of a paper's table; percent, as printed. Null where the paper prints nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    table: str
    attack: str
    clean: float | None = None
    robust: float | None = None
    time: str | None = None


class Recipe(BaseModel):
    """A whole job, and what was published about it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str = Field(min_length=1)
    paper: str | None = Field(None, description="Key of the paper, as in its folder's name; null for our own.")
    method: str | None = Field(None, description="The method as the paper's table names it.")
    start: str | None = Field(None, description="The recipe whose result it fine-tunes; null: an uploaded checkpoint.")
    published: tuple[PublishedRow, ...] = ()
    notes: tuple[str, ...] = Field((), description="Where it differs from the paper, and why.")
    spec: dict[str, Any] = Field(description="The job, as POST /jobs takes it.")

    def resolve(self, overrides: dict[str, Any] | None = None) -> JobSpec:
        """The job with every default filled in.

        Raises: RecipeError naming the field that is wrong.
        """
        try:
            return JobSpec.model_validate(merge(self.spec, overrides or {}))
        except ValidationError as error:
            raise RecipeError(_sentence(f"recipe {self.name!r}: spec", error)) from error


def names() -> list[str]:
    """All recipes, sorted."""
    paths = (path.relative_to(FOLDER) for path in FOLDER.rglob("*.yaml"))
    return sorted(path.with_suffix("").as_posix() for path in paths if not any(p.startswith("_") for p in path.parts))


@cache
def load(name: str) -> Recipe:
    """The recipe of this name.

    Raises: RecipeError with the nearest names, or with the field that is wrong.
    """
    if not _exists(name):
        near = difflib.get_close_matches(name, names(), n=4, cutoff=0.3)
        raise RecipeError(f"unknown recipe {name!r}; nearest: {', '.join(near) or 'none'} (GET /recipes lists all)")
    content = _read(name, seen=())
    try:
        recipe = Recipe.model_validate({**content, "name": name})
    except ValidationError as error:
        raise RecipeError(_sentence(f"recipe {name!r}", error)) from error
    if recipe.start is not None and not _exists(recipe.start):
        raise RecipeError(f"recipe {name!r}: start: unknown recipe {recipe.start!r}")
    return recipe


def _exists(name: str) -> bool:
    """Names come from the network: nothing but a file of this folder is ever opened."""
    return _NAME.fullmatch(name) is not None and (FOLDER / f"{name}.yaml").is_file()


def _read(name: str, seen: tuple[str, ...]) -> dict[str, Any]:
    if name in seen:
        raise RecipeError(f"recipes extend each other in a circle: {' -> '.join((*seen, name))}")
    path = FOLDER / f"{name}.yaml"
    if not path.exists():
        raise RecipeError(f"recipe {seen[-1]!r}: extends: no file {name}.yaml")
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise RecipeError(f"recipe {name!r} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"recipe {name!r} is not a YAML object")
    parents = content.pop("extends", [])
    result: dict[str, Any] = {}
    for parent in [parents] if isinstance(parents, str) else parents:
        result = _over(result, _read(str(parent), (*seen, name)))
    return _over(result, content)


def _over(base: dict[str, Any], content: dict[str, Any]) -> dict[str, Any]:
    """``merge``, but a recipe's notes come after those that it inherits, each once."""
    notes = dict.fromkeys([*base.get("notes", ()), *content.get("notes", ())])
    return {**merge(base, content), "notes": list(notes)}


def _sentence(what: str, error: ValidationError) -> str:
    faults = [f"{'.'.join(map(str, fault['loc'])) or 'whole'}: {fault['msg']}" for fault in error.errors()]
    return f"{what}: " + "; ".join(faults)
