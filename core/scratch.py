"""Training from scratch: random weights, in the place of an uploaded checkpoint."""

from __future__ import annotations

import hashlib

import torch
from safetensors.torch import save_file

from core.export import DTYPES
from core.models.base import ImageShape
from core.prepared import CheckpointManifest, SourceFile, TensorEntry, Workdir
from core.rng import derive_seed
from core.spec import JobSpec

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def write_random_weights(spec: JobSpec, workdir: Workdir) -> None:
    """Leave the seed's random weights in the input folder, as ingest leaves those of an upload."""
    data = workdir.data_manifest()
    if spec.model.num_classes is None:
        raise ValueError("the spec lets nobody train from scratch without a class count")
    torch.manual_seed(derive_seed(spec.seed, "weights"))
    image = ImageShape(data.channels, data.height, data.width)
    net = spec.model.architecture.build(spec.model.num_classes, image)
    tensors = {key: value.contiguous() for key, value in net.state_dict().items()}
    path = workdir.input / "checkpoint.safetensors"
    save_file(tensors, path)
    content = path.read_bytes()
    source = SourceFile(filename="random weights", sha256=hashlib.sha256(content).hexdigest(), size=len(content))
    entries = tuple(
        TensorEntry(key=key, dtype=_NAMES[value.dtype], shape=tuple(value.shape)) for key, value in tensors.items()
    )
    manifest = CheckpointManifest(source=source, format="pt", tensors=entries)
    (workdir.input / "checkpoint.json").write_text(manifest.model_dump_json())
