"""A module of one's own, told as layers: what the service builds from them computes the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from pydantic import TypeAdapter
from torch import Tensor, nn

from core.models import AnyArchitecture
from core.models.base import ImageShape
from temper import ModuleError, layers
from temper.modules import load

IMAGE = ImageShape(channels=1, height=28, width=28)


class ByFunctions(nn.Module):
    """As people write them: functions, sizes from the batch, a log_softmax at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 6, 5, padding=2, bias=False)
        self.norm = nn.BatchNorm2d(6, eps=1e-3, momentum=0.2)
        self.second = nn.Conv2d(6, 8, (3, 3), stride=2, dilation=2, groups=2)
        self.drop = nn.Dropout2d(0.2)
        self.hidden = nn.Linear(8 * 2 * 2, 12)
        self.size = nn.Linear(12, 10)  # a layer by the name of a method

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.silu(self.norm(self.first(x))), 2)
        x = F.avg_pool2d(self.drop(F.leaky_relu(self.second(x), 0.2)), 2, stride=2)
        x = x.view(x.size(0), -1).relu()
        x = F.dropout(torch.tanh(self.hidden(x)), 0.3, training=self.training)
        return F.log_softmax(self.size(x), dim=1)


def by_modules() -> nn.Module:
    """Nested, with every layer that has weights."""
    features = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4, eps=1e-4), nn.PReLU(4), nn.MaxPool2d((2, 2), padding=1), nn.ReLU6()
    )
    return nn.Sequential(
        features, nn.Identity(), nn.ELU(0.5), nn.AdaptiveAvgPool2d((3, 3)), nn.Flatten(), nn.Linear(36, 10)
    )


class ByMean(nn.Module):
    """Pooled by a mean, and without a function that torch.nn.functional calls by that name."""

    def __init__(self, keepdim: bool) -> None:
        super().__init__()
        self.keepdim = keepdim
        self.body = nn.Conv2d(1, 7, 3)
        self.head = nn.Linear(7, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x).relu_().mean((-1, 2), keepdim=self.keepdim)
        return self.head(torch.flatten(x, 1) if self.keepdim else x.reshape(x.shape[0], -1))


def rebuilt(net: nn.Module) -> nn.Module:
    """What the service makes of the layers, with the weights by their order."""
    made: nn.Module = TypeAdapter(AnyArchitecture).validate_python(layers(net)).build(10, IMAGE)
    theirs = net.state_dict()
    made.load_state_dict(dict(zip(made.state_dict(), theirs.values(), strict=True)))
    return made


@pytest.mark.parametrize("net", [ByFunctions(), by_modules(), ByMean(True), ByMean(False)], ids=lambda net: "")
def test_what_is_built_from_the_layers_computes_the_same(net: nn.Module) -> None:
    x = torch.rand(5, 1, 28, 28)
    with torch.no_grad():
        for _ in range(3):
            net(x)  # moves the statistics of BatchNorm
    made = rebuilt(net).eval()
    assert net.training  # as it was before
    net.eval()
    with torch.no_grad():
        torch.testing.assert_close(
            made(x).softmax(1), net(x).exp() if isinstance(net, ByFunctions) else net(x).softmax(1)
        )


def test_what_trains_is_the_same_too() -> None:
    made = rebuilt(ByFunctions())
    norm = next(each for each in made if isinstance(each, nn.BatchNorm2d))
    assert (norm.eps, norm.momentum) == (1e-3, 0.2)
    assert [each.p for each in made if isinstance(each, nn.Dropout | nn.Dropout2d)] == [0.2, 0.3]


class Skip(ByMean):
    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        return self.head((x + x.relu()).mean((2, 3)))


class Branching(ByMean):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x if x.sum() > 0 else -x).mean((2, 3)))


class Other(ByMean):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.fft.fft(self.body(x)).mean((2, 3)))


class Sliced(ByMean):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x[:, :1]).mean((2, 3)))


class Upside(ByMean):
    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.head = nn.Linear(7, 10)
        self.body = nn.Conv2d(1, 7, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))


class Twice(Upside):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.body(x)).mean((2, 3)))


class OverOne(ByMean):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean(1))


class Flat(ByMean):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).flatten(2))


@pytest.mark.parametrize(
    ("net", "says"),
    [
        (Skip(True), "add takes body and relu, where a chain gives it relu alone"),
        (Branching(True), "forward cannot be traced"),
        (Other(True), "fft_fft"),
        (Sliced(True), "body takes nothing, where a chain gives it x alone"),
        (Upside(), "order head, body, and forward uses body, head"),
        (Twice(), "forward uses body, body, head"),
        (Flat(True), "flatten"),
        (OverOne(True), "mean"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_what_is_no_chain_of_layers_is_told(net: nn.Module, says: str) -> None:
    with pytest.raises(ModuleError, match=says):
        layers(net)


NET = """
from torch import nn
class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(784, 10))
small = Net()
width = 3
def broken():
    raise RuntimeError("no such folder")
"""


@pytest.mark.parametrize("place", ["mine.net:Net", "mine/net.py:Net", "mine.net:small"])
def test_a_module_is_found_by_its_file_and_name(tmp_path: Path, place: str) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "net.py").write_text(NET)
    ran = subprocess.run(
        [Path(sys.executable).with_name("temper"), "layers", place],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == '{"sequential": ["Flatten", {"Linear": {"out_features": 10}}]}\n'


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("net.py", "'net.py' is not FILE:NAME"),
        ("nothing:Net", "nothing:Net cannot be built: ModuleNotFoundError"),
        ("net:Other", "has no attribute 'Other'"),
        ("net:width", "net:width cannot be built: TypeError"),
        ("net:broken", "RuntimeError: no such folder"),
        ("net:dict", "gives a dict, not a torch.nn.Module"),
    ],
)
def test_what_is_no_module_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, says: str) -> None:
    (tmp_path / "net.py").write_text(NET + "dict = dict\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "net", raising=False)
    with pytest.raises(ModuleError, match=says):
        load(place)
