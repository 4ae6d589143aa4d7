"""From a JSON Schema to a form and back: nothing of the spec is missing, and what is filled in is what is asked for."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from core.defenses import DEFENSES
from core.spec import JobSpec
from web.dashboard.fields import assemble, describe, paths, write


class Small(BaseModel):
    name: Literal["small"] = "small"
    steps: int = Field(3, description="How many.")


class Large(BaseModel):
    name: Literal["large"] = "large"
    step_size: float | str = "eps/4"
    inner: Small = Small()


class Whole(BaseModel):
    way: Annotated[Small | Large, Field(discriminator="name")]
    on: bool = False
    kind: Literal["a", "b"] = "a"
    most: int | None = None
    several: tuple[float, ...] | None = None
    tags: dict[str, str] = {}
    needed: float


def form(values=None, defaults=None):
    return describe(Whole.model_json_schema(), values or {}, defaults or {})


def fields(values=None, defaults=None):
    return {field.path: field for field in form(values, defaults).fields()}


def test_each_kind_of_schema_has_its_control():
    kinds = {path: field.kind for path, field in fields({"way.name": "large"}).items()}
    assert kinds == {
        "way.name": "choice",
        "way.step_size": "number",
        "way.inner.steps": "number",
        "on": "switch",
        "kind": "choice",
        "most": "number",
        "several": "list",
        "tags": "pairs",
        "needed": "number",
    }


def test_the_algorithm_that_was_chosen_decides_which_fields_there_are():
    assert {path for path in fields() if path.startswith("way")} == {"way.name"}
    assert {path for path in fields({"way.name": "small"}) if path.startswith("way")} == {"way.name", "way.steps"}
    assert fields()["way.name"].choices == ("large", "small")
    assert fields()["way.name"].decides
    assert {path for path in fields({"way.name": "<b>"}) if path.startswith("way")} == {"way.name"}


def test_defaults_are_the_resolved_ones_then_the_schemas():
    assert fields({"way.name": "small"})["way.steps"].default == "3"
    resolved = {"way": {"name": "small", "steps": 7}, "needed": 0.5}
    known = fields(defaults=resolved)
    assert (known["way.name"].default, known["way.steps"].default, known["needed"].default) == ("small", "7", "0.5")
    other = fields({"way.name": "large"}, resolved)
    assert other["way.inner.steps"].default == "3", "those of another algorithm say nothing"
    assert (fields()["needed"].default, fields()["most"].default) == (None, "none")


def test_a_form_gives_back_what_was_filled_in():
    values = {
        "way.name": "large", "way.step_size": "eps/8", "way.inner.steps": "5", "on": "yes", "kind": "b", "most": " 4 ",
        "several": "1, 2.5", "tags": "team=vision, k = v", "needed": "",
    }  # fmt: skip
    assert assemble(form(values).fields(), values) == {
        "way": {"name": "large", "step_size": "eps/8", "inner": {"steps": 5}},
        "on": True,
        "kind": "b",
        "most": 4,
        "several": [1, 2.5],
        "tags": {"team": "vision", "k": "v"},
    }


@pytest.mark.parametrize(
    ("path", "text", "value"),
    [("most", "many", "many"), ("most", "{}", "{}"), ("most", "NaN", "NaN"), ("several", "none", []),
     ("several", "[1]", [1]), ("several", "[1", "[1"), ("on", "perhaps", "perhaps"),
     ("needed", "8/255", "8/255"), ("needed", "true", "true")],
)  # fmt: skip
def test_what_does_not_fit_stays_as_it_is_for_the_server_to_say(path, text, value):
    assert assemble(form().fields(), {path: text}) == {path: value}


def test_defaults_in_words():
    said = [write(value) for value in (None, True, 10, 0.1, [1, 2.0], [], {"a": 1}, "eps/4")]
    assert said == ["none", "yes", "10", "0.1", "1, 2", "none", "a=1", "eps/4"]
    assert [write(8 / 255, "threat.eps"), write(0.1, "threat.eps")] == ["8/255", "0.1"]


def flat(content: Any, path: str = "") -> set[str]:
    if not isinstance(content, dict) or path == "tags":
        return {path}
    return {each for key, value in content.items() for each in flat(value, f"{path}.{key}" if path else key)}


SCHEMA = JobSpec.model_json_schema()


@pytest.mark.parametrize("defense", DEFENSES.names())
def test_every_field_of_every_resolved_spec_is_in_its_form(defense):
    spec = JobSpec.model_validate({"model": {"architecture": "wrn-28-10"}, "defense": defense})
    content = spec.model_dump(mode="json")
    shown = {field.path for field in describe(SCHEMA, {}, content).fields()}
    # an object with a single kind, as the inner attack of some defenses, has no choice of a name
    wanted = {path for path in flat(content) if path != "training"}
    assert wanted - shown <= {"defense.attack.name"}
    assert shown - paths(SCHEMA) == set()


@pytest.mark.parametrize("architecture", ["fmnist-cnn", "sequential", "torchvision", "wrn-28-10"])
def test_every_architecture_can_be_chosen(architecture):
    values = {
        "model.architecture.name": architecture,
        "model.architecture.model": "resnet18",
        "model.architecture.layers": '["flatten", {"linear": {"out_features": 10}}]',
        "defense.name": "aft",
        "threat.eps": "8/255",
        "data.dataset": "cifar10",
    }
    content = assemble(describe(SCHEMA, values, {}).fields(), values)
    assert JobSpec.model_validate(content).model.architecture.name == architecture
