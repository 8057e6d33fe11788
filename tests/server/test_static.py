"""The web page: headers, validators, compression, and what is served without a bundle."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

from avllm.server.static import load_assets, static_routes

pytestmark = pytest.mark.anyio

INDEX = b"<!doctype html><title>avllm</title>" + b"<p>hello</p>" * 50
SCRIPT = b"let theme = 'dark';" * 20
SCRIPT_GZIP = gzip.compress(SCRIPT, compresslevel=1, mtime=7)


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_bytes(INDEX)
    (tmp_path / "assets" / "index-1a2b.js").write_bytes(b"let x = 1;")
    (tmp_path / "favicon.svg").write_bytes(b"<svg/>")
    (tmp_path / "theme.js").write_bytes(SCRIPT)
    (tmp_path / "theme.js.gz").write_bytes(SCRIPT_GZIP)
    (tmp_path / ".stamp").write_bytes(b"secret")
    app = Starlette(routes=static_routes(load_assets(tmp_path)))
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def test_the_index_is_revalidated_and_guarded(page: httpx.AsyncClient) -> None:
    for path in ("/", "/index.html"):
        response = await page.get(path)
        assert response.content == INDEX
        assert response.headers["content-type"] == "text/html; charset=utf-8"
        assert response.headers["cache-control"] == "no-cache"
        assert response.headers["x-content-type-options"] == "nosniff"
        policy = response.headers["content-security-policy"]
        assert "script-src 'self';" in policy
        assert "default-src 'self';" in policy


async def test_hashed_assets_are_immutable_and_the_rest_is_not(page: httpx.AsyncClient) -> None:
    script = await page.get("/assets/index-1a2b.js")
    assert "immutable" in script.headers["cache-control"]
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    icon = await page.get("/favicon.svg")
    assert icon.headers["cache-control"] == "no-cache"
    assert icon.headers["content-type"] == "image/svg+xml"


async def test_an_unchanged_file_is_304(page: httpx.AsyncClient) -> None:
    etag = (await page.get("/")).headers["etag"]
    for value in (etag, f'W/{etag}, "other"', "*"):
        response = await page.get("/", headers={"if-none-match": value})
        assert (response.status_code, response.content) == (304, b"")
        assert response.headers["etag"] == etag
    assert (await page.get("/", headers={"if-none-match": '"other"'})).status_code == 200


@pytest.mark.parametrize(
    ("accepts", "is_compressed"),
    [("gzip", True), ("br, gzip;q=0.5", True), ("gzip;q=0", False), ("identity", False)],
)
async def test_compression(page: httpx.AsyncClient, accepts: str, is_compressed: bool) -> None:
    async with page.stream("GET", "/", headers={"accept-encoding": accepts}) as response:
        raw = b"".join([chunk async for chunk in response.aiter_raw()])
    assert (response.headers.get("content-encoding") == "gzip") is is_compressed
    assert (gzip.decompress(raw) if is_compressed else raw) == INDEX
    assert response.headers["vary"] == "Accept-Encoding"


async def test_a_compressed_copy_of_the_build_is_used(page: httpx.AsyncClient) -> None:
    async with page.stream("GET", "/theme.js") as response:
        raw = b"".join([chunk async for chunk in response.aiter_raw()])
    assert raw == SCRIPT_GZIP


async def test_head_has_no_body(page: httpx.AsyncClient) -> None:
    response = await page.head("/")
    assert response.status_code == 200
    assert int(response.headers["content-length"]) == len(gzip.compress(INDEX, mtime=0))


@pytest.mark.parametrize(
    "path", ["/.stamp", "/theme.js.gz", "/assets/", "/assets/%2e%2e/index.html"]
)
async def test_nothing_else_is_served(page: httpx.AsyncClient, path: str) -> None:
    assert (await page.get(path)).status_code == 404


async def test_without_a_bundle_a_page_says_how_to_get_one(tmp_path: Path) -> None:
    app = Starlette(routes=static_routes(load_assets(tmp_path)))
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        response = await client.get("/")
    assert response.status_code == 200
    assert "make build" in response.text
