"""The application without a network: routes, errors, keys, ids, health, metrics."""

from __future__ import annotations

import logging
import re
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from avllm import errors
from avllm.errors import ConfigurationError
from avllm.server import ServerConfig

from .conftest import client_of
from .fake_engine import FakeEngine

pytestmark = pytest.mark.anyio

CHAT = {"model": "fake", "messages": [{"role": "user", "content": "Hi"}]}


async def test_health_tells_the_engine_is_alive(client: httpx.AsyncClient) -> None:
    response = await client.get("/health")
    assert response.status_code == 200
    assert response.json() == {"status": "ok", "model": "fake", "heartbeat_age_seconds": 0.01}


@pytest.mark.parametrize(
    ("status", "age", "told"),
    [("ready", 31, "stuck"), ("failed", 0, "failed"), ("stopping", 0, "stopping")],
)
async def test_health_is_503_unless_the_engine_turns(
    client: httpx.AsyncClient, engine: FakeEngine, status: str, age: float, told: str
) -> None:
    engine.status, engine.heartbeat_age = status, age
    response = await client.get("/health")
    assert (response.status_code, response.json()["status"]) == (503, told)
    assert int(response.headers["retry-after"]) >= 1


async def test_without_an_engine_everything_but_the_page_is_503() -> None:
    async with client_of(None) as client:
        assert (await client.get("/health")).json() == {"status": "loading"}
        for response in (await client.get("/v1/models"), await client.post("/v1/completions")):
            assert response.status_code == 503
            assert response.json()["error"]["code"] == "model_loading"
            assert response.headers["retry-after"] == "2"
        assert "avllm_up 0.0" in (await client.get("/metrics")).text
        assert (await client.get("/")).status_code == 200
        client.app.state.server.attach(FakeEngine())
        assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200


async def test_draining_refuses_new_requests_and_says_so(client: Any) -> None:
    client.app.state.server.is_draining = True
    health = await client.get("/health")
    assert (health.status_code, health.json()) == (503, {"status": "draining"})
    response = await client.post("/v1/chat/completions", json=CHAT)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "draining")
    assert response.headers["connection"] == "close"
    assert (await client.get("/metrics")).status_code == 200


async def test_models(client: httpx.AsyncClient) -> None:
    body = (await client.get("/v1/models")).json()
    (card,) = body["data"]
    assert (body["object"], card["id"], card["object"]) == ("list", "fake", "model")
    assert isinstance(card["created"], int)
    assert card["meta"]["context_length"] == 1000
    assert (await client.get("/v1/models/fake")).json() == card


async def test_an_alias_with_a_slash_is_found_percent_encoded() -> None:
    async with client_of(FakeEngine(), ServerConfig(alias="org/name")) as client:
        for path in ("/v1/models/org%2Fname", "/v1/models/org/name", "/v1/models/fake"):
            assert (await client.get(path)).json()["id"] == "org/name"
        answer = (await client.post("/v1/chat/completions", json=CHAT)).json()
        assert answer["model"] == "org/name"


@pytest.mark.parametrize("name", ["other", "", "../../etc/passwd", "x" * 10_000, "fa\x00ke"])
async def test_an_unknown_model_is_404(client: httpx.AsyncClient, name: str) -> None:
    response = await client.post("/v1/chat/completions", json={**CHAT, "model": name})
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"
    assert len(response.text) < 500


async def test_a_request_without_a_model_gets_the_served_one(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/completions", json={"prompt": "x"})
    assert response.json()["model"] == "fake"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("POST", "/nowhere", 404, "not_found"),
        ("GET", "/v1/", 404, "not_found"),
        ("GET", "/v1/chat/completions/", 404, "not_found"),
        ("GET", "/../etc/passwd", 404, "not_found"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("POST", "/health", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
    ],
)
async def test_wrong_routes_answer_json(
    client: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    response = await client.request(method, path)
    assert response.status_code == status
    assert response.json()["error"]["code"] == code
    assert ("allow" in response.headers) == (status == 405)


@pytest.mark.parametrize(
    ("headers", "content", "status"),
    [
        ({"content-type": "application/json"}, b"{", 400),
        ({"content-type": "application/json; charset=utf-8"}, b"[]", 400),
        ({"content-type": "text/plain"}, b"{}", 415),
        ({}, b"{}", 415),
        ({"content-type": "application/json", "content-encoding": "gzip"}, b"{}", 415),
        ({"content-type": "application/json", "content-length": "99999999"}, b"{}", 413),
        ({"content-type": "application/json"}, b" " * 17_000_000, 413),
    ],
)
async def test_bodies_that_are_refused(
    client: httpx.AsyncClient, headers: dict[str, str], content: bytes, status: int
) -> None:
    response = await client.post("/v1/completions", headers=headers, content=content)
    assert response.status_code == status
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    if status != 400:
        assert response.headers["connection"] == "close"


@pytest.mark.parametrize(
    ("reject", "status", "code"),
    [
        (errors.EngineOverloadedError("full", retry_after=7), 429, "queue_full"),
        (errors.QueueTimeoutError("late"), 503, "queue_timeout"),
        (errors.EngineStoppedError("closed"), 503, "engine_stopped"),
        (errors.DecodeError("failed"), 500, "engine_error"),
        (errors.ContextLengthError("too long"), 400, "context_length_exceeded"),
        (errors.InvalidRequestError("no", code="template_error"), 400, "template_error"),
        (ZeroDivisionError("/home/me"), 500, "internal_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("at_submit", [False, True])
async def test_engine_errors_before_the_first_delta_get_their_status(
    reject: Exception, status: int, code: str, stream: bool, at_submit: bool
) -> None:
    script = {"reject": reject} if at_submit else {"fault": reject, "fail_at_step": 0}
    async with client_of(FakeEngine(**script)) as client:
        response = await client.post("/v1/chat/completions", json={**CHAT, "stream": stream})
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert "/home/me" not in response.text
    assert ("retry-after" in response.headers) == (status in {429, 503})
    if status == 429:
        assert response.headers["retry-after"] == "7"


async def test_a_failed_submit_cancels_the_prompts_before_it() -> None:
    engine = FakeEngine()
    async with client_of(engine) as client:
        response = await client.post("/v1/completions", json={"prompt": ["a", "b", ""]})
    assert response.status_code == 400
    assert len(engine.submitted) == 2
    assert not engine.running


@pytest.mark.parametrize("reason", ["abort", "error"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_sequence_that_was_cut_is_an_error_not_an_answer(reason: Any, stream: bool) -> None:
    async with client_of(FakeEngine(finish_reason=reason)) as client:
        response = await client.post("/v1/chat/completions", json={**CHAT, "stream": stream})
    assert '"finish_reason":"' not in response.text
    assert '"error":{' in response.text
    assert "[DONE]" not in response.text


class TestKeys:
    """Authentication."""

    config = ServerConfig(api_keys=("secret-1", "secret-2"))

    @pytest.mark.parametrize(
        "headers",
        [
            {"authorization": "Bearer secret-1"},
            {"authorization": "bearer  secret-2"},
            {"x-api-key": "secret-2"},
        ],
    )
    async def test_a_right_key_passes(self, headers: dict[str, str]) -> None:
        async with client_of(FakeEngine(), self.config) as client:
            assert (await client.get("/v1/models", headers=headers)).status_code == 200

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"authorization": "Bearer secret"},
            {"authorization": "Bearer "},
            {"authorization": "Basic secret-1"},
            {"authorization": "secret-1"},
            {"x-api-key": "secret-1x"},
            {"x-api-key": "sécret"},
        ],
    )
    async def test_a_wrong_key_is_401(self, headers: dict[str, str]) -> None:
        encoded = {name: value.encode("latin-1") for name, value in headers.items()}
        async with client_of(FakeEngine(), self.config) as client:
            for path in ("/v1/models", "/metrics", "/nowhere"):
                response = await client.get(path, headers=encoded)
                assert response.status_code == 401
                assert response.json()["error"]["code"] == "invalid_api_key"
                assert response.headers["www-authenticate"] == "Bearer"
                assert "secret" not in response.text

    async def test_health_and_the_page_are_open(self) -> None:
        async with client_of(FakeEngine(), self.config) as client:
            assert (await client.get("/health")).status_code == 200
            assert (await client.get("/")).status_code == 200

    async def test_the_body_of_a_refused_request_is_not_read(self) -> None:
        async def body() -> Any:
            raise AssertionError("the body was read")
            yield b""

        async with client_of(FakeEngine(), self.config) as client:
            response = await client.post("/v1/completions", content=body())
        assert response.status_code == 401


async def test_every_response_has_a_request_id_of_ours(client: httpx.AsyncClient) -> None:
    seen = set()
    for path in ("/health", "/nowhere", "/v1/models", "/"):
        response = await client.get(path, headers={"x-request-id": "theirs"})
        seen.add(response.headers["x-request-id"])
    assert len(seen) == 4
    assert all(re.fullmatch(r"req_[0-9a-f]{32}", value) for value in seen)


async def test_the_access_log_has_no_line_breaks_of_the_client(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "avllm.server.access")
    await client.get("/no%0d%0awhere", headers={"x-request-id": "my-id"})
    (record,) = [r for r in caplog.records if r.name == "avllm.server.access"]
    line = record.getMessage()
    assert "\n" not in line
    assert "404" in line
    assert "my-id" in line


async def test_probes_are_logged_for_debugging_only(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "avllm.server.access")
    await client.get("/health")
    await client.get("/v1/models")
    levels = [r.levelno for r in caplog.records if r.name == "avllm.server.access"]
    assert levels == [logging.DEBUG, logging.INFO]


async def test_cors_is_off_unless_configured() -> None:
    origin = {"origin": "https://page.test"}
    preflight = {**origin, "access-control-request-method": "POST"}
    async with client_of(FakeEngine()) as client:
        response = await client.get("/v1/models", headers=origin)
        assert "access-control-allow-origin" not in response.headers
    config = ServerConfig(cors_origins=("https://page.test",), api_keys=("k",))
    async with client_of(FakeEngine(), config) as client:
        assert (await client.options("/v1/models", headers=preflight)).status_code == 200
        refused = await client.get("/v1/models", headers=origin)
        assert refused.status_code == 401
        assert refused.headers["access-control-allow-origin"] == "https://page.test"


async def test_metrics_are_read_at_scrape_time(
    client: httpx.AsyncClient, engine: FakeEngine
) -> None:
    engine.metrics.observe_step(8, 6, 2, 0.03, 0.04)
    engine.metrics.count_finished("stop")
    engine.metrics.count_rejected("queue_full")
    engine.metrics.running = 3
    engine.metrics.ttft_seconds.observe(0.2)
    response = await client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    samples = {
        (sample.name, tuple(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }
    assert samples["avllm_up", ()] == 1
    assert samples["avllm_steps_total", ()] == 1
    assert samples["avllm_prompt_tokens_total", ()] == 6
    assert samples["avllm_requests_finished_total", (("reason", "stop"),)] == 1
    assert samples["avllm_requests_rejected_total", (("reason", "queue_full"),)] == 1
    assert samples["avllm_running", ()] == 3
    assert samples["avllm_ttft_seconds_bucket", (("le", "0.1"),)] == 0
    assert samples["avllm_ttft_seconds_bucket", (("le", "0.25"),)] == 1
    assert samples["avllm_ttft_seconds_bucket", (("le", "+Inf"),)] == 1
    assert samples["avllm_ttft_seconds_count", ()] == 1
    assert samples["avllm_batch_size_sum", ()] == 8


@pytest.mark.parametrize(
    ("values", "param"),
    [
        ({"port": 65_536}, "port"),
        ({"max_body_bytes": 1}, "max_body_bytes"),
        ({"grace_seconds": float("nan")}, "grace_seconds"),
        ({"api_keys": ("",)}, "api_keys"),
        ({"api_keys": ("clé",)}, "api_keys"),
        ({"alias": " "}, "alias"),
    ],
)
def test_wrong_settings_are_refused_by_name(values: dict[str, Any], param: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ServerConfig(**values)
    assert caught.value.param == param
