"""The service's signing key: made once, readable by nobody else, and its public half kept for good."""

from __future__ import annotations

import base64
import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from jobs.errors import SigningKeyError, SigningKeyUnknownError
from jobs.settings import Settings
from jobs.signing import Signer, SigningKeyRepository, new_signing_key, signer_of


def test_the_first_start_makes_a_key_and_the_next_one_has_it(tmp_path):
    settings = Settings(data_dir=tmp_path / "data")
    first = signer_of(settings)
    assert settings.signing_key_file.stat().st_mode & 0o777 == 0o600
    assert signer_of(settings).key_id == first.key_id
    assert [path.name for path in settings.root.iterdir()] == ["signing-key"]


def test_workers_that_start_together_on_one_folder_share_a_key(tmp_path):
    settings = Settings(data_dir=tmp_path / "data")
    with ThreadPoolExecutor(8) as pool:
        ids = {each.key_id for each in pool.map(lambda _: signer_of(settings), range(8))}
    assert len(ids) == 1


def test_the_settings_go_first(tmp_path):
    secret = new_signing_key()
    settings = Settings(data_dir=tmp_path, signing_key=secret)
    assert signer_of(settings).key_id == Signer.parse(secret).key_id
    assert not settings.signing_key_file.exists()
    assert secret not in repr(settings)


def test_a_key_that_others_can_read_is_refused(tmp_path):
    settings = Settings(data_dir=tmp_path)
    signer_of(settings)
    settings.signing_key_file.chmod(0o640)
    with pytest.raises(SigningKeyError, match="read by others") as raised:
        signer_of(settings)
    assert "chmod 600" in raised.value.hint


@pytest.mark.parametrize(
    "text",
    ["", "tmpsk_", "tmpsk_AAAA", new_signing_key()[6:], new_signing_key()[:-3], "tmpsk_é"],
    ids=["empty", "no bytes", "few bytes", "no prefix", "cut", "no ASCII"],
)
def test_a_key_that_is_none_is_not_repeated(text):
    with pytest.raises(SigningKeyError) as raised:
        Signer.parse(text)
    assert not text[6:] or text[6:] not in f"{raised.value}{raised.value.hint}"


def test_the_id_is_the_hash_of_the_key_as_der():
    signer = Signer.parse(new_signing_key())
    first, *body, last = signer.public_pem.splitlines()
    assert (first, last) == ("-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----")
    assert hashlib.sha256(base64.b64decode("".join(body))).hexdigest() == signer.key_id


def test_public_keys_are_kept_and_can_be_revoked(engine):
    keys, first, second = SigningKeyRepository(engine), *(Signer.parse(new_signing_key()) for _ in range(2))
    for signer in (first, second, first):
        keys.publish(signer)
    assert {row.id: row.public_key for row in keys.every()} == {s.key_id: s.public_pem for s in (first, second)}
    keys.revoke(first.key_id)
    keys.publish(first)
    assert {row.id for row in keys.every() if row.revoked_at is not None} == {first.key_id}
    with pytest.raises(SigningKeyUnknownError):
        keys.revoke("0" * 64)


def test_workers_publish_one_key_at_the_same_time(engine):
    signer = Signer.parse(new_signing_key())
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: SigningKeyRepository(engine).publish(signer), range(8)))
    assert len(SigningKeyRepository(engine).every()) == 1
