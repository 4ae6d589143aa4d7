"""What a key may do."""

from __future__ import annotations

from enum import StrEnum


class Scope(StrEnum):
    """Each call of the API needs one; none contains another."""

    READ = "jobs:read"
    WRITE = "jobs:write"
    ADMIN = "admin"


SCOPES = frozenset(Scope)
