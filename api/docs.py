"""/docs: Swagger UI from this service's own files, so that no other host's script runs beside a user's session."""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

router = APIRouter(include_in_schema=False)
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}
_START = 'SwaggerUIBundle({url: "/openapi.json", dom_id: "#ui", deepLinking: true, tryItOutEnabled: true});\n'
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Temper: API</title>
<link rel="stylesheet" href="/docs/swagger-ui.css">
<link rel="icon" href="/docs/favicon.png">
</head>
<body>
<div id="ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
</body>
</html>
"""
_KINDS = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript", "favicon.png": "image/png"}


@router.get("/docs")
async def page() -> HTMLResponse:
    """Every call, to read and to try."""
    return HTMLResponse(_PAGE, headers=_HEADERS)


@router.get("/docs/{name}")
def asset(name: str) -> Response:
    """What the page loads."""
    if name == "start.js":
        return Response(_START, media_type="text/javascript")
    if name not in _KINDS:
        raise HTTPException(404)
    return Response((files("fastapi_offline") / "static" / name).read_bytes(), media_type=_KINDS[name])


@router.get("/openapi.json")
async def document(request: Request) -> JSONResponse:
    """What it shows."""
    return JSONResponse(request.app.openapi())
