"""Text from tokens: the same however bytes fall into tokens, and never a piece of a stop string."""

from __future__ import annotations

from array import array

import pytest
from fakes import FakeVocab
from hypothesis import given
from hypothesis import strategies as st

from avllm.engine.detokenizer import Detokenizer, StopChecker
from avllm.engine.request import GenerationRequest, SequenceUpdate
from avllm.engine.text_stream import OutputCollector, TextStream
from avllm.outputs import FinishReason
from avllm.sampling_params import SamplingParams

# Characters of one to four bytes, and every kind of broken sequence.
_bytes = st.one_of(
    st.binary(max_size=24),
    st.text(alphabet="aé€🙃\u0301", max_size=8).map(str.encode),
    st.lists(
        st.sampled_from([b"\xf0\x9f", b"\x99\x83", b"\xe2\x82", b"\xac", b"\xc3", b"\xff", b"a"]),
        max_size=8,
    ).map(b"".join),
)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    """Return ``data`` cut at the given places."""
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in zip(places, places[1:], strict=False)]


def vocab_of(pieces: list[bytes]) -> FakeVocab:
    """Return a vocabulary in which token i is piece i."""
    return FakeVocab(pieces=dict(enumerate(pieces)))


@given(_bytes, st.lists(st.integers(0, 100), max_size=12))
def test_any_split_gives_what_python_decodes(data: bytes, cuts: list[int]) -> None:
    pieces = split(data, cuts)
    detokenizer = Detokenizer(vocab_of(pieces))
    parts = [detokenizer.push([token]) for token in range(len(pieces))]
    assert "".join(parts) + detokenizer.finish() == data.decode("utf-8", "replace")


@given(st.text(max_size=10), st.lists(st.integers(0, 100), max_size=12))
def test_no_part_of_a_character_is_shown(text: str, cuts: list[int]) -> None:
    pieces = split(text.encode(), cuts)
    detokenizer = Detokenizer(vocab_of(pieces))
    shown = ""
    for token in range(len(pieces)):
        shown += detokenizer.push([token])
        assert text.startswith(shown)
    assert shown == text
    assert detokenizer.finish() == ""


def test_control_tokens_are_left_out_only_when_asked() -> None:
    vocab = FakeVocab(pieces={1: b"<end>", 2: b"text"}, control=[1])
    assert Detokenizer(vocab).push([2, 1]) == "text"
    assert Detokenizer(vocab, skip_special=False).push([2, 1]) == "text<end>"


def cut_text(text: str, cuts: list[int]) -> list[str]:
    """Return ``text`` cut at the given places."""
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[a:b] for a, b in zip(places, places[1:], strict=False)]


def first_stop(text: str, stop: list[str]) -> tuple[str, str | None]:
    """Return the text before the stop string that is complete first, letter by letter."""
    for end in range(1, len(text) + 1):
        ending = [s for s in stop if text[:end].endswith(s)]
        if ending:
            longest = max(ending, key=len)
            return text[: end - len(longest)], longest
    return text, None


@given(
    st.text(alphabet="abé", max_size=20),
    st.lists(st.text(alphabet="abé", min_size=1, max_size=4), max_size=4, unique=True),
    st.lists(st.integers(0, 100), max_size=12),
)
def test_stop_strings_end_text_whatever_the_split(
    text: str, stop: list[str], cuts: list[int]
) -> None:
    checker = StopChecker(stop)
    expected, matched = first_stop(text, stop)
    shown = ""
    for piece in cut_text(text, cuts):
        shown += checker.push(piece)
        assert expected.startswith(shown), "a piece of a stop string leaked"
        if checker.matched is not None:
            break
    assert shown + checker.finish() == expected
    assert checker.matched == matched


def test_text_is_held_back_only_while_it_may_become_a_stop_string() -> None:
    checker = StopChecker(["STOP"])
    assert checker.push("no ST") == "no "
    assert checker.push("AR") == "STAR"
    assert checker.push("T STO") == "T "
    assert checker.finish() == "STO"
    assert checker.matched is None


def stream_of(pieces: list[bytes], **params: object) -> tuple[TextStream, list[int]]:
    """Return a stream over a request whose token i is piece i, and what it asks to stop."""
    stopped: list[int] = []
    request = GenerationRequest(
        prompt_token_ids=array("i", [1, 2, 3]),
        params=SamplingParams(**params),  # type: ignore[arg-type]
        sink=lambda _, update: None,
        max_total_tokens=100,
    )
    return TextStream(request, vocab_of(pieces), stopped.append), stopped


def feed(stream: TextStream, count: int, reason: FinishReason = "length") -> tuple[str, str]:
    """Push tokens 0 to count - 1, one an update; return the text and the finish reason."""
    collector = OutputCollector((1, 2, 3), 1)
    for token in range(count):
        last = token == count - 1
        update = SequenceUpdate(0, (token,), finish_reason=reason if last else None)
        delta = stream.push(update)
        if delta is not None:
            collector.add(delta)
    output = collector.output()
    return output.text, output.finish_reason


@given(_bytes.filter(bool), st.lists(st.integers(0, 100), max_size=12))
def test_stream_gives_all_text_once(data: bytes, cuts: list[int]) -> None:
    pieces = split(data, cuts)
    stream, _ = stream_of(pieces)
    assert feed(stream, len(pieces)) == (data.decode("utf-8", "replace"), "length")
    assert stream.is_finished


@pytest.mark.parametrize(
    "pieces", [[b"a", b"E", b"N", b"D", b"b"], [b"aEND", b"b"], [b"aE", b"NDb"]]
)
def test_stream_asks_the_engine_to_end_a_sequence_that_said_its_stop_string(
    pieces: list[bytes],
) -> None:
    stream, stopped = stream_of(pieces, stop=("END",))
    text, reason = feed(stream, len(pieces))
    assert (text, reason) == ("a", "stop")
    # Where the engine ended it with the same update there is nothing to ask.
    assert stopped == ([0] if pieces != [b"aE", b"NDb"] else [])


def test_held_text_comes_with_the_end() -> None:
    stream, stopped = stream_of([b"a", b"EN"], stop=("END",))
    assert feed(stream, 2) == ("aEN", "length")
    assert stopped == []
