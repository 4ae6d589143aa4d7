"""temperd signing-keys."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from jobs.database import open_database
from jobs.settings import Settings
from jobs.signing import Signer, SigningKeyRepository
from temperd.__main__ import app

RUNNER = CliRunner()


def test_a_new_key_is_told_once_and_on_stdout_alone():
    done = RUNNER.invoke(app, ["signing-keys", "create"])
    signer = Signer.parse(done.stdout)
    assert done.stdout.strip() not in done.stderr
    assert signer.key_id in done.stderr
    assert signer.public_pem.strip() in done.stderr


def test_keys_that_signed_are_listed_and_revoked(tmp_path):
    at = ["--data-dir", str(tmp_path)]
    assert RUNNER.invoke(app, ["signing-keys", "list", *at]).stdout == ""
    signer = Signer.parse(RUNNER.invoke(app, ["signing-keys", "create"]).stdout)
    engine = open_database(Settings(data_dir=tmp_path).database)
    SigningKeyRepository(engine).publish(signer)
    engine.dispose()
    listed = RUNNER.invoke(app, ["signing-keys", "list", *at]).stdout
    assert listed == f"{signer.key_id}\n{signer.public_pem}"
    assert RUNNER.invoke(app, ["signing-keys", "revoke", signer.key_id, *at]).exit_code == 0
    assert "revoked" in RUNNER.invoke(app, ["signing-keys", "list", *at]).stdout
    unknown = RUNNER.invoke(app, ["signing-keys", "revoke", "x", *at])
    assert (unknown.exit_code, "temperd signing-keys list" in " ".join(unknown.output.split())) == (2, True)


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_a_service_does_not_start_with_a_key_that_is_none(command, tmp_path, monkeypatch):
    for name, value in {
        "SIGNING_KEY": "tmpsk_wrong", "SANDBOX": "off-i-understand-the-risk", "DATA_DIR": str(tmp_path),
        "BROKER_URL": "redis://localhost:1/0", "STORE_URL": tmp_path.as_uri(), "DATABASE_URL": f"sqlite:///{tmp_path}/t.db",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"TEMPER_{name}", value)
    done = RUNNER.invoke(app, [command])
    assert done.exit_code != 0
    assert "a signing key is" in str(done.exception)
    assert "temperd signing-keys create" in str(done.exception)
