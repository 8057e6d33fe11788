"""llama.cpp's process-wide state: initialised once, its log lines, the devices it found."""

import logging
import os
import threading

from libcpp.vector cimport vector

from avllm.llama cimport libllama as lib
from avllm.llama.libnative cimport (
    avllm_log_drain,
    avllm_log_install,
    avllm_log_line,
    avllm_log_pending,
    avllm_log_thread,
)

logger = logging.getLogger("avllm.llama")

_LEVELS = {1: logging.DEBUG, 2: logging.DEBUG, 3: logging.WARNING, 4: logging.ERROR}
# Warnings about what this engine does on purpose: a pool larger than one sequence may become.
_EXPECTED = ("possible training context overflow", "the full capacity of the model will not be")
_initialised = False
_lock = threading.Lock()


def initialise():
    """Initialise llama.cpp's backends and take over its log. Safe to call often, from any thread.

    llama.cpp's INFO lines become DEBUG here: they describe a load in hundreds of lines.
    """
    global _initialised
    with _lock:
        if _initialised:
            return
        # ggml's abort and terminate handlers would fork a debugger to print a backtrace.
        os.environ.setdefault("GGML_NO_BACKTRACE", "1")
        avllm_log_install()
        lib.llama_backend_init()
        _initialised = True


def drain_log():
    """Pass llama.cpp's log lines on to the ``avllm.llama`` logger.

    Returns:
        The text of the errors that the calling thread's calls logged, oldest first.
    """
    if not avllm_log_pending():
        return []
    cdef vector[avllm_log_line] lines
    cdef avllm_log_line line
    dropped = avllm_log_drain(lines)
    if dropped:
        logger.warning("%d log lines of llama.cpp were dropped", dropped)
    errors = []
    me = avllm_log_thread()
    for line in lines:
        text = line.text.decode("utf-8", "replace").rstrip()
        if not text:
            continue
        if any(needle in text for needle in _EXPECTED):
            logger.debug("%s", text)
        elif line.level == 4 and line.thread == me:
            errors.append(text)  # the caller raises it
            logger.debug("%s", text)
        else:
            logger.log(_LEVELS.get(line.level, logging.DEBUG), "%s", text)
    return errors


def system_info():
    """Return llama.cpp's line about the CPU features and backends that were compiled in."""
    initialise()
    return lib.llama_print_system_info().decode()


def devices():
    """Return (name, description) of every compute device that llama.cpp found."""
    initialise()
    cdef size_t index
    return [
        (
            lib.ggml_backend_dev_name(lib.ggml_backend_dev_get(index)).decode(),
            lib.ggml_backend_dev_description(lib.ggml_backend_dev_get(index)).decode(),
        )
        for index in range(lib.ggml_backend_dev_count())
    ]
