"""Vocab: text to token ids and back. Its Model owns the memory."""

from avllm.errors import InvalidRequestError

cimport cython
from cpython.array cimport array, clone
from libc.stdint cimport int32_t

from avllm.llama cimport libllama as lib
from avllm.llama.model cimport Model

cdef array _template = array("i")
# llama.cpp takes an int32_t length and needs at most one token per byte plus BOS and EOS.
_MAX_TEXT_BYTES = 2**30


@cython.final
cdef class Vocab:
    """Vocabulary of a model.

    Thread-safe: llama.cpp only reads.
    """

    def __cinit__(self, Model model not None):
        self.model = model  # the pointer below lives in it
        self.ptr = lib.llama_model_get_vocab(model.ptr)
        self.size = lib.llama_vocab_n_tokens(self.ptr)
        self._pieces = [None] * self.size
        self._eog = frozenset(
            token for token in range(self.size) if lib.llama_vocab_is_eog(self.ptr, token)
        )

    @property
    def eog_tokens(self):
        """Ids that end a generation (end of sequence, end of turn, ...)."""
        return self._eog

    @property
    def bos_token(self):
        """Id that begins a sequence, or None."""
        token = lib.llama_vocab_bos(self.ptr)
        return None if token < 0 else token

    @property
    def eos_token(self):
        """Id that ends a sequence, or None."""
        token = lib.llama_vocab_eos(self.ptr)
        return None if token < 0 else token

    @property
    def adds_bos(self):
        """True when a prompt of this model begins with the BOS token."""
        return lib.llama_vocab_get_add_bos(self.ptr)

    def is_eog(self, int token):
        """Return True when ``token`` ends a generation."""
        return token in self._eog

    def is_control(self, int token):
        """Return True for control tokens, which are not text."""
        self._check(token)
        return lib.llama_vocab_is_control(self.ptr, token)

    def encode(self, str text not None, *, bint add_special=True, bint parse_special=False):
        """Tokenize ``text``; releases the GIL.

        Args:
            add_special: add BOS or EOS as the model wants them.
            parse_special: read ``<|...|>`` in the text as control tokens.

        Raises:
            InvalidRequestError: the text is not valid Unicode (lone surrogates) or far too long.
        """
        cdef bytes data
        try:
            data = text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise InvalidRequestError(f"text is not valid Unicode: {error}.", "prompt") from error
        if len(data) > _MAX_TEXT_BYTES:
            raise InvalidRequestError("text is longer than 1 GiB.", "prompt")
        cdef int32_t length = len(data)
        cdef int32_t room = length + 4
        cdef array tokens = clone(_template, room, zero=False)
        cdef const char * start = data
        cdef int32_t * out = <int32_t *> tokens.data.as_ints
        cdef int32_t count
        with nogil:
            count = lib.llama_tokenize(
                self.ptr, start, length, out, room, add_special, parse_special)
        if count < 0:  # more tokens than bytes: -count is the room it needs
            room = -count
            tokens = clone(_template, room, zero=False)
            out = <int32_t *> tokens.data.as_ints
            with nogil:
                count = lib.llama_tokenize(
                    self.ptr, start, length, out, room, add_special, parse_special)
        return tokens[:max(count, 0)].tolist()

    def token_bytes(self, int token):
        """Return the bytes of ``token``; control tokens give their name. Cached."""
        self._check(token)
        piece = self._pieces[token]
        if piece is None:
            piece = self._pieces[token] = self._read_piece(token)
        return piece

    cdef bytes _read_piece(self, int token):
        cdef char small[64]
        cdef array large
        cdef int length = lib.llama_token_to_piece(self.ptr, token, small, 64, 0, True)
        if length >= 0:
            return small[:length]
        large = clone(array("b"), -length, zero=False)
        length = lib.llama_token_to_piece(
            self.ptr, token, large.data.as_chars, len(large), 0, True)
        return large.data.as_chars[:max(length, 0)]

    def decode(self, tokens, *, bint skip_special=False):
        """Return the text of ``tokens``; bytes that are no UTF-8 become U+FFFD."""
        pieces = [
            self.token_bytes(token)
            for token in tokens
            if not (skip_special and self.is_control(token))
        ]
        return b"".join(pieces).decode("utf-8", "replace")

    cdef int _check(self, int token) except -1:
        if not 0 <= token < self.size:
            raise InvalidRequestError(
                f"token id {token} is outside the vocabulary (0 to {self.size - 1}).", "token"
            )
        return 0
