"""What a browser says of where a request comes from, and what is refused for it.

Only browsers send Origin and Sec-Fetch-Site, and no page can forge them; curl and scripts send neither.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.types import Scope

from api.refusals import CrossSiteError, HostNotAllowedError, ProxiedError

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_LOCAL = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?", re.IGNORECASE)
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")


def check_open(scope: Scope) -> None:
    """For a service without keys: whoever asks sits at this machine, and is no page of another site.

    Any port will do: it may be the near end of a tunnel. A name that an attacker rebinds is none of the three.

    Raises: HostNotAllowedError, ProxiedError, CrossSiteError.
    """
    headers = Headers(scope=scope)
    if len(headers.getlist("host")) != 1 or not _LOCAL.fullmatch(headers["host"]):
        raise HostNotAllowedError
    if any(name in headers for name in _FORWARDED):
        raise ProxiedError
    if scope["method"] not in SAFE_METHODS:
        check_origin(scope)
    elif headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not _is_visit(headers):
        raise CrossSiteError  # it could learn from how long an image takes to fail whether a job is there


def check_origin(scope: Scope, *, certain: bool = False) -> None:
    """For what changes something. ``certain``: the sender is a browser, and has to say where the page is from.

    Raises: CrossSiteError.
    """
    headers = Headers(scope=scope)
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site not in (None, "none", "same-origin"):
        raise CrossSiteError
    if origin is not None and origin.lower() != f"{scope['scheme']}://{headers.get('host', '')}".lower():
        raise CrossSiteError
    if certain and site is None and origin is None:
        raise CrossSiteError


def _is_visit(headers: Mapping[str, str]) -> bool:
    """A link that was followed: the page that has it learns nothing, as the answer opens in its place."""
    return headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
