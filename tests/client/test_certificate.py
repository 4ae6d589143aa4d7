"""A certificate vouches for exact bytes: whatever is changed, verify fails and says what."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.signing import Signer, new_signing_key
from jobs.storage import Stored
from temper import certificate as client
from worker.certificate import PAYLOAD_TYPE, OtherFileError, make_statement

COUNT = {"correct": 9, "total": 10}
ATTACK = {
    "name": "pgd", "params": {"steps": 20, "step_size": 0.01}, "threat": {"norm": "linf", "eps": 0.1},
    "counted": True, "cumulative": False, "attacked": 10, "fooled": 1,
}  # fmt: skip
SIDE = {"clean": COUNT, "attacks": [{**ATTACK, **COUNT}], "robust": COUNT, "randomised": False}
SPEC = {"seed": 7, "name": "é\n"}
FAST = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def report(files):
    shipped = {"format": "pt", "files": files} if files is not None else None
    return {
        "suite": "quick", "threat": ATTACK["threat"], "images": {"count": 10, "ids_sha256": "0" * 64},
        "before": SIDE, "after": SIDE if files is not None else None, "output": shipped,
        "verdict": {"kind": "unverified", "reasons": ["a quick look"]}, "environment": {"torch": "2"},
    }  # fmt: skip


class Shipped:
    """Files of a job, and their certificate."""

    def __init__(self, folder: Path, *, trains: bool = True, sent: str = "mine.pt") -> None:
        self.folder, self.signer = folder, Signer.parse(new_signing_key())
        self.model = self.write("model.pt", b"weights of the model" * 20)
        self.converted = self.write("model.safetensors", b"the same weights" * 20)
        self.data, self.uploaded = self.write("mine.npz", b"images" * 50), self.write(sent, b"old weights" * 9)
        self.table = self.write("images.parquet", b"rows")
        named = {"checkpoint.pt": self.model, "checkpoint.safetensors": self.converted} if trains else {}
        outputs = {name: Stored(name, client.file_sha256(path), 1) for name, path in named.items()}
        files = {name: stored.sha256 for name, stored in outputs.items()} if trains else None
        outputs["images.parquet"] = Stored("", client.file_sha256(self.table), 1)
        inputs = {
            role: {"filename": path.name, "sha256": client.file_sha256(path), "size": 1}
            for role, path in (("checkpoint", self.uploaded), ("data", self.data))
        }
        self.payload = make_statement("job_1", SPEC, inputs, outputs, report(files))
        self.certificate = self.write("certificate.json", self.signer.envelope(self.payload, PAYLOAD_TYPE))

    def write(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path

    def verify(self, model: Path | None = None, keys=None, **more):
        keys = [self.signer.public_pem] if keys is None else keys
        return client.verify(self.certificate, model or self.model, keys, **more)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    return Shipped(tmp_path_factory.mktemp("shipped"))


def wrong(findings):
    return [finding.sentence for finding in findings if not finding.ok]


def test_what_was_not_changed_holds(shipped):
    found = shipped.verify(data=shipped.data, uploaded=shipped.uploaded, others=[shipped.table])
    assert (len(found), wrong(found)) == (5, [])
    assert "this very file was evaluated" in found[1].sentence
    (_, converted) = shipped.verify(shipped.converted)
    assert converted.ok
    assert "same tensors as checkpoint.pt" in converted.sentence


def flipped(content: bytes, data) -> bytes:
    position = data.draw(st.integers(0, len(content) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != content[position]))
    return content[:position] + bytes([byte]) + content[position + 1 :]


@FAST
@given(data=st.data())
def test_no_byte_of_the_certificate_can_be_changed(shipped, data):
    content = shipped.certificate.read_bytes()
    changed = flipped(content, data)
    try:
        shipped.certificate.write_bytes(changed)
        (finding,) = shipped.verify()
    finally:
        shipped.certificate.write_bytes(content)
    assert not finding.ok
    assert finding.sentence.startswith("certificate.json: ")


@FAST
@given(data=st.data())
def test_no_byte_of_weights_or_data_can_be_changed(shipped, data):
    name, role = data.draw(st.sampled_from([("model", None), ("data", "data"), ("uploaded", "checkpoint")]))
    path = getattr(shipped, name)
    content = path.read_bytes()
    try:
        path.write_bytes(flipped(content, data))
        (sentence,) = wrong(shipped.verify(data=shipped.data, uploaded=shipped.uploaded))
    finally:
        path.write_bytes(content)
    assert sentence.startswith(
        f"{path.name} is not the {f'{role} that was sent' if role else 'certified checkpoint.pt'}"
    )
    assert client.file_sha256(path) in sentence


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.rstrip("\n"),
        lambda text: text + " ",
        lambda text: json.dumps(json.loads(text)),
        lambda text: text.replace('"payload":', '"payload": "", "payload":'),
        lambda text: text.replace('"sig"', '"s\\u0069g"'),
        lambda text: "[" * 100_000,
        lambda text: "[]",
        lambda text: "{}",
        lambda text: json.dumps({**json.loads(text), "signatures": []}),
        lambda text: json.dumps({**json.loads(text), "signatures": [{"keyid": 1, "sig": None}]}),
        lambda text: "",
    ],
)
def test_the_same_in_another_form_is_refused(tmp_path, change):
    shipped = Shipped(tmp_path)
    shipped.write("certificate.json", change(shipped.certificate.read_text()).encode())
    assert len(wrong(shipped.verify())) == 1


def test_bits_that_base64_ignores_are_not_ignored(tmp_path):
    shipped = Shipped(tmp_path)
    envelope = json.loads(shipped.certificate.read_bytes())
    signature = envelope["signatures"][0]["sig"]
    assert signature.endswith("==")
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = signature[:-3] + letters[letters.index(signature[-3]) + 1] + "=="
    assert base64.b64decode(other) == base64.b64decode(signature)
    envelope["signatures"][0]["sig"] = other
    shipped.write("certificate.json", (json.dumps(envelope, indent=2, sort_keys=True) + "\n").encode())
    assert "not written as the server writes it" in wrong(shipped.verify())[0]


def test_a_certificate_cannot_vouch_for_its_own_key(shipped):
    other = Signer.parse(new_signing_key())
    for keys in ([], [other.public_pem]):
        (sentence,) = wrong(shipped.verify(keys=keys))
        assert shipped.signer.key_id in sentence
        assert "not one you trust" in sentence
    assert wrong(shipped.verify(keys=[other.public_pem, shipped.signer.public_pem])) == []


def test_another_key_cannot_take_the_name_of_a_trusted_one(tmp_path):
    shipped = Shipped(tmp_path)
    forged = Signer.parse(new_signing_key()).envelope(shipped.payload, PAYLOAD_TYPE)
    envelope = json.loads(forged)
    envelope["signatures"][0]["keyid"] = shipped.signer.key_id
    shipped.write("certificate.json", (json.dumps(envelope, indent=2, sort_keys=True) + "\n").encode())
    assert "signature does not fit" in wrong(shipped.verify())[0]


def test_what_is_signed_for_something_else_is_no_certificate(tmp_path):
    shipped = Shipped(tmp_path)
    for payload, kind in ((shipped.payload, "text/plain"), (b'{"predicateType": "other"}', PAYLOAD_TYPE)):
        shipped.write("certificate.json", shipped.signer.envelope(payload, kind))
        assert "it is signed, but" in wrong(shipped.verify())[0]


def test_the_checkpoint_before_hardening_is_told_from_any_other(shipped):
    (sentence,) = wrong(shipped.verify(shipped.uploaded))
    assert "before it was hardened" in sentence


def test_of_a_job_that_only_evaluates_it_is_about_the_upload(tmp_path):
    shipped = Shipped(tmp_path, trains=False)
    assert wrong(shipped.verify(shipped.uploaded)) == []
    assert len(wrong(shipped.verify(shipped.model))) == 1


@pytest.mark.parametrize("pem", ["", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "é"])
def test_a_key_that_is_none(shipped, pem):
    with pytest.raises(client.CertificateError, match="public key"):
        shipped.verify(keys=[pem])


def test_a_file_that_the_engine_did_not_attack_is_not_signed_for():
    with pytest.raises(OtherFileError, match=r"another checkpoint\.pt"):
        make_statement(
            "job_1", SPEC, {"checkpoint": None, "data": None},
            {"checkpoint.pt": Stored("", "1" * 64, 1)}, report({"checkpoint.pt": "2" * 64}),
        )  # fmt: skip


def test_the_summary_is_in_words(shipped):
    statement, _ = client.read(shipped.certificate.read_bytes(), {shipped.signer.key_id: shipped.signer.public_pem})
    text = "\n".join(client.summary(statement))
    assert "before: clean 90.0% (9 of 10), robust 90.0% (9 of 10)" in text
    assert "verdict unverified: a quick look" in text
    assert statement["predicate"]["spec"] == SPEC
