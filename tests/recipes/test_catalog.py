"""Recipes are read, laid over each other and checked; what is wrong is named."""

from __future__ import annotations

import pytest

from recipes import catalog
from recipes.catalog import RecipeError

BASE = """
paper: somebody2020
spec:
  model: {architecture: fmnist-cnn}
  defense: {name: aft, steps: 5}
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a recipe into a folder of the test's own."""
    monkeypatch.setattr(catalog, "FOLDER", tmp_path)
    catalog.load.cache_clear()

    def write(name: str, text: str) -> None:
        path = tmp_path / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    yield write
    catalog.load.cache_clear()


def test_a_recipe_lies_over_what_it_extends(write):
    write("p/_base", BASE)
    write("p/a", "extends: p/_base\ntitle: A\nstart: p/b\nspec: {defense: {steps: 7}, threat: {eps: 8/255}}")
    write("p/b", "extends: p/a\ntitle: B\nstart: null\nspec: {defense: {name: pgd-at}}")
    assert catalog.names() == ["p/a", "p/b"]
    a, b = catalog.load("p/a"), catalog.load("p/b")
    assert (a.paper, a.start, b.start) == ("somebody2020", "p/b", None)
    assert a.resolve().defense.steps == 7
    assert b.spec["defense"] == {"name": "pgd-at"}, "another algorithm keeps nothing of the one below"
    assert b.resolve().threat.eps == 8 / 255
    assert a.resolve({"training": {"epochs": 2}}).training.epochs == 2


def test_a_typo_in_a_recipes_field_is_named(write):
    write("p/a", BASE + "titel: A")
    with pytest.raises(RecipeError, match=r"recipe 'p/a': title: Field required; titel: Extra inputs"):
        catalog.load("p/a")


def test_a_typo_in_a_published_row_is_named(write):
    write("p/a", BASE + 'title: A\npublished:\n  - {table: "1", attack: FGSM, rubust: 3}')
    with pytest.raises(RecipeError, match=r"recipe 'p/a': published\.0\.rubust"):
        catalog.load("p/a")


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ("{trainning: {epochs: 3}}", "trainning"),
        ("{training: {epoch: 3}}", r"training\.epoch:"),
        ("{threat: {eps: 8/2x}}", r"threat\.eps:"),
        ("{defense: {stepz: 3}}", r"defense\.aft\.stepz"),
        ("{model: {architecture: resnet51-cifar}}", r"model\.architecture"),
    ],
)
def test_a_fault_in_the_spec_is_named(write, spec, field):
    write("p/_base", BASE)
    write("p/a", f"extends: p/_base\ntitle: A\nspec: {spec}")
    with pytest.raises(RecipeError, match=f"recipe 'p/a': spec: .*{field}"):
        catalog.load("p/a").resolve()


def test_an_override_is_checked_too(write):
    write("p/a", BASE + "title: A")
    with pytest.raises(RecipeError, match=r"spec: training\.epochs: .* greater than or equal to 1"):
        catalog.load("p/a").resolve({"training": {"epochs": 0}})


def test_a_circle_is_named(write):
    write("p/a", "extends: p/b\ntitle: A")
    write("p/b", "extends: p/a\ntitle: B")
    with pytest.raises(RecipeError, match="extend each other in a circle: p/a -> p/b -> p/a"):
        catalog.load("p/a")


def test_what_is_extended_or_started_from_has_to_exist(write):
    write("p/a", "extends: p/_bose\ntitle: A")
    with pytest.raises(RecipeError, match=r"recipe 'p/a': extends: no file p/_bose\.yaml"):
        catalog.load("p/a")
    write("p/b", BASE + "title: B\nstart: p/c")
    with pytest.raises(RecipeError, match="recipe 'p/b': start: unknown recipe 'p/c'"):
        catalog.load("p/b")


@pytest.mark.parametrize(("text", "what"), [("{", "is not YAML"), ("- a", "is not a YAML object")])
def test_a_file_that_is_no_recipe_is_named(write, text, what):
    write("p/a", text)
    with pytest.raises(RecipeError, match=f"recipe 'p/a' {what}"):
        catalog.load("p/a")


def test_an_unknown_name_gets_the_nearest_ones():
    with pytest.raises(RecipeError, match="unknown recipe 'jeddi2020/cifar10-atf'; nearest: jeddi2020/cifar10-a"):
        catalog.load("jeddi2020/cifar10-atf")


@pytest.mark.parametrize("name", ["jeddi2020/_base", "../recipes/jeddi2020/cifar10-aft", "jeddi2020/cifar10-aft.yaml"])
def test_only_listed_names_are_read(name):
    with pytest.raises(RecipeError, match="unknown recipe"):
        catalog.load(name)


@pytest.mark.parametrize(
    "name", ["../core/spec", "hou2022/_base", "hou2022/../jeddi2020/cifar10-aft", "/etc/passwd", ""]
)
def test_only_recipes_are_ever_opened(name):
    with pytest.raises(RecipeError, match="unknown recipe"):
        catalog.load(name)


def test_every_recipe_has_a_name_that_can_be_asked_for():
    assert all(catalog.load(name).name == name for name in catalog.names())
