"""ChatTemplate: a model's Jinja chat template, rendered by llama.cpp's own engine."""

import msgspec

from avllm.errors import InvalidRequestError, ModelLoadError

cimport cython
from libcpp.string cimport string

from avllm.llama.libnative cimport (
    avllm_chat_render,
    avllm_chat_templates,
    avllm_chat_templates_explicit,
    avllm_chat_templates_free,
    avllm_chat_templates_new,
    avllm_chat_templates_source,
)
from avllm.llama.model cimport Model

from avllm.llama import backend

MAX_REQUEST_BYTES = 64 * 2**20


@cython.final
cdef class ChatTemplate:
    """The chat template of a model.

    Thread-safe: rendering only reads, and releases the GIL.

    Args:
        model: takes its template from here; kept alive.
        source: a Jinja template to use instead of the model's.

    Raises:
        ModelLoadError: the template cannot be parsed.
    """

    cdef avllm_chat_templates * ptr
    cdef readonly Model model

    def __cinit__(self, Model model not None, str source=""):
        self.model = model
        cdef string text = source.encode("utf-8")
        try:
            with nogil:
                self.ptr = avllm_chat_templates_new(model.ptr, text)
        except (RuntimeError, MemoryError, ValueError, IndexError) as error:
            raise ModelLoadError(f"the chat template cannot be used: {error}") from error
        finally:
            backend.drain_log()

    def __dealloc__(self):
        if self.ptr != NULL:
            avllm_chat_templates_free(self.ptr)
            self.ptr = NULL

    @property
    def source(self):
        """Jinja source of the template in use."""
        cdef string text
        avllm_chat_templates_source(self.ptr, text)
        return (<bytes> text).decode("utf-8", "replace")

    @property
    def is_explicit(self):
        """False when the model brought no template and ChatML stands in."""
        return avllm_chat_templates_explicit(self.ptr)

    def render(
        self, messages, *, tools=None, add_generation_prompt=True, continue_final_message=False,
        chat_template_kwargs=None
    ):
        """Return the prompt text of a conversation.

        Args:
            messages: dicts in OpenAI's form (role, content as text or text parts, tool_calls...).
            tools: tool definitions in OpenAI's form, or None.
            add_generation_prompt: end with the beginning of an assistant message.
            continue_final_message: leave the last (assistant) message open to be continued.
            chat_template_kwargs: further variables for the template (``enable_thinking``...).

        Raises:
            InvalidRequestError: the messages are malformed or the template refuses them; its own
                words are in the message.
        """
        if not messages:
            raise InvalidRequestError("messages must not be empty.", "messages")
        request = {
            "messages": messages,
            "add_generation_prompt": add_generation_prompt and not continue_final_message,
            "continue_final_message": continue_final_message,
        }
        if tools:
            request["tools"] = tools
        if chat_template_kwargs:
            request["chat_template_kwargs"] = dict(chat_template_kwargs)
            if "enable_thinking" in chat_template_kwargs:
                request["enable_thinking"] = bool(chat_template_kwargs["enable_thinking"])
        return self._render(request)["prompt"]

    def _render(self, request):
        try:
            data = msgspec.json.encode(request)
        except (UnicodeEncodeError, TypeError, RecursionError) as error:
            raise InvalidRequestError(f"messages: {error}", "messages") from error
        if len(data) > MAX_REQUEST_BYTES:
            raise InvalidRequestError("messages are larger than 64 MiB.", "messages")
        cdef string text = data
        cdef string result
        try:
            with nogil:
                avllm_chat_render(self.ptr, text, result)
        except (RuntimeError, ValueError, IndexError) as error:
            raise InvalidRequestError(
                f"the chat template refused the messages: {error}", "messages", "template_error"
            ) from error
        finally:
            backend.drain_log()
        return msgspec.json.decode(<bytes> result)
