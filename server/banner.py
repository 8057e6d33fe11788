"""The lines that a person sees once the model is served."""

from __future__ import annotations

_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def banner(model_name: str, address: str, port: int, *, needs_key: bool = False) -> str:
    """Return the address of the web page, and a curl line to try.

    Args:
        model_name: the name clients use.
        address: the IP address the server listens on.
        port: its port.
        needs_key: show where the API key goes.
    """
    host = _ANY_ADDRESS.get(address, address)
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    key = ' -H "Authorization: Bearer $AVLLM_API_KEY"' if needs_key else ""
    return (
        f"Serving {model_name}; web page: {url}/\n"
        f"Try: curl {url}/v1/chat/completions{key} -H 'Content-Type: application/json' "
        """-d '{"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 64}'"""
    )
