"""The fuzzer finds nothing in the parsers, and would find something."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ingest.errors import IngestError
from tests.hostile import fuzz


@pytest.mark.long
@pytest.mark.parametrize("parser", fuzz.PARSERS)
def test_a_minute_of_damage(parser, tmp_path):
    assert fuzz.main([parser, "--minutes", "1", "--findings", str(tmp_path)]) == 0


@pytest.mark.parametrize("fault", [ZeroDivisionError, MemoryError, KeyboardInterrupt])
def test_what_is_not_the_layers_own_is_a_finding(fault, tmp_path, capsys, monkeypatch):
    def parse(path: Path, target: Path) -> None:
        if path.read_bytes() != b"\x01":
            raise IngestError("as it should be")
        raise fault

    monkeypatch.setattr("resource.setrlimit", lambda *_: None)  # it is this process
    (tmp_path / "seeds").mkdir()
    for kind in ("honest", "hostile"):
        (tmp_path / "seeds" / f"{kind}-0").write_bytes(b"\0")
    parser = fuzz.Parser("checkpoint", (), (fuzz.mutate_bytes,), parse)
    fuzz._child(parser, tmp_path, 0, time.time() + 600)
    assert fault.__name__ in capsys.readouterr().out
    assert (tmp_path / "current").read_bytes() == b"\x01"
