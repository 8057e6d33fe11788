"""ServerConfig: every setting of the HTTP side, checked once, never changed afterwards."""

from __future__ import annotations

import msgspec

from avllm.errors import ConfigurationError

MIB = 1024 * 1024


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one server. Immutable.

    Attributes:
        host: name or address to listen on; names are resolved, the first address is taken.
        port: TCP port; 0 takes a free one.
        api_keys: keys that clients may present; empty leaves every route open.
        alias: model name shown to clients in place of the engine's own, which stays accepted.
        cors_origins: origins whose pages may call the API; ``("*",)`` is any.
        max_body_bytes: longest request body; longer ones get 413.
        body_timeout_seconds: time within which a body must have arrived; later ones get 408.
        send_timeout_seconds: time that a client may leave a stream unread before it is cut.
        ping_seconds: silence on a stream after which a comment is sent to keep it open.
        heartbeat_timeout_seconds: age of the engine's heartbeat at which it counts as stuck.
        grace_seconds: time that running requests get to finish after the first SIGTERM.
        max_prompts: most prompts in one completion request.
        access_log: write one line per request to the logger ``avllm.server.access``.

    Raises:
        ConfigurationError: a value is out of range; ``param`` names it.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    api_keys: tuple[str, ...] = ()
    alias: str | None = None
    cors_origins: tuple[str, ...] = ()
    max_body_bytes: int = 16 * MIB
    body_timeout_seconds: float = 30.0
    send_timeout_seconds: float = 60.0
    ping_seconds: float = 15.0
    heartbeat_timeout_seconds: float = 30.0
    grace_seconds: float = 30.0
    max_prompts: int = 64
    access_log: bool = True

    def __post_init__(self) -> None:
        self._check("port", 0, 65_535)
        self._check("max_body_bytes", 1024, 1024 * MIB)
        self._check("body_timeout_seconds", 0.01, 3600)
        self._check("send_timeout_seconds", 0.01, 3600)
        self._check("ping_seconds", 0.01, 3600)
        self._check("heartbeat_timeout_seconds", 0.1, 3600)
        self._check("grace_seconds", 0, 86_400)
        self._check("max_prompts", 1, 4096)
        if not all(key.isascii() and key.isprintable() and key.strip() for key in self.api_keys):
            raise ConfigurationError(
                "api_keys must be printable ASCII and not empty: they travel in a header.",
                param="api_keys",
            )
        if self.alias is not None and not (self.alias.isprintable() and self.alias.strip()):
            raise ConfigurationError("alias must be printable and not empty.", param="alias")

    def _check(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if not low <= value <= high:  # also false for NaN
            raise ConfigurationError(
                f"{name} must be between {low:g} and {high:g}, got {value!r}.", param=name
            )
