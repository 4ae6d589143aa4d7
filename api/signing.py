"""/signing-keys: the public keys that certificates are checked with."""

from __future__ import annotations

from fastapi import APIRouter

from api.services import Provided
from api.shapes import SigningKeyList
from api.views import iso

router = APIRouter(tags=["certificates"])


@router.get("/signing-keys", summary="Public keys of certificates")
def signing_keys(services: Provided) -> SigningKeyList:
    """Every key that ever signed a certificate here, also those that sign no more; nobody needs a key of the API.

    `id` is the SHA-256 of the key as DER, and the `keyid` in the certificate. Believe nothing that a key signed which
    has a `revoked_at`.
    """
    return {
        "items": [
            {
                "id": row.id,
                "algorithm": "ed25519",
                "public_key": row.public_key,
                "created_at": iso(row.created_at),
                "revoked_at": iso(row.revoked_at),
            }
            for row in services.signing_keys.every()
        ]
    }
