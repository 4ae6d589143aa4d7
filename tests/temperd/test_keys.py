"""temperd keys and temperd tenants, and what a key changes for temperd serve."""

from __future__ import annotations

import re
import subprocess
import sys

import httpx
import pytest
from typer.testing import CliRunner

from jobs.keys import KEY
from jobs.settings import Settings
from temperd.__main__ import app
from temperd.keys import has_keys
from tests.service import TEMPERD

RUNNER = CliRunner()


@pytest.fixture
def temperd(tmp_path):
    def temperd(*arguments):
        return RUNNER.invoke(app, [*arguments, "--data-dir", str(tmp_path / "data")])

    return temperd


def create(temperd, *more):
    done = temperd("keys", "create", "--tenant", "vision", "--name", "ci", *more)
    assert done.exit_code == 0, done.output
    return done


def test_a_key_is_told_once_and_on_stdout_alone(temperd):
    done = create(temperd)
    token = done.stdout.strip()
    assert KEY.fullmatch(token)
    assert token not in done.stderr
    (row,) = temperd("keys", "list").stdout.splitlines()
    assert token not in row
    assert row.startswith("key_")
    assert {"vision", "ci", "jobs:read,jobs:write", "expires never", "used never"} <= {*row.split("  ")}


def test_revoke_shows_in_the_list(temperd):
    create(temperd, "--expires", "30d", "--scopes", "jobs:read")
    key_id = temperd("keys", "list").stdout.split()[0]
    assert "expires 20" in temperd("keys", "list").stdout
    assert temperd("keys", "revoke", key_id).exit_code == 0
    assert re.search(r"revoked \d{4}-", temperd("keys", "list").stdout)
    unknown = temperd("keys", "revoke", "key_x")
    assert (unknown.exit_code, "temperd keys list" in " ".join(unknown.output.split())) == (2, True)


@pytest.mark.parametrize(
    "wrong",
    [["--scopes", "jobs"], ["--scopes", ""], ["--expires", "soon"], ["--expires", "0d"], ["--name", "a\nb"]],
)
def test_what_makes_no_key(temperd, wrong):
    done = temperd("keys", "create", "--tenant", "vision", "--name", "ci", *wrong)
    assert done.exit_code == 2
    assert temperd("keys", "list").stdout == ""


def test_limits_of_a_tenant(temperd):
    create(temperd)
    shown = temperd("tenants", "set", "vision", "--max-queued", "5", "--max-bytes", "0").stdout
    assert "vision  max_queued=5 max_bytes=0" in shown
    assert "max_queued" not in temperd("tenants", "set", "vision", "--max-queued", "-1").stdout
    assert temperd("tenants", "set", "nobody", "--requests", "1").exit_code == 2


def test_a_folder_that_ever_had_a_key_is_never_open_again_and_may_listen_elsewhere(temperd, tmp_path):
    settings = Settings(data_dir=tmp_path / "data", database_url="")
    assert not has_keys(settings)
    assert not (tmp_path / "data").exists()
    temperd("migrate")
    assert not has_keys(settings)
    create(temperd)
    temperd("keys", "revoke", temperd("keys", "list").stdout.split()[0])
    assert has_keys(settings)
    token = create(temperd).stdout.strip()
    command = [TEMPERD, "serve", "--host", "0.0.0.0", "--port", "0", "--data-dir", tmp_path / "data"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            port = process.stdout.readline().rpartition(":")[2].strip()
            address = f"http://127.0.0.1:{port}/jobs"
            assert httpx.get(address).status_code == 401
            assert httpx.get(address, headers={"Authorization": f"Bearer {token}", "Host": "a.b"}).status_code == 200
        finally:
            process.terminate()
            process.wait(60)


def test_keys_need_no_torch():
    code = "import sys, temperd.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
