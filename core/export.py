"""Loads the prepared checkpoint into an architecture, and writes the hardened one as it came in."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from core.matching import KeyMatch
from core.prepared import CheckpointFormat, CheckpointManifest, Workdir

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def load_weights(path: Path, match: KeyMatch, net: nn.Module) -> None:
    """Copy the prepared checkpoint into the network."""
    _load(load_file(path), match, net)


def to_uploaded_form(
    weights: Mapping[str, Tensor], match: KeyMatch, manifest: CheckpointManifest
) -> OrderedDict[str, Tensor]:
    """The weights under the uploaded keys, in their order and dtypes."""
    form: OrderedDict[str, Tensor] = OrderedDict()
    for entry in manifest.tensors:
        value = weights[match.keys[entry.key]]
        form[entry.key] = value.detach().to("cpu", DTYPES[entry.dtype]).contiguous().clone()
    return form


def write_checkpoints(tensors: OrderedDict[str, Tensor], manifest: CheckpointManifest, workdir: Workdir) -> None:
    """Write both formats; the .pt has the uploaded wrapper and its plain values.

    Equal tensors give equal bytes: no name, id or time goes into the files.
    """
    workdir.output.mkdir(exist_ok=True)
    save_file(dict(tensors), workdir.checkpoint("safetensors"), metadata=manifest.metadata or {"format": "pt"})
    content: Any = tensors
    for level, key in enumerate(reversed(manifest.wrapper)):
        beside = manifest.extras if level == len(manifest.wrapper) - 1 else {}
        content = {**beside, key: content}
    # through an open file: torch would otherwise name the archive's root after the path
    with workdir.checkpoint("pt").open("wb") as file:
        torch.save(content, file)


def read_checkpoint(workdir: Workdir, kind: CheckpointFormat, manifest: CheckpointManifest) -> dict[str, Tensor]:
    """Load an exported file again, as its user would."""
    if kind == "safetensors":
        return load_file(workdir.checkpoint(kind))
    content = torch.load(workdir.checkpoint(kind), map_location="cpu", weights_only=True)
    for key in manifest.wrapper:
        content = content[key]
    return dict(content)


def load_exported(workdir: Workdir, match: KeyMatch, manifest: CheckpointManifest, net: nn.Module) -> None:
    """Put the exported file of the uploaded format into a fresh network: what is evaluated is what ships."""
    _load(read_checkpoint(workdir, manifest.format, manifest), match, net)


def _load(tensors: Mapping[str, Tensor], match: KeyMatch, net: nn.Module) -> None:
    """In float32, whatever the file's dtype: attacks in float16 would meet gradients that underflow to 0."""
    state = {match.keys[key]: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
    # keys and shapes were matched one by one; only BatchNorm's counters may be absent
    net.load_state_dict(state, strict=False)


def file_sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def loading_snippet(manifest: CheckpointManifest) -> str:
    """Lines of Python that load the result into the user's own model."""
    if manifest.format == "safetensors":
        return (
            "from safetensors.torch import load_file\n"
            'model.load_state_dict(load_file("checkpoint.safetensors"), strict=True)'
        )
    path = "".join(f"[{key!r}]" for key in manifest.wrapper)
    return (
        "import torch\n"
        f'state = torch.load("checkpoint.pt", weights_only=True){path}\n'
        "model.load_state_dict(state, strict=True)"
    )
