"""The page at ``/docs``: Swagger UI from the installation; it works offline, and asks no other host.

Knows no endpoint; the browser reads ``/openapi.json``.
"""

from __future__ import annotations

import base64
import hashlib
import re

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

PATH = "/docs"
_FILES = f"{PATH}/files"
_INLINE = re.compile(r"<script>(.*?)</script>", re.DOTALL)
# The badge of swagger.io's validator would send the document's address there.
_PARAMETERS = {"validatorUrl": None}


def install(app: FastAPI) -> None:
    """Serve the page; it needs no key, as the document needs none.

    The files are those of the package ``fastapi-swagger``, which is nothing but a current Swagger UI.
    """
    app.mount(_FILES, StaticFiles(packages=[("fastapi_swagger", "resources")]), name="docs-files")

    @app.get(PATH, include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        """The page."""
        root = request.scope.get("root_path", "").rstrip("/")
        files = root + _FILES
        page = get_swagger_ui_html(
            openapi_url=f"{root}{app.openapi_url}",
            title=f"{app.title} {app.version}",
            swagger_js_url=f"{files}/swagger-ui-bundle.js",
            swagger_css_url=f"{files}/swagger-ui.css",
            swagger_favicon_url=f"{files}/favicon-32x32.png",
            swagger_ui_parameters=_PARAMETERS,
        )
        page.headers["content-security-policy"] = _policy(bytes(page.body).decode())
        return page


def _policy(page: str) -> str:
    """Only this server's files and the page's own script run, and nothing is asked of another host."""
    hashes = [
        base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        for script in _INLINE.findall(page)
    ]
    scripts = " ".join(["'self'", *(f"'sha256-{value}'" for value in hashes)])
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
