"""What a certificate says, as far as the attacks have to know it to be run again. Its signature is not checked here."""

from __future__ import annotations

import base64
import binascii
import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from core.attacks import AnyAttack, Attack
from core.errors import RunError
from core.report import Images
from core.spec import JobSpec
from core.suites import Entry, Suite
from core.threat import ThreatModel

SideName = Literal["before", "after"]
_ATTACK: TypeAdapter[Attack] = TypeAdapter(AnyAttack)
_PREDICATE = "urn:temper:robustness-evaluation:1"


class CertificateError(RunError):
    """The certificate cannot be read, or is not about what is to be compared with it."""

    blame = "user"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)  # what it says beside this is not asked for here


class CertifiedCount(_Part):
    """Images that are classified correctly, of all."""

    correct: int
    total: int


class CertifiedAttack(CertifiedCount):
    """An attack with all its parameters, and what it left."""

    name: str
    params: dict[str, Any]
    threat: ThreatModel
    counted: bool
    cumulative: bool


class CertifiedSide(_Part):
    """One model under the suite."""

    clean: CertifiedCount
    attacks: tuple[CertifiedAttack, ...]
    robust: CertifiedCount
    randomised: bool

    def suite(self) -> Suite:
        """The attacks as they were run. Raises: CertificateError for one that this version does not have."""
        try:
            entries = [Entry(_ATTACK.validate_python({"name": a.name, **a.params}), a.threat) for a in self.attacks]
        except ValidationError as error:
            raise CertificateError(
                "this version of Temper has another form of an attack that the certificate names",
                "take the version that the certificate names",
            ) from error
        return Suite(tuple(entries), cascade=any(attack.cumulative for attack in self.attacks))


class CertifiedFile(_Part):
    """A file that was sent."""

    filename: str
    sha256: str


class Certificate(_Part):
    """The predicate of the statement inside."""

    job: str
    inputs: dict[Literal["checkpoint", "data"], CertifiedFile | None]
    outputs: dict[str, str]
    evaluated: str | None
    spec: JobSpec
    images: Images
    before: CertifiedSide
    after: CertifiedSide | None

    def side(self, name: SideName) -> CertifiedSide:
        """Raises: CertificateError if nothing was hardened, and so there is no such side."""
        side = self.before if name == "before" else self.after
        if side is None:
            raise CertificateError("nothing was hardened in this job", "give the uploaded checkpoint")
        return side

    def side_of(self, sha256: str) -> SideName:
        """Which model a file is. Raises: CertificateError for one that the certificate does not bind."""
        uploaded = self.inputs["checkpoint"]
        if sha256 in {self.outputs[name] for name in self.outputs if name.startswith("checkpoint.")}:
            return "after"
        if uploaded is not None and sha256 == uploaded.sha256:
            return "before"
        raise CertificateError(
            f"the checkpoint has SHA-256 {sha256}: it is neither the hardened nor the uploaded one of {self.job}",
            "download it again, or take the certificate of its own job",
        )


def read_certificate(path: Path) -> Certificate:
    """From a DSSE envelope. Raises: CertificateError."""
    try:
        envelope = json.loads(path.read_bytes())
        statement = json.loads(base64.b64decode(envelope["payload"], validate=True))
        if statement["predicateType"] != _PREDICATE:
            raise CertificateError(f"{path.name} is of a kind that this version does not know")
        return Certificate.model_validate(statement["predicate"])
    except (OSError, ValueError, LookupError, TypeError, binascii.Error) as error:
        raise CertificateError(f"{path.name} is no certificate that can be read: {error}") from error
