"""Keys matched by name, prefix or order; the hardened file loads into the user's own class with strict=True."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from core.errors import CheckpointMismatchError, DataMismatchError
from core.run import run
from tests.core.workdirs import make_workdir, save, small_data

SPEC = {
    "model": {"architecture": "fmnist-cnn"},
    "defense": {"name": "aft", "steps": 1},
    "threat": {"eps": 0.05},
    "training": {"epochs": 1, "batch_size": 100, "held_out": 20},
    "evaluation": {"samples": 50, "diagnose": False},
}


class OtherNames(nn.Module):
    """The example's network as another person would have written it."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.hidden = nn.Linear(1152, 128)
        self.logits = nn.Linear(128, 10)

    def forward(self, x):
        return self.logits(F.relu(self.hidden(self.features(x).flatten(1))))


@pytest.fixture
def weights(example):
    return torch.load(example / "checkpoint.pt", weights_only=True)


@pytest.fixture
def other_names(weights):
    net = OtherNames()
    net.load_state_dict(dict(zip(net.state_dict(), weights.values(), strict=True)))
    return net


def harden(tmp_path, arrays, checkpoint, spec=SPEC):
    spec, workdir = make_workdir(tmp_path / "run", spec, checkpoint, small_data(tmp_path / "data.npz", arrays))
    return run(spec, workdir, lambda _: None), workdir


def accuracy(net, arrays):
    with torch.no_grad():
        predicted = net.eval()(torch.from_numpy(arrays["x_test"][:100])[:, None] / 255).argmax(1)
    return (predicted.numpy() == arrays["y_test"][:100]).mean()


def test_other_attribute_names_are_matched_by_order_and_load_back(tmp_path, arrays, other_names):
    report, workdir = harden(tmp_path, arrays, save(tmp_path / "mine.pt", other_names.state_dict()))
    assert report.inputs["checkpoint"]["matched_by"] == "order"
    assert any("matched by order" in note for note in report.notes)
    assert report.before.clean.accuracy > 0.8
    hardened = OtherNames()
    assert accuracy(hardened, arrays) < 0.4
    hardened.load_state_dict(torch.load(workdir.checkpoint("pt"), weights_only=True), strict=True)
    assert accuracy(hardened, arrays) > 0.5
    hardened.load_state_dict(load_file(workdir.checkpoint("safetensors")), strict=True)


def test_safetensors_are_sorted_by_name_and_still_matched(tmp_path, arrays, other_names):
    path = tmp_path / "mine.safetensors"
    save_file(other_names.state_dict(), path)
    report, workdir = harden(tmp_path, arrays, path)
    assert report.inputs["checkpoint"]["matched_by"] == "order"
    assert report.before.clean.accuracy > 0.8
    assert report.output.format == "safetensors"
    OtherNames().load_state_dict(load_file(workdir.checkpoint("safetensors")), strict=True)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model.net."])
def test_prefixes_are_stripped_and_come_back(tmp_path, arrays, weights, prefix):
    renamed = OrderedDict((prefix + key, value) for key, value in weights.items())
    report, workdir = harden(tmp_path, arrays, save(tmp_path / "wrapped.pt", renamed))
    assert report.inputs["checkpoint"]["matched_by"] == "prefix"
    out = torch.load(workdir.checkpoint("pt"), weights_only=True)
    assert list(out) == list(renamed)


def test_wrapper_and_plain_values_come_back_and_the_rest_is_named(tmp_path, arrays, weights):
    content = {"state_dict": weights, "epoch": 7, "best": 0.5, "optimizer": {"state": {0: torch.zeros(3)}}}
    report, workdir = harden(tmp_path, arrays, save(tmp_path / "lightning.pt", content))
    out = torch.load(workdir.checkpoint("pt"), weights_only=True)
    assert set(out) == {"state_dict", "epoch", "best"}
    assert out["epoch"] == 7
    assert list(out["state_dict"]) == list(weights)
    assert any("optimizer" in note for note in report.notes)
    assert "['state_dict']" in report.output.snippet


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes_come_back_and_what_is_evaluated_is_rounded_to_them(tmp_path, arrays, weights, dtype):
    cast = OrderedDict((key, value.to(dtype)) for key, value in weights.items())
    report, workdir = harden(tmp_path, arrays, save(tmp_path / "half.pt", cast))
    out = torch.load(workdir.checkpoint("pt"), weights_only=True)
    assert {value.dtype for value in out.values()} == {dtype}
    assert report.before.clean.accuracy > 0.8


def test_equal_jobs_give_equal_bytes(tmp_path, arrays, example):
    outputs = [
        harden(tmp_path / name, arrays, example / "checkpoint.pt")[0].output
        for name in ("a", "b")
        if (tmp_path / name).mkdir() is None
    ]
    assert outputs[0] == outputs[1]


def mismatch(tmp_path, arrays, weights, spec=SPEC):
    with pytest.raises(CheckpointMismatchError) as error:
        harden(tmp_path, arrays, save(tmp_path / "bad.pt", weights), spec)
    return error.value


def test_a_mismatch_lists_missing_extra_and_wrongly_shaped_keys(tmp_path, arrays, weights):
    broken = OrderedDict(weights)
    del broken["conv1.bias"]
    broken["stray"] = torch.zeros(2)
    broken["fc1.bias"] = torch.zeros(7)
    error = mismatch(tmp_path, arrays, broken)
    assert "missing (1): conv1.bias" in error.detail
    assert "extra (1): stray" in error.detail
    assert "wrong shape (1): fc1.bias is [7], expected [128]" in error.detail


def test_images_of_another_size_than_the_network_was_made_for(tmp_path, arrays, weights):
    border = ((0, 0), (2, 2), (2, 2))
    padded = {key: np.pad(value, border) if key.startswith("x_") else value for key, value in arrays.items()}
    with pytest.raises(DataMismatchError, match=r"images of 28 x 28, and .* has 32 x 32") as error:
        harden(tmp_path, padded, save(tmp_path / "fits.pt", weights))
    assert "data.resize 28" in error.value.hint


def test_a_mismatch_names_the_nearest_architecture(tmp_path, arrays, weights):
    spec = {**SPEC, "model": {"architecture": "small-cnn"}}
    assert "'fmnist-cnn'" in mismatch(tmp_path, arrays, weights, spec).hint


def test_at_most_ten_keys_are_listed(tmp_path, arrays, weights):
    stray = OrderedDict((f"stray{n}", torch.zeros(1)) for n in range(30))
    error = mismatch(tmp_path, arrays, OrderedDict(**weights, **stray))
    assert "stray9, ..." in error.detail
    assert "stray10" not in error.detail


@pytest.mark.parametrize("kind", ["pt", "safetensors"])
@pytest.mark.parametrize(
    "name",
    ["resnet18-cifar", "vgg16-bn-cifar", "torchvision/resnet50", "torchvision/densenet121", "timm/efficientnet_b0"],
)
def test_the_class_count_is_read_from_the_head_whatever_the_order(name, kind):
    """safetensors are sorted by name: "fc" comes before "layer4", "classifier" before "features"."""
    from core.matching import count_classes
    from core.models import ImageShape
    from core.prepared import CheckpointManifest, SourceFile, TensorEntry
    from core.spec import ModelSpec

    architecture = ModelSpec(architecture=name).architecture
    with torch.device("meta"):
        state = architecture.build(37, ImageShape(3, 32, 32)).state_dict()
    keys = sorted(state) if kind == "safetensors" else list(state)
    for prefix in ("", "module."):
        tensors = [TensorEntry(key=prefix + key, dtype="F32", shape=tuple(state[key].shape)) for key in keys]
        manifest = CheckpointManifest(source=SourceFile(filename="x", sha256="", size=0), format=kind, tensors=tensors)
        assert count_classes(manifest, architecture, ImageShape(3, 32, 32)) == 37


def test_safetensors_whose_names_leave_the_order_open_are_refused(tmp_path, arrays):
    """Two alike layers with unlike names: alphabetical order would rewire the network silently."""
    layers = [{"conv2d": {"out_channels": 1, "kernel_size": 3, "padding": 1}}] * 3 + [
        "flatten",
        {"linear": {"out_features": 10}},
    ]
    net = nn.Module()
    for name in ("entry", "block_b", "block_a"):
        setattr(net, name, nn.Conv2d(1, 1, 3, padding=1))
    net.out = nn.Linear(784, 10)
    save_file(net.state_dict(), tmp_path / "open.safetensors")
    spec = {**SPEC, "model": {"architecture": {"sequential": layers}}}
    with pytest.raises(CheckpointMismatchError) as error:
        harden(tmp_path, arrays, tmp_path / "open.safetensors", spec)
    assert "send a .pt file" in error.value.hint


def test_batch_norm_in_safetensors_is_not_taken_in_alphabetical_order(tmp_path, arrays):
    """Sorted by name a BatchNorm is bias, running_mean, running_var, weight: all of one shape."""
    from core.matching import match_keys
    from core.prepared import CheckpointManifest, SourceFile, TensorEntry

    theirs = nn.Sequential()
    theirs.add_module("stem", nn.Conv2d(1, 4, 3, bias=False))
    theirs.add_module("norm", nn.BatchNorm2d(4))
    ours = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4))
    state = theirs.state_dict()
    renamed = {key.replace("stem", "a_stem").replace("norm", "b_norm"): value for key, value in state.items()}
    tensors = [TensorEntry(key=key, dtype="F32", shape=tuple(renamed[key].shape)) for key in sorted(renamed)]
    manifest = CheckpointManifest(
        source=SourceFile(filename="x", sha256="", size=0), format="safetensors", tensors=tensors
    )
    keys = match_keys(manifest, ours).keys
    assert keys == {
        "a_stem.weight": "0.weight", "b_norm.weight": "1.weight", "b_norm.bias": "1.bias",
        "b_norm.running_mean": "1.running_mean", "b_norm.running_var": "1.running_var",
        "b_norm.num_batches_tracked": "1.num_batches_tracked",
    }  # fmt: skip


def test_a_mismatch_behind_a_prefix_is_described_without_it(tmp_path, arrays, weights):
    broken = OrderedDict(("module." + key, value) for key, value in weights.items())
    broken["module.fc1.bias"] = torch.zeros(7)
    error = mismatch(tmp_path, arrays, broken)
    assert error.detail.endswith("wrong shape (1): fc1.bias is [7], expected [128]")
    assert "nearest" not in error.hint
