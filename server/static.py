"""The built web page, read into memory once and served with validators.

Paths are looked up in the routing table, never joined to a folder. Links inside the page are
relative, so it works below a path prefix that a proxy strips.
"""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

# Inline styles for math; img-src keeps a Markdown image from carrying text to another host.
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; "
    "frame-ancestors 'none'; form-action 'self'"
)
_SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
# The bundler puts a hash of the content into the names of the files below this folder.
_HASHED_FOLDER = "assets/"
_MISSING_PAGE = b"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>avllm</title>
<body><h1>avllm is running</h1>
<p>The web page was not built into this installation. In a checkout, install Node.js 20.19 or
later and run <code>make build</code>, then start the server again.</p>
<p>The API is here: <a href="v1/models">v1/models</a>.</p></body></html>
"""


class Asset:
    """One file of the page, with a compressed copy where that is smaller.

    Attributes:
        path: where it is served, below ``/``.
    """

    def __init__(
        self, path: str, body: bytes, media_type: str, compressed: bytes | None = None
    ) -> None:
        self.path = path
        self._body = body
        compressed = compressed or gzip.compress(body, mtime=0)
        self._gzip = compressed if len(compressed) < len(body) else None
        hashed = path.startswith(_HASHED_FOLDER)
        self._etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        self._headers = {
            **_SECURITY_HEADERS,
            "Content-Type": media_type,
            "Cache-Control": "public, max-age=31536000, immutable" if hashed else "no-cache",
            "ETag": self._etag,
            "Vary": "Accept-Encoding",
        }

    async def respond(self, request: Request) -> Response:
        """Return the file, or 304 if the client has it."""
        if _matches(request.headers.get("if-none-match", ""), self._etag):
            return Response(status_code=304, headers=self._headers)
        encodings = request.headers.get("accept-encoding", "")
        if self._gzip is not None and _accepts_gzip(encodings):
            return Response(self._gzip, headers={**self._headers, "Content-Encoding": "gzip"})
        return Response(self._body, headers=self._headers)


def load_page() -> list[Asset]:
    """Return the files of the page in the package `avllm.ui`, or one that says it is missing."""
    try:
        from avllm.ui import DIRECTORY
    except ImportError:
        return [_missing_page()]
    return load_assets(Path(DIRECTORY))


def load_assets(directory: Path) -> list[Asset]:
    """Return every file below `directory`, or a page that says what is missing."""
    if not (directory / "index.html").is_file():
        return [_missing_page()]
    return [_load(path, directory) for path in sorted(directory.rglob("*")) if _is_served(path)]


def _is_served(path: Path) -> bool:
    is_compressed_copy = path.suffix == ".gz" and path.with_suffix("").is_file()
    return path.is_file() and not path.name.startswith(".") and not is_compressed_copy


def _load(path: Path, directory: Path) -> Asset:
    copy = path.with_name(f"{path.name}.gz")
    compressed = copy.read_bytes() if copy.is_file() else None
    name = path.relative_to(directory).as_posix()
    return Asset(name, path.read_bytes(), _media_type(path), compressed)


def static_routes(assets: list[Asset]) -> list[Route]:
    """Return a route for each asset; ``index.html`` is also ``/``."""
    routes = [Route(f"/{asset.path}", asset.respond) for asset in assets]
    index = [Route("/", asset.respond) for asset in assets if asset.path == "index.html"]
    return index + routes


def _missing_page() -> Asset:
    return Asset("index.html", _MISSING_PAGE, "text/html; charset=utf-8")


def _media_type(path: Path) -> str:
    known = {".js": "text/javascript", ".woff2": "font/woff2", ".webmanifest": "application/json"}
    guessed = known.get(path.suffix) or mimetypes.guess_type(path.name)[0]
    media_type = guessed or "application/octet-stream"
    is_text = media_type.startswith("text/")
    return f"{media_type}; charset=utf-8" if is_text else media_type


def _matches(if_none_match: str, etag: str) -> bool:
    given = [value.strip().removeprefix("W/") for value in if_none_match.split(",")]
    return etag in given or given == ["*"]


def _accepts_gzip(accept_encoding: str) -> bool:
    for item in accept_encoding.lower().split(","):
        name, _, quality = item.partition(";")
        if name.strip() == "gzip":
            return quality.replace(" ", "") not in {"q=0", "q=0.0"}
    return False
