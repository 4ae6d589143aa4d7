"""The service's signature: an Ed25519 key, DSSE envelopes signed with it, and which keys ever signed.

Envelopes: https://github.com/secure-systems-lab/dsse. What is signed are the exact bytes of the payload, which travel
in the envelope: nobody has to write JSON again in a canonical way to check it.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import json
import os
import secrets
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from jobs.database import now
from jobs.errors import SigningKeyError, SigningKeyUnknownError
from jobs.session import Sessions
from jobs.settings import Settings
from jobs.tables import SigningKeyRow

_PREFIX, _SEED_BYTES = "tmpsk_", 32
_WAY = "temperd signing-keys create makes one"


class Signer:
    """A private key. ``key_id``: SHA-256, in hex, of the public key as DER (SubjectPublicKeyInfo)."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        public = private.public_key()
        der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.key_id = hashlib.sha256(der).hexdigest()
        self.public_pem = _pem(public)

    @classmethod
    def parse(cls, text: str) -> Signer:
        """From what ``new_signing_key`` made. Raises: SigningKeyError, which does not repeat it."""
        try:
            seed = base64.b64decode(text.strip().removeprefix(_PREFIX), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            seed = b""
        if not text.strip().startswith(_PREFIX) or len(seed) != _SEED_BYTES:
            raise SigningKeyError(f'a signing key is "{_PREFIX}" and {_SEED_BYTES} bytes in base64', _WAY)
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    def envelope(self, payload: bytes, payload_type: str) -> bytes:
        """The payload and its signature as a DSSE envelope: JSON in the one form that ``verify`` takes."""
        kind = payload_type.encode()
        signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
        content = {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": payload_type,
            "signatures": [{"keyid": self.key_id, "sig": base64.b64encode(self._private.sign(signed)).decode()}],
        }
        return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()


def new_signing_key() -> str:
    """A secret for ``TEMPER_SIGNING_KEY``, or for the file in the data folder."""
    return _PREFIX + base64.urlsafe_b64encode(secrets.token_bytes(_SEED_BYTES)).decode()


def signer_of(settings: Settings) -> Signer:
    """With the key of the settings; else with that in the data folder, which is made at the first start.

    Raises: SigningKeyError.
    """
    given = settings.signing_key.get_secret_value()
    if given:
        return Signer.parse(given)
    path = settings.signing_key_file
    if not path.exists():
        _make(path)
    if path.stat().st_mode & 0o077:
        raise SigningKeyError(f"{path} can be read by others", f"chmod 600 {path}")
    return Signer.parse(path.read_text())


def _make(path: Path) -> None:
    """Readable by its owner alone from its first moment on; of several who make it at once, one does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(new_signing_key() + "\n")
        file.flush()
        os.fsync(file.fileno())
    with contextlib.suppress(FileExistsError):
        os.link(temporary, path)
    temporary.unlink()


def _pem(public: Ed25519PublicKey) -> str:
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


class SigningKeyRepository(Sessions):
    """The public keys with which this service ever signed, so that old certificates can be checked."""

    def publish(self, signer: Signer) -> None:
        """Before the first certificate with it is there to be read."""
        row = SigningKeyRow(id=signer.key_id, public_key=signer.public_pem, created_at=now(), revoked_at=None)
        # another worker may do the same in this moment
        with contextlib.suppress(IntegrityError), self._write() as session:
            if session.get(SigningKeyRow, signer.key_id) is None:
                session.add(row)

    def every(self) -> list[SigningKeyRow]:
        """The oldest first."""
        with self._read() as session:
            return [*session.scalars(select(SigningKeyRow).order_by(SigningKeyRow.created_at, SigningKeyRow.id))]

    def revoke(self, key_id: str) -> None:
        """Believe nothing any more that it signed: who stole it can sign with any date.

        Raises: SigningKeyUnknownError.
        """
        with self._write() as session:
            row = session.get(SigningKeyRow, key_id)
            if row is None:
                raise SigningKeyUnknownError(key_id)
            row.revoked_at = now()
