"""python -m tests.hostile.fuzz PARSER [--minutes N] [--findings FOLDER]: damages the corpora, and tries a parser on it.

PARSER is one of PARSERS. A finding is an exception that is not the layer's own, five seconds of processor time, more
memory than is allowed, a process that dies, or an accepted file that another library cannot read; its bytes are kept.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from safetensors import safe_open

from ingest.checkpoint import prepare_checkpoint
from ingest.data import prepare_data
from ingest.errors import IngestError
from ingest.images import decode, opened, plain_png
from tests.hostile.entry import Hostile
from tests.hostile.mutate import (
    Mutation,
    mutate_bytes,
    mutate_header,
    mutate_image,
    mutate_members,
    mutate_pickle,
    mutate_tar,
)

_LARGEST = 200_000  # bytes of a file that is damaged
_SECONDS = 5
_MEMORY = 2**30
_FILES = 500  # of one process: ingest reads one job's, and what libraries keep would count against the next file


@dataclass(frozen=True)
class Parser:
    """What is fuzzed.

    Args:
        kind: of the entries that are damaged.
        beginning: bytes with which their files begin.
        mutations: ways to damage them.
        parse: parses the file at the first path into the folder at the second.
    """

    kind: str
    beginning: tuple[bytes, ...]
    mutations: tuple[Mutation, ...]
    parse: Callable[[Path, Path], None]


def _checkpoint(path: Path, target: Path) -> None:
    prepare_checkpoint({"filename": "model.pt", "sha256": "", "size": 0}, path, target)
    manifest = json.loads((target / "checkpoint.json").read_text())
    with safe_open(target / "checkpoint.safetensors", "np") as opened:  # the format's own library takes it
        shapes = {key: list(opened.get_slice(key).get_shape()) for key in opened.keys()}  # noqa: SIM118 - no mapping
    assert shapes == {tensor["key"]: tensor["shape"] for tensor in manifest["tensors"]}


def _data(path: Path, target: Path) -> None:
    for left in target.iterdir():
        left.unlink()
    options = {"format": None, "resize": None, "crop": None, "interpolation": "bilinear"}
    prepare_data({"filename": "data", "sha256": "", "size": 0}, path, target, options)
    manifest = json.loads((target / "data.json").read_text())
    shape = [manifest[name] for name in ("channels", "height", "width")]
    for split, count in manifest["counts"].items():
        assert list(np.load(target / f"x_{split}.npy", mmap_mode="r").shape) == [count, *shape]
        assert len(np.load(target / f"y_{split}.npy")) == count


def _image(path: Path, _target: Path) -> None:
    content = path.read_bytes()
    options = {"resize": None, "crop": None, "interpolation": "bilinear"}
    values, shape = decode(content, "image", options, grey=False)
    assert len(values) == math.prod(shape)
    plain = plain_png(content)
    if plain is not None:  # as Pillow's own reader has it
        assert np.array_equal(np.asarray(plain), np.asarray(opened(content, "image")))


PARSERS = {
    "zip": Parser("data", (b"PK\x03\x04", b"PK\x05\x06"), (mutate_bytes, mutate_members), _data),
    "tar": Parser("data", (), (mutate_bytes, mutate_tar), _data),
    "parquet": Parser("data", (b"PAR1",), (mutate_bytes,), _data),
    "image": Parser("data", (b"PK\x03\x04",), (mutate_image,), _image),
    "safetensors": Parser("checkpoint", (), (mutate_bytes, mutate_header, mutate_header), _checkpoint),
    "torch-zip": Parser("checkpoint", (b"PK\x03\x04",), (mutate_bytes,), _checkpoint),
    "pickle": Parser("checkpoint", (b"PK\x03\x04",), (mutate_pickle,), _checkpoint),
    "foreign": Parser("checkpoint", (), (mutate_bytes,), _checkpoint),
}


def _seeds(parser: str, folder: Path) -> None:
    """Write the corpora's small files of the parser's kind."""
    from tests.hostile.corpus import honest_files, hostile

    folder.mkdir()
    wanted = PARSERS[parser]
    for number, entry in enumerate([*hostile(), *honest_files()]):
        path = folder / f"{'hostile' if isinstance(entry, Hostile) else 'honest'}-{number:04}"
        if entry.kind != wanted.kind or (parser == "safetensors" and not entry.filename.endswith(".safetensors")):
            continue
        entry.write(path)
        head = path.read_bytes()[:16]
        if path.stat().st_size > _LARGEST or (wanted.beginning and not head.startswith(wanted.beginning)):
            path.unlink()


class _Hang(BaseException):
    pass


def _hang(_signal: int, _frame: FrameType | None) -> None:
    raise _Hang


def _child(parser: Parser, folder: Path, seed: int, until: float) -> None:
    """Damage and parse until the time is over; stops at a finding, whose input lies in ``current``."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + _MEMORY, size + _MEMORY))
    signal.signal(signal.SIGVTALRM, _hang)
    honest, hostile = (
        [path.read_bytes() for path in sorted((folder / "seeds").glob(f"{kind}-*"))] for kind in ("honest", "hostile")
    )
    current, target, rng = folder / "current", folder / "target", random.Random(seed)
    target.mkdir(exist_ok=True)
    codes: Counter[str] = Counter()
    finding = None
    while time.time() < until and finding is None and codes.total() < _FILES:
        # more of the honest ones: they lead past the first check
        seed_file = rng.choice(honest if rng.random() < 0.7 else hostile)
        current.write_bytes(rng.choice(parser.mutations)(seed_file, rng.choice(honest + hostile), rng))
        signal.setitimer(signal.ITIMER_VIRTUAL, _SECONDS)
        try:
            parser.parse(current, target)
            codes["accepted"] += 1
        except IngestError as error:
            codes[error.code] += 1
        except BaseException:  # noqa: BLE001 - all else is what is looked for
            finding = traceback.format_exc()
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    sys.stdout.write(json.dumps({"codes": codes, "finding": finding}))


def _rounds(name: str, minutes: float, findings: Path) -> dict[str, Any]:
    """Children, one after another, until the time is over."""
    codes: Counter[str] = Counter()
    found = 0
    until = time.time() + 60 * minutes
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        _seeds(name, folder / "seeds")
        for seed in range(10**6):
            if time.time() >= until:
                break
            arguments = [
                sys.executable,
                "-m",
                "tests.hostile.fuzz",
                name,
                "--child",
                str(folder),
                str(seed),
                str(until),
            ]
            child = subprocess.run(arguments, capture_output=True, text=True, check=False)
            answer = json.loads(child.stdout) if child.stdout else {"codes": {}, "finding": f"died: {child.returncode}"}
            codes.update(answer["codes"])
            if answer["finding"]:
                found += 1
                findings.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(folder / "current", findings / f"{name}-{seed}")
                (findings / f"{name}-{seed}.txt").write_text(answer["finding"])
    return {"parser": name, "files": sum(codes.values()), "findings": found, "codes": dict(codes.most_common())}


def main(arguments: list[str]) -> int:
    """Print one line of JSON with the counts; status 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.fuzz")
    parser.add_argument("parser", choices=PARSERS)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"))
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        folder, seed, until = options.child
        _child(PARSERS[options.parser], Path(folder), int(seed), float(until))
        return 0
    counts = _rounds(options.parser, options.minutes, options.findings)
    sys.stdout.write(json.dumps(counts) + "\n")
    return 1 if counts["findings"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
