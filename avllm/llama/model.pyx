"""Model: weights and metadata of one GGUF file. Owns the llama_model pointer."""

import os

from avllm.errors import ModelLoadError

cimport cython
from libc.stdlib cimport free, malloc

from avllm.llama cimport libllama as lib

from avllm.llama import backend

# What llama.cpp's error lines say, most telling first: (text, reason, what to do about it).
_REASONS = (
    ("unknown model architecture", "architecture",
     "This llama.cpp does not know the model's architecture; a newer avllm may."),
    ("not within the file bounds", "truncated", "The file is incomplete: pull it again."),
    ("failed to read tensor data", "truncated", "The file is incomplete: pull it again."),
    ("failed to read tensor info", "truncated", "The file is incomplete: pull it again."),
    ("failed to read key-value pairs", "truncated", "The file is incomplete: pull it again."),
    ("failed to read magic", "truncated", "The file is incomplete: pull it again."),
    ("failed to read header", "truncated", "The file is incomplete: pull it again."),
    ("unable to allocate", "memory", "Free some memory or choose a smaller model."),
    ("failed to allocate", "memory", "Free some memory or choose a smaller model."),
    ("Cannot allocate memory", "memory", "Free some memory or choose a smaller model."),
    ("mmap failed", "memory", "Free some memory or choose a smaller model."),
    ("bad_alloc", "memory", "Free some memory or choose a smaller model."),
    ("cancelled model load", "cancelled", ""),
    ("invalid magic", "magic", "It is not a GGUF file."),
)


cdef class _Progress:
    cdef object callback
    cdef object error
    cdef bint cancelled


cdef bint _on_progress(float progress, void * user_data) noexcept with gil:
    # Called on the loading thread before each tensor. An exception in the callback (Ctrl-C is one)
    # cancels the load and is raised again once llama.cpp has let go of everything.
    cdef _Progress state = <_Progress> user_data
    try:
        if state.callback(progress) is False:
            state.cancelled = True
    except BaseException as error:
        state.error = error
    return not state.cancelled and state.error is None


@cython.final
cdef class Model:
    """A loaded GGUF model: weights, metadata and vocabulary.

    Thread-safe after construction: everything is read-only. Contexts and vocabularies keep it
    alive; the weights are freed with the last of them.

    Args:
        path: the GGUF file; for split models the first of the parts.
        num_gpu_layers: layers to put on a GPU, -1 for all; ignored by a build without one.
        vocab_only: load metadata and vocabulary, no weights (milliseconds, no memory).
        on_progress: called with 0.0 to 1.0 while loading; returning False cancels.

    Raises:
        ModelLoadError: ``reason`` tells a missing file, a directory, a wrong magic, a truncated
            file, an unknown architecture, too little memory and a cancelled load apart.
    """

    def __cinit__(
        self, path, *, int num_gpu_layers=-1, bint vocab_only=False, on_progress=None
    ):
        self.path = os.fspath(path)
        self.vocab_only = vocab_only
        _check_file(self.path)
        backend.initialise()
        cdef lib.llama_model_params params = lib.llama_model_default_params()
        params.n_gpu_layers = num_gpu_layers
        params.vocab_only = vocab_only
        cdef _Progress progress = _Progress()
        if on_progress is not None:
            progress.callback = on_progress
            params.progress_callback = <lib.llama_progress_callback> _on_progress
            params.progress_callback_user_data = <void *> progress
        cdef bytes name = os.fsencode(self.path)
        cdef const char * file_name = name
        backend.drain_log()
        try:
            with nogil:
                self.ptr = lib.llama_model_load_from_file(file_name, params)
        except (MemoryError, RuntimeError) as error:
            raise _load_error(self.path, [*backend.drain_log(), f"bad_alloc: {error}"]) from error
        errors = backend.drain_log()
        if progress.error is not None:
            raise progress.error
        if self.ptr == NULL:
            if progress.cancelled:
                errors.insert(0, "cancelled model load")
            raise _load_error(self.path, errors)

    def __dealloc__(self):
        if self.ptr != NULL:
            with nogil:
                lib.llama_model_free(self.ptr)
            self.ptr = NULL

    @property
    def metadata(self):
        """GGUF metadata as text, key -> value; arrays are shortened by llama.cpp."""
        cdef int count = lib.llama_model_meta_count(self.ptr)
        return {
            _read_text(self.ptr, index, True): _read_text(self.ptr, index, False)
            for index in range(count)
        }

    @property
    def description(self):
        """One line: architecture, size and quantisation (``llama 135M Q4_1``)."""
        cdef char text[256]
        lib.llama_model_desc(self.ptr, text, sizeof(text))
        return (<bytes> text).decode("utf-8", "replace")

    @property
    def architecture(self):
        """Name of the architecture, e.g. ``llama``."""
        return self.metadata.get("general.architecture", "unknown")

    @property
    def n_params(self):
        """Number of weights."""
        return lib.llama_model_n_params(self.ptr)

    @property
    def size_bytes(self):
        """Size of all tensors in bytes."""
        return lib.llama_model_size(self.ptr)

    @property
    def context_length(self):
        """Context in tokens that the model was trained with."""
        return lib.llama_model_n_ctx_train(self.ptr)

    @property
    def n_layer(self):
        """Number of layers."""
        return lib.llama_model_n_layer(self.ptr)

    @property
    def n_embd(self):
        """Width of the embeddings."""
        return lib.llama_model_n_embd(self.ptr)

    @property
    def chat_template_source(self):
        """The model's own Jinja chat template, or None."""
        cdef const char * source = lib.llama_model_chat_template(self.ptr, NULL)
        return None if source == NULL else source.decode("utf-8", "replace")

    @property
    def has_decoder(self):
        """False for pure encoders (BERT and the like), which cannot generate text."""
        return lib.llama_model_has_decoder(self.ptr) and not self.is_encoder_only

    @property
    def is_encoder_only(self):
        """True when the model has no causal decoder."""
        return self.metadata.get(f"{self.architecture}.attention.causal") == "false"

    @property
    def can_cut_memory(self):
        """True when any suffix of a sequence can be removed from memory and any prefix shared.

        False for recurrent and hybrid models (a state cannot be rolled back) and for sliding
        windows, whose older cells are gone.
        """
        return not (
            lib.llama_model_is_recurrent(self.ptr) or lib.llama_model_is_hybrid(self.ptr)
        )


def _check_file(path):
    if not os.path.exists(path):
        raise ModelLoadError(f"{path}: no such file.", reason="missing")
    if os.path.isdir(path):
        raise ModelLoadError(f"{path} is a directory; name the .gguf file in it.", "directory")
    try:
        with open(path, "rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise ModelLoadError(f"{path} cannot be read: {error.strerror}.", "missing") from error
    if len(magic) < 4:
        raise ModelLoadError(f"{path} is empty or cut off: pull it again.", reason="truncated")
    if magic != b"GGUF":
        raise ModelLoadError(f"{path} is not a GGUF file (it begins with {magic!r}).", "magic")


def _load_error(path, errors):
    text = "; ".join(errors)
    for needle, reason, advice in _REASONS:
        if needle in text:
            return ModelLoadError(f"{path} could not be loaded: {text}. {advice}".strip(), reason)
    return ModelLoadError(f"{path} could not be loaded: {text or 'llama.cpp gave no reason'}.")


cdef str _read_text(lib.llama_model * model, int index, bint key):
    # The C calls return the full length, so a long value is read again with room for it.
    cdef size_t size = 256
    cdef int length
    cdef char * buffer
    while True:
        buffer = <char *> malloc(size)
        if buffer == NULL:
            raise MemoryError()
        try:
            if key:
                length = lib.llama_model_meta_key_by_index(model, index, buffer, size)
            else:
                length = lib.llama_model_meta_val_str_by_index(model, index, buffer, size)
            if length < <int> size:
                return buffer[:max(length, 0)].decode("utf-8", "replace")
            size = length + 1
        finally:
            free(buffer)
