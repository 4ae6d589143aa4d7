"""Finds the named, parametrised algorithms of a package: one file is one entry.

An entry's class is at once its Python type, its JSON Schema and its row in the catalog.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from functools import reduce
from operator import or_
from typing import Annotated, Any, ClassVar, Generic, TypeVar, cast, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


class Entry(BaseModel):
    """Base of attacks, defenses, schedules, optimizers and architectures.

    A subclass narrows ``name`` to a Literal; its fields are the hyper-parameters, with bounds and descriptions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    title: ClassVar[str]
    paper: ClassVar[str] = ""

    name: str

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The values that ``name`` may take."""
        return get_args(cls.model_fields["name"].annotation)


E = TypeVar("E", bound=Entry)


def _name_only(value: Any) -> Any:
    """Let "aft" stand for {"name": "aft"}."""
    return {"name": value} if isinstance(value, str) else value


class Registry(Generic[E]):
    """All concrete entries found in the modules of one package, by name."""

    def __init__(self, package: str, base: Callable[..., E]) -> None:
        path = importlib.import_module(package).__path__
        for module in sorted(pkgutil.iter_modules(path), key=lambda m: m.name):
            importlib.import_module(f"{package}.{module.name}")
        self._entries: dict[str, type[E]] = {}
        for cls in _subclasses(cast(type[E], base)):  # mypy takes no abstract class for a type[E]
            for name in cls.names():
                if name in self._entries:
                    raise ValueError(f"{name!r} is registered twice: {self._entries[name]} and {cls}")
                self._entries[name] = cls

    def __getitem__(self, name: str) -> type[E]:
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def names(self) -> list[str]:
        """Registered names, sorted."""
        return sorted(self._entries)

    def classes(self) -> list[type[E]]:
        """Each entry class once, in the order of its first name."""
        return list(dict.fromkeys(self._entries[name] for name in self.names()))

    def union(self) -> Any:
        """A pydantic type that accepts any entry, told apart by ``name``; a bare name stands for its defaults."""
        return one_of(*self.classes())

    def catalog(self) -> list[dict[str, Any]]:
        """One row a name: name, title, paper, JSON Schema and defaults."""
        return [_row(name, self._entries[name]) for name in self.names()]


def one_of(*classes: type[Entry]) -> Any:
    """A pydantic type that accepts these entries, told apart by ``name``; a bare name stands for its defaults."""
    union = reduce(or_, classes)
    # a union of one is the class itself and has nothing to discriminate
    tagged = Annotated[union, Field(discriminator="name")] if len(classes) > 1 else union
    return Annotated[tagged, BeforeValidator(_name_only, json_schema_input_type=tagged | str)]


def _subclasses(base: type[E]) -> list[type[E]]:
    found: list[type[E]] = []
    for cls in base.__subclasses__():
        if cls.names():
            found.append(cls)
        found.extend(_subclasses(cls))
    return found


def _row(name: str, cls: type[Entry]) -> dict[str, Any]:
    defaults = {
        field: info.get_default(call_default_factory=True)
        for field, info in cls.model_fields.items()
        if field != "name" and not info.is_required()
    }
    return {
        "name": name,
        "title": cls.title,
        "paper": cls.paper,
        "schema": cls.model_json_schema(),
        "defaults": {"name": name, **defaults},
    }
