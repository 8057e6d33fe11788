"""Every exception that avllm raises on purpose.

    AvllmError
      x ConfigurationError        an option cannot be honoured; also a ValueError
      x ModelNotFoundError        no such model name, file or repository; also a FileNotFoundError
      x ModelLoadError            the file is there and cannot be used; also an OSError
      x DownloadError             a pull failed, was cut short or did not verify
      x RequestError              the caller's fault                       -> HTTP 4xx
        + InvalidRequestError     a value is wrong; names the parameter    -> 400
          . ContextLengthError    the prompt can never fit                 -> 400
      x EngineError               our fault                                -> HTTP 5xx
        + EngineOverloadedError   the queue is full, come back later       -> 429
          . QueueTimeoutError     waited longer than the queue allows      -> 503
        + DeadlineExceededError   not complete within its own deadline     -> 504
        + EngineStoppedError      closing, closed or failed                -> 503
        + DecodeError             llama.cpp could not compute a step       -> 500

Messages say what was wrong and, where there is something to do, what to do next.
"""

from __future__ import annotations


class AvllmError(Exception):
    """Base class of every error that avllm raises on purpose."""


class ConfigurationError(AvllmError, ValueError):
    """A configuration value is out of range or does not fit the model.

    Attributes:
        param: name of the offending option, or None when several take part.
    """

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ModelNotFoundError(AvllmError, FileNotFoundError):
    """Nothing is known under this model name, path or repository."""


class ModelLoadError(AvllmError, OSError):
    """A model file exists and llama.cpp cannot load it; the message carries its reason.

    Attributes:
        reason: one of ``"missing"``, ``"directory"``, ``"magic"``, ``"truncated"``,
            ``"architecture"``, ``"memory"``, ``"cancelled"``, ``"invalid"``.
    """

    def __init__(self, message: str, reason: str = "invalid") -> None:
        super().__init__(message)
        self.reason = reason


class DownloadError(AvllmError):
    """A model could not be pulled, or what arrived did not match its checksum."""


class RequestError(AvllmError):
    """The caller's fault: repeating the same request gives the same error."""


class InvalidRequestError(RequestError, ValueError):
    """A request value is wrong.

    Attributes:
        param: JSON path or attribute name of the value (``"messages[0].role"``), or None.
        code: short machine-readable reason, or None.
    """

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class ContextLengthError(InvalidRequestError):
    """The prompt does not fit the context, not even alone in the KV cache."""

    def __init__(self, message: str, param: str | None = "prompt") -> None:
        super().__init__(message, param=param, code="context_length_exceeded")


class EngineError(AvllmError):
    """Our fault, or the machine's: the same request may succeed later."""


class EngineOverloadedError(EngineError):
    """The queue is full; nothing of the request was kept.

    Attributes:
        retry_after: seconds after which a place in the queue is likely.
    """

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class QueueTimeoutError(EngineOverloadedError):
    """The request waited in the queue longer than it was allowed to and was never computed."""


class DeadlineExceededError(EngineError):
    """The request set itself a deadline and was not complete by then."""


class EngineStoppedError(EngineError):
    """The engine is closing, is closed, has failed, or belongs to the parent of a fork."""


class DecodeError(EngineError):
    """llama.cpp reported that a step could not be computed.

    Attributes:
        status: the return code of ``llama_decode``.
    """

    def __init__(self, message: str, status: int = -3) -> None:
        super().__init__(message)
        self.status = status
