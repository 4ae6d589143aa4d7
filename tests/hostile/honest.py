"""Checkpoints that real users have: of libraries, training scripts, older versions, with much beside the weights."""

from __future__ import annotations

import argparse
import copy
import pathlib
import struct
import warnings
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from tests.hostile.entry import Honest, Write, having
from tests.hostile.pickles import BEGIN, MARK, STOP, call, named, tensor
from tests.hostile.zips import Member, pack


class AttributeDict(dict[str, Any]):
    """Stands for Lightning's dict of hyper-parameters, under whose name it is saved."""


def _net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 4))


def _saved(make: Callable[[], Any], **options: Any) -> Write:
    def write(path: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.save(make(), path, **options)

    return write


def _safetensors(make: Callable[[], dict[str, torch.Tensor]], metadata: dict[str, str] | None = None) -> Write:
    return lambda path: save_file(make(), path, metadata)


def _trained() -> tuple[nn.Module, torch.optim.Optimizer, Any]:
    net = _net()
    optimizer = torch.optim.Adam(net.parameters())
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 5])
    net(torch.ones(2, 3, 3, 3)).sum().backward()
    optimizer.step()
    schedule.step()
    return net, optimizer, schedule


def _beside_an_optimizer() -> dict[str, Any]:
    net, optimizer, schedule = _trained()
    return {
        "epoch": 5,
        "best_acc": 0.93,
        "model_state_dict": net.state_dict(),
        "optimizer_state_dict": optimizer.state_dict(),
        "scheduler": schedule.state_dict(),
        "loss": torch.tensor(0.3),
    }


def _lightning(hyper_parameters: Any) -> dict[str, Any]:
    net, optimizer, schedule = _trained()
    return {
        "epoch": 9,
        "global_step": 1200,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": OrderedDict((f"model.{key}", value) for key, value in net.state_dict().items()),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 10}}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val'}": {"best_model_score": torch.tensor(0.9), "kth_value": None}},
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [schedule.state_dict()],
        "hparams_name": "kwargs",
        "hyper_parameters": hyper_parameters,
    }


def _torchvision_reference() -> dict[str, Any]:
    net, optimizer, schedule = _trained()
    average = torch.optim.swa_utils.AveragedModel(net)
    return {
        "model": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": schedule.state_dict(),
        "epoch": 89,
        "args": argparse.Namespace(lr=0.1, data_path="/data", device="cuda"),
        "model_ema": average.state_dict(),
    }


def _timm_train() -> dict[str, Any]:
    net = _net()
    return {
        "epoch": 3,
        "arch": "test_resnet",
        "state_dict": net.state_dict(),
        "version": 2,
        "args": argparse.Namespace(aa=None, lr=0.1),
        "amp_scaler": {"scale": 65536.0, "_growth_tracker": 7},
        "state_dict_ema": copy.deepcopy(net).state_dict(),
        "metric": 71.2,
    }


def _much_beside() -> dict[str, Any]:
    history = defaultdict(list)
    history["loss"].append(0.5)
    return {
        "state_dict": _net().state_dict(),
        "best_acc": np.float64(0.93),
        "step": np.int64(7),
        "lr": np.float32(0.1),
        "rng": {"numpy": np.random.default_rng(0).bit_generator.state, "torch": torch.get_rng_state()},
        "classes": ["cat", "dog"],
        "confusion": np.eye(2),
        "history": history,
        "input_size": torch.Size([3, 32, 32]),
        "device": torch.device("cpu"),
        "dtype": torch.float32,
        "frozen": {"conv", "norm"},
        "output": pathlib.PurePosixPath("x") and pathlib.PosixPath("runs/1"),
        "torch": torch.__version__,
    }


def _tied() -> dict[str, torch.Tensor]:
    weight = torch.randn(4, 6)
    return {"embed.weight": weight, "head.weight": weight, "head.transposed": weight.t()}


def _flat() -> dict[str, torch.Tensor]:
    flat = torch.randn(22)
    return {
        "a.weight": flat[:12].view(3, 4),
        "a.bias": flat[12:15],
        "b.weight": flat[15:21].view(2, 3),
        "b.scale": flat[21],
    }


def _attributed() -> dict[str, nn.Parameter]:
    parameter = nn.Parameter(torch.randn(3, 2))
    parameter.no_decay = True  # type: ignore[attr-defined]
    return {"weight": parameter}


def _transposed() -> dict[str, torch.Tensor]:
    return {"linear.weight": torch.randn(5, 7).t(), "conv.weight": torch.randn(3, 3, 2, 4).permute(3, 2, 0, 1)}


def _channels_last() -> OrderedDict[str, torch.Tensor]:
    return _net().to(memory_format=torch.channels_last).state_dict()


def _records(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def _packed_again(compression: int) -> Write:
    """Unpacked and packed again by hand, with its folders."""

    def write(path: Path) -> None:
        torch.save(_net().state_dict(), path)
        records = _records(path)
        root = next(iter(records)).partition("/")[0]
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, content in {f"{root}/": b"", f"{root}/data/": b"", **records}.items():
                archive.writestr(name, content)

    return write


def _lightning_attribute_dict(path: Path) -> None:
    torch.save(_lightning(AttributeDict(lr=0.1)), path)
    here = f"c{__name__}\n".encode()
    with zipfile.ZipFile(path) as archive:
        assert any(here in archive.read(info) for info in archive.infolist())
    records = {
        name: content.replace(here, b"cpytorch_lightning.utilities.parsing\n")
        for name, content in _records(path).items()
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in records.items():
            archive.writestr(name, content)


def _without_checksums(path: Path) -> None:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(_net().state_dict(), path)
    finally:
        torch.serialization.set_crc32_options(before)


def _old_zip() -> bytes:
    """As torch 1.4 wrote it under Python 2: byte strings, an OrderedDict of pairs, and no record of the byte order."""
    key = b"U\x06weight"
    pair = b"]" + MARK + key + tensor() + b"e"
    pickle = BEGIN + call(named("collections", "OrderedDict"), b"]" + pair + b"a") + STOP
    return pack(
        [
            Member(b"archive/version", b"2\n"),
            Member(b"archive/data.pkl", pickle),
            Member(b"archive/data/0", struct.pack("<4f", 1, 2, 3, 4)),
        ]
    )


def _compiled(parallel: bool) -> OrderedDict[str, torch.Tensor]:
    net = torch.compile(_net())
    return (nn.DataParallel(net) if parallel else net).state_dict()  # type: ignore[arg-type]


def _torchscript(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(_net()).save(path)


def _overlapping() -> dict[str, torch.Tensor]:
    whole = torch.randn(4, 4)
    return {"all": whole, "rows": whole[:2]}


_ACCEPTED: list[tuple[str, str, Write]] = [
    ("state-dict", "model.pt", _saved(lambda: _net().state_dict())),
    (
        "torchvision-squeezenet",
        "squeezenet.pth",
        _saved(lambda: torchvision.models.squeezenet1_1(num_classes=10).state_dict()),
    ),
    (
        "torchvision-shufflenet",
        "shufflenet.pth",
        _saved(lambda: torchvision.models.shufflenet_v2_x0_5(num_classes=10).state_dict()),
    ),
    ("timm-resnet", "model.pth", _saved(lambda: timm.create_model("test_resnet").state_dict())),
    ("timm-vit", "pytorch_model.bin", _saved(lambda: timm.create_model("test_vit").state_dict())),
    (
        "timm-safetensors",
        "model.safetensors",
        _safetensors(lambda: timm.create_model("test_resnet").state_dict(), {"format": "pt"}),
    ),
    ("data-parallel", "model.pt", _saved(lambda: nn.DataParallel(_net()).state_dict())),
    ("compiled", "model.pt", _saved(lambda: _compiled(False))),
    ("compiled-and-parallel", "model.pt", _saved(lambda: _compiled(True))),
    ("beside-an-optimizer", "checkpoint.pth.tar", _saved(_beside_an_optimizer)),
    ("epoch-and-state-dict", "last.pt", _saved(lambda: {"epoch": 5, "state_dict": _net().state_dict()})),
    ("wrapped-twice", "last.pt", _saved(lambda: {"model": {"state_dict": _net().state_dict(), "step": 4}, "epoch": 1})),
    ("under-net", "ckpt.pth", _saved(lambda: {"net": _net().state_dict(), "acc": 94.1, "epoch": 199})),
    ("under-a-name-of-its-own", "ckpt.pth", _saved(lambda: {"classifier": _net().state_dict(), "acc": 94.1})),
    (
        "deepspeed-module",
        "mp_rank_00_model_states.pt",
        _saved(lambda: {"module": _net().state_dict(), "dp_world_size": 8}),
    ),
    ("only-averaged-weights", "ema.pt", _saved(lambda: {"ema": _net().state_dict(), "decay": 0.999})),
    ("lightning", "last.ckpt", _saved(lambda: _lightning({"lr": 0.1, "width": [1, 2]}))),
    ("lightning-attribute-dict", "last.ckpt", _lightning_attribute_dict),
    ("torchvision-reference", "model_89.pth", _saved(_torchvision_reference)),
    ("timm-train", "model_best.pth.tar", _saved(_timm_train)),
    ("much-beside", "all.pt", _saved(_much_beside)),
    ("numbers-among-tensors", "model.pt", _saved(lambda: {**_net().state_dict(), "epoch": 5, "note": "mine"})),
    ("half", "model.pt", _saved(lambda: _net().half().state_dict())),
    ("bfloat16", "model.pt", _saved(lambda: _net().bfloat16().state_dict())),
    ("double", "model.pt", _saved(lambda: _net().double().state_dict())),
    ("bfloat16-safetensors", "model.safetensors", _safetensors(lambda: _net().bfloat16().state_dict())),
    (
        "safetensors-metadata",
        "model.safetensors",
        _safetensors(lambda: _net().state_dict(), {"author": "Zoë", "step": "9"}),
    ),
    (
        "truths-and-integers",
        "model.pt",
        _saved(lambda: {"mask": torch.tensor([True, False]), "count": torch.tensor(3), "w": torch.ones(2)}),
    ),
    ("empty-and-scalar", "model.pt", _saved(lambda: {"none": torch.zeros(0, 3), "scale": torch.tensor(1.5)})),
    ("tied", "model.pt", _saved(_tied)),
    ("parts-of-one-flat-tensor", "model.pt", _saved(_flat)),
    ("transposed", "model.pt", _saved(_transposed)),
    ("channels-last", "model.pt", _saved(_channels_last)),
    ("parameters", "model.pt", _saved(lambda: OrderedDict(_net().named_parameters()))),
    ("parameters-with-attributes", "model.pt", _saved(_attributed)),
    ("five-thousand-tensors", "model.pt", _saved(lambda: {f"layers.{n}.weight": torch.ones(2) for n in range(5000)})),
    ("unicode-names", "größe.pt", _saved(lambda: {"größe.gewicht": torch.ones(2), "层.权重": torch.ones(3)})),
    ("protocol-4", "model.pt", _saved(lambda: _net().state_dict(), pickle_protocol=4)),
    ("protocol-5", "model.pt", _saved(_beside_an_optimizer, pickle_protocol=5)),
    ("packed-again", "model.pt", _packed_again(zipfile.ZIP_STORED)),
    ("torch-1.4-python-2", "model.pt", having(_old_zip)),
    ("pt-named-safetensors", "model.safetensors", _saved(lambda: _net().state_dict())),
]

_REFUSED: list[tuple[str, str, Write, str, str]] = [
    (
        "packed-and-compressed",
        "model.pt",
        _packed_again(zipfile.ZIP_DEFLATED),
        "checkpoint_records_compressed",
        "torch.save(model.state_dict()",
    ),
    (
        "without-checksums",
        "model.pt",
        _without_checksums,
        "checkpoint_checksum",
        "torch.serialization.set_crc32_options(True)",
    ),
    ("whole-model", "model.pth", _saved(_net), "checkpoint_pickled_module", "torch.save(model.state_dict()"),
    (
        "legacy",
        "old.pth",
        _saved(lambda: _net().state_dict(), _use_new_zipfile_serialization=False),
        "checkpoint_legacy",
        'torch.load("old.pt", weights_only=True)',
    ),
    (
        "torchscript",
        "scripted.pt",
        _torchscript,
        "checkpoint_torchscript",
        'torch.jit.load("scripted.pt").state_dict()',
    ),
    (
        "lightning-with-a-loss",
        "last.ckpt",
        _saved(lambda: _lightning({"loss": nn.CrossEntropyLoss()})),
        "checkpoint_pickled_module",
        '["state_dict"]',
    ),
    ("parts-that-overlap", "model.pt", _saved(_overlapping), "checkpoint_overlap", ".clone()"),
    (
        "float8",
        "model.pt",
        _saved(lambda: {"w": torch.ones(3).to(torch.float8_e4m3fn)}),
        "checkpoint_dtype",
        ".float()",
    ),
    (
        "generator-and-critic",
        "gan.pt",
        _saved(lambda: {"G": _net().state_dict(), "D": _net().state_dict()}),
        "checkpoint_no_state_dict",
        "torch.save(model.state_dict()",
    ),
]


def entries() -> list[Honest]:
    """The corpus."""
    accepted = [Honest(name, filename, write, "checkpoint") for name, filename, write in _ACCEPTED]
    refused = [
        Honest(name, filename, write, "checkpoint", code, hint) for name, filename, write, code, hint in _REFUSED
    ]
    return accepted + refused
