"""Every honest file is accepted and read as its own library reads it, or refused with the line that mends it."""

from __future__ import annotations

import json
import pickle
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from tests.hostile.corpus import honest_files

ENTRIES = honest_files()
BY_NAME = {entry.name: entry for entry in ENTRIES}


CHECKPOINTS = [entry for entry in ENTRIES if entry.kind == "checkpoint"]  # of data: test_honest_data


def test_names_are_unique():
    assert len(BY_NAME) == len(ENTRIES)


class _Unpickler(pickle.Unpickler):
    """Knows only what is installed; all else, Lightning's, is a dict."""

    def find_class(self, module, name):
        return dict if module.startswith("pytorch_lightning.") else super().find_class(module, name)


_PICKLE = SimpleNamespace(Unpickler=_Unpickler, load=pickle.load, __name__="pickle")


def original(path, manifest):
    """The file as its own library reads it."""
    if manifest["format"] == "safetensors":
        return load_file(path)
    content = torch.load(path, weights_only=False, pickle_module=_PICKLE)
    for key in manifest["wrapper"]:
        content = content[key]
    return {key: value for key, value in content.items() if isinstance(value, torch.Tensor)}


@pytest.mark.parametrize("entry", CHECKPOINTS, ids=lambda entry: entry.name)
def test_accepted_as_it_is_or_refused_with_the_line_that_mends_it(entry, watched):
    outcome = watched.run(entry)
    assert outcome.reports == []
    assert outcome.stderr == ""
    if entry.code is not None:
        assert outcome.failure is not None
        assert (outcome.failure["code"], outcome.status) == (entry.code, 64)
        assert entry.hint in outcome.failure["hint"]
        return
    assert outcome.failure is None
    assert outcome.status == 0
    if entry.kind == "checkpoint":
        manifest = json.loads((outcome.target / "checkpoint.json").read_text())
        expected = original(outcome.target.parent / "upload", manifest)
        prepared = load_file(outcome.target / "checkpoint.safetensors")
        if manifest["format"] == "pt":
            assert [tensor["key"] for tensor in manifest["tensors"]] == list(expected)
        assert prepared.keys() == expected.keys()
        for key, value in expected.items():
            assert prepared[key].dtype == value.dtype
            assert torch.equal(prepared[key], value.detach())


@pytest.mark.parametrize(
    ("name", "wrapper", "extras", "dropped"),
    [
        ("state-dict", [], {}, []),
        (
            "beside-an-optimizer",
            ["model_state_dict"],
            {"epoch": 5, "best_acc": 0.93},
            ["loss", "optimizer_state_dict", "scheduler"],
        ),
        ("wrapped-twice", ["model", "state_dict"], {"epoch": 1}, ["model.step"]),
        ("numbers-among-tensors", [], {}, ["epoch", "note"]),
        (
            "torchvision-reference",
            ["model"],
            {"epoch": 89},
            ["args", "lr_scheduler", "model_ema", "optimizer"],
        ),
        (
            "timm-train",
            ["state_dict"],
            {"epoch": 3, "arch": "test_resnet", "version": 2, "metric": 71.2},
            ["amp_scaler", "args", "state_dict_ema"],
        ),
        ("under-a-name-of-its-own", ["classifier"], {"acc": 94.1}, []),
    ],
)
def test_what_lies_beside_the_tensors_is_kept_or_named(name, wrapper, extras, dropped, watched):
    outcome = watched.run(BY_NAME[name])
    manifest = json.loads((outcome.target / "checkpoint.json").read_text())
    assert (manifest["wrapper"], manifest["extras"], manifest["dropped"]) == (wrapper, extras, dropped)


def test_numbers_of_numpy_are_kept_as_numbers(watched):
    outcome = watched.run(BY_NAME["much-beside"])
    manifest = json.loads((outcome.target / "checkpoint.json").read_text())
    assert manifest["extras"] == {"best_acc": 0.93, "step": 7, "lr": pytest.approx(0.1)}
    assert {"rng", "confusion", "history", "input_size", "frozen", "output", "torch"} <= set(manifest["dropped"])
