"""The server command, and what it refuses."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from temperd.__main__ import app

RUNNER = CliRunner()


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::"])
def test_without_keys_it_listens_on_loopback_only(host, tmp_path):
    result = RUNNER.invoke(app, ["serve", "--host", host, "--data-dir", str(tmp_path / "data")])
    assert result.exit_code == 2
    assert "loopback" in result.output
    assert "temperd keys create" in " ".join(result.output.split())
    assert not (tmp_path / "data").exists()


def test_a_host_that_is_none(tmp_path):
    result = RUNNER.invoke(app, ["serve", "--host", "my host", "--data-dir", str(tmp_path / "data")])
    assert result.exit_code == 2
    assert "--host" in result.output


def test_migrate_makes_the_schema(tmp_path):
    for _ in range(2):
        assert RUNNER.invoke(app, ["migrate", "--data-dir", str(tmp_path / "new")]).exit_code == 0
    assert (tmp_path / "new" / "temper.db").exists()
