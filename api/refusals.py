"""Why a request gets no further than the door."""

from __future__ import annotations

from jobs.errors import JobsError
from jobs.scopes import Scope

_CREATE = "an operator makes one: temperd keys create --tenant NAME --name LABEL"


class NotAuthenticatedError(JobsError):
    """Neither a key nor a session."""

    status, code = 401, "not_authenticated"

    def __init__(self) -> None:
        super().__init__("this needs a key: Authorization: Bearer tmp_...", _CREATE)


class InvalidKeyError(JobsError):
    """A key or a session that is unknown, revoked or expired; which of them is told to nobody."""

    status, code = 401, "invalid_key"

    def __init__(self) -> None:
        super().__init__("this key or session is not valid, or no longer", _CREATE)


class MissingScopeError(JobsError):
    """The key may not do this."""

    status, code = 403, "missing_scope"

    def __init__(self, scope: Scope) -> None:
        super().__init__(f"this needs the scope {scope}", f"{_CREATE} --scopes {scope}")


class HostNotAllowedError(JobsError):
    """An open service was asked for under a name that is not this machine's: it may have been rebound."""

    status, code = 403, "host_not_allowed"

    def __init__(self) -> None:
        super().__init__("a service without keys is reached as localhost, 127.0.0.1 or [::1] only", _CREATE)


class ProxiedError(JobsError):
    """An open service was asked through a proxy: whoever reaches that would reach all."""

    status, code = 403, "proxied_without_keys"

    def __init__(self) -> None:
        super().__init__("a service without keys answers no proxy", _CREATE)


class CrossSiteError(JobsError):
    """Another site's page sent this, by a user's browser."""

    status, code = 403, "cross_site"

    def __init__(self) -> None:
        super().__init__(
            "a page of another origin may not ask this service",
            "behind a proxy that ends TLS, set FORWARDED_ALLOW_IPS and have it keep the Host header",
        )


class RateLimitedError(JobsError):
    """More requests than the tenant may send."""

    status, code = 429, "rate_limited"

    def __init__(self, seconds: float) -> None:
        super().__init__("too many requests of this tenant", "GET /jobs/ID?wait=30 and event streams spare requests")
        self.retry_after = seconds


class TooManyAtOnceError(JobsError):
    """More requests of one tenant at one time than leave the others theirs."""

    status, code = 429, "too_many_at_once"
    retry_after = 2.0

    def __init__(self, detail: str) -> None:
        super().__init__(detail, "let some of them end first: event streams, waits, uploads and downloads last")


class TooManyFailuresError(JobsError):
    """Too many wrong keys from one address."""

    status, code = 429, "too_many_failures"

    def __init__(self, seconds: float) -> None:
        super().__init__("too many wrong keys from this address", "look at the key that is sent")
        self.retry_after = seconds
