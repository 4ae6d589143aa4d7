"""The hostile checkpoints."""

from __future__ import annotations

from tests.hostile import bombs, foreign_files, lying_safetensors, lying_tensors, lying_zips
from tests.hostile.code_pickles import code_pickles
from tests.hostile.entry import Hostile, having
from tests.hostile.zips import torch_zip


def entries() -> list[Hostile]:
    """All of them; the names are unique."""
    code = [
        Hostile(
            f"code-{name}",
            "model.pt",
            having(torch_zip(pickle, {"0": bytes(16)})),
            "checkpoint_not_plain",
            "checkpoint",
        )
        for name, pickle in code_pickles().items()
    ]
    others = (foreign_files, lying_zips, lying_tensors, lying_safetensors, bombs)
    return [*code, *(entry for module in others for entry in module.entries())]
