"""What is told of errors that others raise."""

from __future__ import annotations

import subprocess
import sys

import pytest

WRITERS = {
    "ours": "open(path, 'wb').write(b'x' * 10**6)",
    "torch": "torch.save(content, open(path, 'wb'))",
    "safetensors": "safetensors.torch.save_file(content, path)",
}
CODE = """
import resource, sys
import safetensors.torch, torch
from core.errors import is_disk_full
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
content, path = {{"w": torch.zeros(10**6)}}, sys.argv[1]
try:
    {write}
except Exception as error:
    sys.exit(0 if is_disk_full(error) else repr(error))
sys.exit("nothing was raised")
"""


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
def test_a_full_disk_is_known_whoever_writes(write, tmp_path):
    command = [sys.executable, "-c", CODE.format(write=write), str(tmp_path / "file")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
