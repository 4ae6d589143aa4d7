"""Checks a job's certificate offline: the server's signature, and the files that it binds. Needs no torch.

A certificate is a DSSE envelope (https://github.com/secure-systems-lab/dsse) around an in-toto statement. The signature
is of the exact bytes inside, and the file has one form only: whatever byte of it changes, ``verify`` says so.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

PAYLOAD_TYPE = "application/vnd.in-toto+json"
PREDICATE = "urn:temper:robustness-evaluation:1"
_LARGEST = 64 << 20


class CertificateError(ValueError):
    """What is wrong with a certificate or a key, in words."""


@dataclass(frozen=True)
class Finding:
    """One thing that was checked, and what came of it."""

    ok: bool
    sentence: str


def verify(
    certificate: Path,
    model: Path,
    keys: Iterable[str],
    *,
    data: Path | None = None,
    uploaded: Path | None = None,
    others: Iterable[Path] = (),
) -> list[Finding]:
    """Everything that was checked; the certificate holds if every finding is ``ok``.

    Args:
        certificate: ``certificate.json`` of a job.
        model: the checkpoint that it is to be about, in either format that the server gives out.
        keys: public keys that are trusted, PEM: from ``GET /signing-keys``, or better from where you got to know the
            server. A certificate cannot vouch for its own key.
        data, uploaded: the data and the checkpoint that were sent, if they are to be checked too.
        others: more files of the job, under the names that they have there: images.parquet, model-card.md.
    Raises: OSError for a file that cannot be read; CertificateError for a key that is none.
    """
    trusted = {key_id(pem): pem for pem in keys}
    try:
        statement, signer = read(certificate.read_bytes(), trusted)
    except CertificateError as error:
        return [Finding(False, f"{certificate.name}: {error}")]
    predicate = statement["predicate"]
    found = [Finding(True, f"{certificate.name}: signed by {signer}, and unchanged since")]
    found.append(_check_model(model, statement))
    for path, role in ((data, "data"), (uploaded, "checkpoint")):
        if path is not None:
            file = predicate["inputs"][role]
            known = {file["sha256"]: f"the {role} that was sent, {file['filename']}"} if file else {}
            found.append(_check(path, known, f"the {role} that was sent"))
    for path in others:
        sha256 = predicate["outputs"].get(path.name)
        found.append(_check(path, {sha256: f"the job's {path.name}"} if sha256 else {}, f"the job's {path.name}"))
    return found


def read(content: bytes, trusted: Mapping[str, str]) -> tuple[dict[str, Any], str]:
    """The statement inside, once its signature was checked, and the id of the key that made it.

    Args:
        content: the file.
        trusted: public keys, PEM, by their ids.
    Raises: CertificateError.
    """
    envelope = _parse(content)
    payload, signature = _decode(envelope["payload"]), _decode(envelope["signatures"][0]["sig"])
    signer = envelope["signatures"][0]["keyid"]
    if signer not in trusted:
        raise CertificateError(
            f"it names the key {signer}, which is not one you trust ({', '.join(trusted) or 'none was given'}); "
            "get the server's from GET /signing-keys, or from its operator"
        )
    kind = envelope["payloadType"].encode()
    signed = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
    try:
        _load(trusted[signer]).verify(signature, signed)
    except InvalidSignature as error:
        raise CertificateError("the signature does not fit: content or signature was changed") from error
    if envelope["payloadType"] != PAYLOAD_TYPE:
        raise CertificateError(f"it is signed, but holds {envelope['payloadType']!r}, no statement")
    statement = json.loads(payload)
    if not isinstance(statement, dict) or statement.get("predicateType") != PREDICATE:
        raise CertificateError("it is signed, but of a kind that this version does not know; update the client")
    return statement, signer


def key_id(pem: str) -> str:
    """SHA-256, in hex, of a public key as DER: ``openssl pkey -pubin -in KEY -outform DER | sha256sum``.

    Raises: CertificateError.
    """
    der = _load(pem).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def summary(statement: Mapping[str, Any]) -> list[str]:
    """What a certificate says, in words, one line each."""
    said = statement["predicate"]
    threat, verdict = said["threat"], said["verdict"]
    lines = [
        f"job {said['job']}, certified {said['issued_at']}",
        f"{said['images']['count']} test images, {threat['norm']} eps {threat['eps']:.4g}, suite {said['suite']}",
    ]
    for side in ("before", "after"):
        if said[side] is not None:
            clean, robust = said[side]["clean"], said[side]["robust"]
            lines.append(f"{side}: clean {_share(clean)}, robust {_share(robust)}")
            lines += [f"  under {attack['name']}: {_share(attack)}" for attack in said[side]["attacks"]]
    return [*lines, f"verdict {verdict['kind']}: {'; '.join(verdict['reasons'])}"]


def _share(count: Mapping[str, int]) -> str:
    share = count["correct"] / count["total"] if count["total"] else 0.0
    return f"{share:.1%} ({count['correct']} of {count['total']})"


def _parse(content: bytes) -> Any:
    """The envelope. Equal content has equal bytes: another blank, order or spelling is a change too."""
    if len(content) > _LARGEST:
        raise CertificateError("it is larger than any certificate")
    try:
        envelope = json.loads(content)
        again = (json.dumps(envelope, indent=2, sort_keys=True) + "\n").encode()
    except (ValueError, RecursionError) as error:
        raise CertificateError("it is no JSON: not a certificate, or it was changed") from error
    if not _is_envelope(envelope):
        raise CertificateError("it is no envelope with a payload and one signature: not a certificate, or changed")
    if again != content:
        raise CertificateError("it is not written as the server writes it: it was changed, or saved by an editor")
    return envelope


def _is_envelope(envelope: Any) -> bool:
    if not isinstance(envelope, dict) or set(envelope) != {"payload", "payloadType", "signatures"}:
        return False
    signatures = envelope["signatures"]
    if not isinstance(signatures, list) or len(signatures) != 1 or not isinstance(signatures[0], dict):
        return False
    texts = [envelope["payload"], envelope["payloadType"], *signatures[0].values()]
    return set(signatures[0]) == {"keyid", "sig"} and all(isinstance(text, str) for text in texts)


def _decode(text: str) -> bytes:
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise CertificateError("payload or signature is no base64: it was changed") from error
    if base64.b64encode(content).decode() != text:  # bits of the last letter that mean nothing
        raise CertificateError("payload or signature is not written as the server writes it: it was changed")
    return content


def _load(pem: str) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(pem.encode())
    except ValueError as error:
        raise CertificateError("this is no public key in PEM: -----BEGIN PUBLIC KEY----- ...") from error
    if not isinstance(key, Ed25519PublicKey):
        raise CertificateError("this public key is not an Ed25519 one, as certificates are signed with")
    return key


def _check_model(model: Path, statement: Mapping[str, Any]) -> Finding:
    predicate = statement["predicate"]
    known = {each["digest"]["sha256"]: f"the certified {each['name']}" for each in statement["subject"]}
    uploaded = predicate["inputs"]["checkpoint"]
    sha256 = file_sha256(model)
    if uploaded and sha256 == uploaded["sha256"] and sha256 not in known:
        return Finding(False, f"{model.name} is the checkpoint that was sent, before it was hardened")
    evaluated = predicate["evaluated"]
    if evaluated and sha256 == predicate["outputs"].get(evaluated):
        known[sha256] += "; this very file was evaluated"
    elif evaluated and sha256 in known:
        known[sha256] += f"; the server wrote it from the same tensors as {evaluated}, which was evaluated"
    return _check(model, known, "the certified " + " or ".join(each["name"] for each in statement["subject"]))


def _check(path: Path, known: Mapping[str, str], wanted: str) -> Finding:
    sha256 = file_sha256(path)
    if sha256 in known:
        return Finding(True, f"{path.name} is {known[sha256]}")
    bound = ", ".join(known) or "nothing"
    return Finding(False, f"{path.name} is not {wanted}: its SHA-256 is {sha256}, the certificate binds {bound}")


def file_sha256(path: Path) -> str:
    """In hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
