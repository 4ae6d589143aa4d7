"""Keys, the tenants that they are of, and the browsers that logged in with them."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import ColumnElement, CursorResult, and_, delete, or_, select, update
from sqlalchemy.orm import Session

from jobs.database import now
from jobs.errors import KeyUnknownError, TenantUnknownError
from jobs.limits import Limits
from jobs.scopes import Scope
from jobs.session import Sessions, new_id
from jobs.tables import ApiKey, BrowserSession, Tenant

KEY = re.compile(r"tmp_[A-Za-z0-9_-]{43}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_. -]{0,99}")
NAME_RULE = "letters, digits, blanks and . _ - only, at most 100"
"""Of tenants and keys."""
SESSION_SECONDS = 7 * 24 * 3600.0
_MOST_SESSIONS = 50  # of one key; the oldest gives way
_PREFIX = 12
_USED_SECONDS = 60.0


@dataclass(frozen=True)
class Known:
    """Whom a key or a session stands for.

    ``limits`` are the tenant's own, None where the settings' hold; ``session`` is the SHA-256 of a browser's.
    """

    key_id: str
    tenant_id: str
    scopes: frozenset[Scope]
    limits: Limits
    session: str | None = None


class KeyRepository(Sessions):
    """Secrets are stored as SHA-256 only: they have 256 random bits, so that nobody can guess them from it."""

    # --- who is it?

    def find(self, token: str) -> Known | None:
        """Whose key this is; None for one that is unknown, revoked or expired."""
        query = select(ApiKey, Tenant).join(Tenant).where(ApiKey.prefix == token[:_PREFIX], _live())
        digest = _digest(token)
        with self._read() as session:
            found = [_known(*row) for row in session.execute(query) if hmac.compare_digest(row[0].sha256, digest)]
        return found[0] if found else None

    def find_session(self, token: str) -> Known | None:
        """Whose browser this is; None for a session that is unknown, over, or of a key that is no longer valid."""
        digest = _digest(token)
        query = (
            select(ApiKey, Tenant)
            .join(Tenant)
            .join(BrowserSession, BrowserSession.key_id == ApiKey.id)
            .where(BrowserSession.sha256 == digest, BrowserSession.expires_at > now(), _live())
        )
        with self._read() as session:
            row = session.execute(query).first()
            return None if row is None else _known(*row, digest)

    def is_live(self, key_id: str, browser: str | None = None) -> bool:
        """Whether the key is still valid, and that session of it if one is named: for answers that take long."""
        query = select(ApiKey.id).where(ApiKey.id == key_id, _live())
        if browser is not None:
            goes_on = and_(BrowserSession.sha256 == browser, BrowserSession.expires_at > now())
            query = query.join(BrowserSession, BrowserSession.key_id == ApiKey.id).where(goes_on)
        with self._read() as session:
            return session.scalar(query) is not None

    def used(self, key_id: str) -> None:
        """Remember that the key was used, at most once a minute."""
        stale = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < now() - _USED_SECONDS)
        with self._write() as session:
            session.execute(update(ApiKey).where(ApiKey.id == key_id, stale).values(last_used_at=now()))

    # --- browsers

    def log_in(self, key_id: str) -> str:
        """A new session's secret."""
        token = secrets.token_urlsafe(32)
        with self._write() as session:
            session.execute(delete(BrowserSession).where(BrowserSession.expires_at < now()))
            newest = select(BrowserSession.sha256).where(BrowserSession.key_id == key_id)
            newest = newest.order_by(BrowserSession.created_at.desc()).limit(_MOST_SESSIONS - 1)
            others = BrowserSession.sha256.not_in([*session.scalars(newest)])
            session.execute(delete(BrowserSession).where(BrowserSession.key_id == key_id, others))
            expires = now() + SESSION_SECONDS
            row = BrowserSession(sha256=_digest(token), key_id=key_id, created_at=now(), expires_at=expires)
            session.add(row)
        return token

    def log_out(self, token: str) -> None:
        """End a session."""
        with self._write() as session:
            session.execute(delete(BrowserSession).where(BrowserSession.sha256 == _digest(token)))

    # --- for operators

    def create(self, tenant: str, label: str, scopes: Iterable[Scope], seconds: float | None = None) -> tuple[str, str]:
        """A new key's id, and the key itself, which is told this once. A tenant that is not there yet is made.

        Args:
            seconds: how long it is valid; for ever if None.
        """
        key_id, token = new_id("key"), f"tmp_{secrets.token_urlsafe(32)}"
        with self._write() as session:
            session.add(
                ApiKey(
                    id=key_id,
                    tenant_id=_tenant(session, tenant).id,
                    label=label,
                    prefix=token[:_PREFIX],
                    sha256=_digest(token),
                    scopes=",".join(sorted(scopes)),
                    created_at=now(),
                    expires_at=None if seconds is None else now() + seconds,
                )
            )
        return key_id, token

    def every(self) -> list[tuple[ApiKey, str]]:
        """All that were ever made, with their tenants' names, the newest last."""
        query = select(ApiKey, Tenant.name).join(Tenant).order_by(ApiKey.created_at, ApiKey.id)
        with self._read() as session:
            return [(key, name) for key, name in session.execute(query)]

    def revoke(self, key_id: str) -> None:
        """From now on it opens nothing, and neither do its sessions. Raises: KeyUnknownError."""
        with self._write() as session:
            this = update(ApiKey).where(ApiKey.id == key_id)
            changed = session.execute(this.values(revoked_at=now()).where(ApiKey.revoked_at.is_(None)))
            if isinstance(changed, CursorResult) and not changed.rowcount and session.get(ApiKey, key_id) is None:
                raise KeyUnknownError(key_id)
            session.execute(delete(BrowserSession).where(BrowserSession.key_id == key_id))

    def tenants(self) -> list[Tenant]:
        """All of them, by name."""
        with self._read() as session:
            return [*session.scalars(select(Tenant).order_by(Tenant.name))]

    def set_limits(self, name: str, limits: dict[str, int | None]) -> None:
        """Give a tenant limits of its own; None takes the settings' again. Raises: TenantUnknownError."""
        with self._write() as session:
            tenant = session.scalars(select(Tenant).where(Tenant.name == name)).first()
            if tenant is None:
                raise TenantUnknownError(name)
            for field, value in limits.items():
                setattr(tenant, field, value)


def _live() -> ColumnElement[bool]:
    return and_(ApiKey.revoked_at.is_(None), or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > now()))


def _known(key: ApiKey, tenant: Tenant, browser: str | None = None) -> Known:
    scopes = frozenset(Scope(scope) for scope in key.scopes.split(","))
    return Known(key.id, tenant.id, scopes, Limits().of(tenant), browser)


def _tenant(session: Session, name: str) -> Tenant:
    tenant = session.scalars(select(Tenant).where(Tenant.name == name)).first()
    if tenant is None:
        tenant = Tenant(id=new_id("ten"), name=name, created_at=now())
        session.add(tenant)
        session.flush()
    return tenant


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
