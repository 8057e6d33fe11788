"""Engine on the real default model: what the README promises."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from avllm import Engine, EngineConfig, RequestOutput, SamplingParams
from avllm.errors import (
    ConfigurationError,
    ContextLengthError,
    EngineOverloadedError,
    EngineStoppedError,
    InvalidRequestError,
    ModelNotFoundError,
)

FOX = "The quick brown fox jumps"
GREEDY = SamplingParams(max_tokens=4, temperature=0)


def test_the_fox_jumps_over_a_lazy_dog(engine: Engine) -> None:
    output = engine.generate(FOX, GREEDY)
    assert output.text == " over a lazy dog"
    assert output.finish_reason == "length"
    assert output.usage.prompt_tokens == 5
    assert output.usage.completion_tokens == 4
    assert output.prompt_token_ids == (504, 2365, 6354, 16438, 27003)


def test_prompts_of_a_list_share_steps(engine: Engine) -> None:
    before = engine.metrics.snapshot()
    prompts = [f"{number}. The quick brown fox" for number in range(32)]
    params = SamplingParams(max_tokens=24, temperature=0, ignore_eos=True)
    outputs = engine.generate(prompts, params)
    after = engine.metrics.snapshot()
    assert [output.prompt_token_ids for output in outputs] == [
        tuple(engine.tokenizer.encode(prompt)) for prompt in prompts
    ]
    assert after.generation_tokens - before.generation_tokens == 32 * 24
    assert after.decode_steps - before.decode_steps < 100


def test_token_ids_are_a_prompt_too(engine: Engine) -> None:
    assert engine.generate([504, 2365, 6354, 16438, 27003], GREEDY).text == " over a lazy dog"
    outputs = engine.generate([[504, 2365, 6354, 16438, 27003], [504]], GREEDY)
    assert outputs[0].text == " over a lazy dog"


def test_stream_gives_the_text_in_pieces(engine: Engine) -> None:
    deltas = list(engine.stream(FOX, GREEDY))
    assert "".join(delta.text for delta in deltas) == " over a lazy dog"
    assert len(deltas) >= 4
    assert deltas[-1].finish_reason == "length"
    assert deltas[-1].usage is not None
    assert all(delta.finish_reason is None for delta in deltas[:-1])


def test_chat_uses_the_models_template(engine: Engine) -> None:
    params = SamplingParams(max_tokens=20, temperature=0)
    output = engine.chat([{"role": "user", "content": "Hi"}], params)
    assert output.text == "Hello! How can I help you today?"
    assert output.finish_reason == "stop"
    assert output.prompt_token_ids[0] == 1  # <|im_start|>
    pieces = engine.chat_stream([{"role": "user", "content": "Hi"}], params)
    assert "".join(delta.text for delta in pieces) == output.text


def test_the_next_turn_finds_the_whole_history_in_the_cache(engine: Engine) -> None:
    params = SamplingParams(max_tokens=20, temperature=0)
    messages = [{"role": "user", "content": "My name is Zebedee. What is the weather like?"}]
    first = engine.chat(messages, params)
    messages += [
        {"role": "assistant", "content": first.text},
        {"role": "user", "content": "Thank you."},
    ]
    second = engine.chat(messages, params)
    history = first.usage.prompt_tokens + first.usage.completion_tokens - 1
    assert second.usage.cached_tokens >= history


def test_a_stop_string_ends_the_text_before_it(engine: Engine) -> None:
    output = engine.generate(FOX, SamplingParams(max_tokens=20, temperature=0, stop=[" lazy"]))
    assert output.text == " over a"
    assert output.finish_reason == "stop"
    assert output.outputs[0].stop_reason == " lazy"
    assert output.outputs[0].timings.steps >= 3
    assert output.outputs[0].timings.decode_seconds > 0


def test_a_stop_token_ends_the_text(engine: Engine) -> None:
    output = engine.generate(FOX, SamplingParams(max_tokens=4, temperature=0))
    third = output.outputs[0].token_ids[2]
    params = SamplingParams(max_tokens=20, temperature=0, stop_token_ids=[third])
    stopped = engine.generate(FOX, params)
    assert stopped.text == " over a"
    assert stopped.outputs[0].stop_reason == third


def test_ignore_eos_goes_on(engine: Engine) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    params = SamplingParams(max_tokens=30, temperature=0, ignore_eos=True)
    output = engine.chat(messages, params)
    assert output.finish_reason == "length"
    assert output.usage.completion_tokens == 30


def test_logit_bias_bans_and_forces(engine: Engine) -> None:
    over = engine.tokenizer.encode(" over")[0]
    banned = SamplingParams(max_tokens=1, temperature=0, logit_bias={over: -100})
    forced = SamplingParams(max_tokens=3, temperature=0, logit_bias={over: 100})
    assert engine.generate(FOX, banned).text != " over"
    assert engine.generate(FOX, forced).text == " over over over"


def test_n_sequences_of_one_prompt_differ(engine: Engine) -> None:
    params = SamplingParams(max_tokens=12, temperature=1.2, seed=5, n=4)
    output = engine.generate("Once upon a time", params)
    assert len({sequence.text for sequence in output.outputs}) == 4
    assert output.usage.prompt_tokens == 4
    assert output.usage.completion_tokens == sum(len(s.token_ids) for s in output.outputs)


def test_one_seed_gives_one_text(model_path: Path) -> None:
    # Alone and without cached prefixes: rounding depends on the shape of a batch.
    config = EngineConfig(max_num_seqs=1, context_length=512, prefix_cache=False)
    params = SamplingParams(max_tokens=12, temperature=1.2, seed=5)
    with Engine(model_path, config) as engine:
        texts = {engine.generate("Once upon a time", params).text for _ in range(3)}
    assert len(texts) == 1


def test_logprobs_tell_every_token(engine: Engine) -> None:
    params = SamplingParams(max_tokens=4, temperature=0, logprobs=3)
    sequence = engine.generate(FOX, params).outputs[0]
    assert sequence.logprobs is not None
    assert [item.token_id for item in sequence.logprobs] == list(sequence.token_ids)
    assert b"".join(item.token for item in sequence.logprobs).decode() == sequence.text
    for item in sequence.logprobs:
        assert len(item.top) == 3
        assert item.top[0].token_id == item.token_id  # greedy: the likeliest
        assert item.logprob == item.top[0].logprob <= 0


def test_max_tokens_zero_only_reads_the_prompt(engine: Engine) -> None:
    output = engine.generate(FOX, SamplingParams(max_tokens=0))
    assert output.text == ""
    assert output.finish_reason == "length"
    assert output.usage.completion_tokens == 0


def test_emoji_come_whole(engine: Engine) -> None:
    text = "🦊 jumps over 🐶 👩‍👩‍👧"
    prompt = f"Repeat: {text}\nRepeat: {text}\nRepeat: {text}\nRepeat:"
    params = SamplingParams(max_tokens=40, temperature=0)
    deltas = list(engine.stream(prompt, params))
    assert "�" not in "".join(delta.text for delta in deltas[:-1])
    assert text in "".join(delta.text for delta in deltas)


def test_many_threads_may_call_at_once(engine: Engine) -> None:
    texts: list[str] = []
    threads = [
        threading.Thread(target=lambda: texts.append(engine.generate(FOX, GREEDY).text))
        for _ in range(40)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == [" over a lazy dog"] * 40


def test_leaving_a_stream_frees_its_cells(engine: Engine) -> None:
    for delta in engine.stream("Once upon a time", SamplingParams(max_tokens=500)):
        assert delta.finish_reason is None
        break
    _eventually(lambda: engine.metrics.snapshot().running == 0)
    assert engine.metrics.snapshot().kv_cells_used == 0


@pytest.mark.parametrize(
    ("prompt", "error", "param"),
    [
        ("", InvalidRequestError, "prompt"),
        ([504, 49152], InvalidRequestError, "prompt"),
        ([504, -1], InvalidRequestError, "prompt"),
        ([504, True], InvalidRequestError, "prompt"),
        ("word " * 9000, ContextLengthError, "prompt"),
        ("x" * 10_000_000, ContextLengthError, "prompt"),
        ("\ud83d", InvalidRequestError, "prompt"),
    ],
    ids=["empty", "id too large", "negative id", "bool", "too long", "far too long", "surrogate"],
)
def test_bad_prompts_are_refused_by_name(
    engine: Engine, prompt: object, error: type[InvalidRequestError], param: str
) -> None:
    with pytest.raises(error) as caught:
        engine.generate(prompt, GREEDY)  # type: ignore[call-overload]
    assert caught.value.param == param


def test_bad_ids_in_the_parameters_are_refused_by_name(engine: Engine) -> None:
    for params, name in (
        (SamplingParams(logit_bias={49152: 1.0}), "logit_bias"),
        (SamplingParams(stop_token_ids=[49152]), "stop_token_ids"),
    ):
        with pytest.raises(InvalidRequestError) as caught:
            engine.generate(FOX, params)
        assert caught.value.param == name


def test_refused_requests_leave_their_place_to_others(model_path: Path) -> None:
    config = EngineConfig(max_num_seqs=1, max_queued_requests=0, context_length=512)
    with Engine(model_path, config) as engine:
        for _ in range(5):
            with pytest.raises(InvalidRequestError):
                engine.generate("", GREEDY)
        running = engine.stream(FOX, SamplingParams(max_tokens=300, ignore_eos=True))
        next(running)
        with pytest.raises(EngineOverloadedError) as caught:
            engine.generate(FOX, GREEDY)
        assert caught.value.retry_after >= 1
        assert "Try again" in str(caught.value)
        del running
        _eventually(lambda: engine.metrics.snapshot().running == 0)
        assert engine.generate(FOX, GREEDY).text == " over a lazy dog"


def test_requests_that_gave_way_get_the_tokens_of_a_run_with_room(
    model_path: Path, engine: Engine
) -> None:
    prompts = [f"{number} things that I like about the sea are" for number in range(8)]
    params = SamplingParams(max_tokens=80, temperature=0, ignore_eos=True, logprobs=2)
    expected = engine.generate(prompts, params)
    config = EngineConfig(max_num_seqs=8, context_length=256, max_num_batched_tokens=64)
    with Engine(model_path, config) as small:
        outputs = small.generate(prompts, params)
        snapshot = small.metrics.snapshot()
    assert snapshot.preemptions > 0
    for output, roomy in zip(outputs, expected, strict=True):
        assert output.finish_reason == "length"
        assert output.usage.completion_tokens == 80
        assert _gap_at_first_difference(roomy, output) < 0.5


def _gap_at_first_difference(a: RequestOutput, b: RequestOutput) -> float:
    # Batches are shaped differently, so rounding differs: it may decide between two tokens that
    # are (nearly) equally likely, and only between those.
    first, second = a.outputs[0], b.outputs[0]
    assert first.logprobs is not None
    for position, (x, y) in enumerate(zip(first.token_ids, second.token_ids, strict=True)):
        if x != y:
            best, next_best = first.logprobs[position].top
            assert y == next_best.token_id
            return best.logprob - next_best.logprob
    return 0.0


def test_unknown_models_and_impossible_budgets_are_refused_in_words(model_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="smollm2"):
        Engine("smolm2")
    with pytest.raises(ConfigurationError) as caught:
        EngineConfig(max_num_seqs=0)
    assert caught.value.param == "max_num_seqs"


def test_closing_is_idempotent_and_ends_what_runs(model_path: Path) -> None:
    engine = Engine(model_path, EngineConfig(context_length=512))
    running = engine.stream(FOX, SamplingParams(max_tokens=400, ignore_eos=True))
    next(running)
    engine.close()
    engine.close()
    assert engine.status == "stopped"
    with pytest.raises(EngineStoppedError):
        list(running)
    with pytest.raises(EngineStoppedError):
        engine.generate(FOX, GREEDY)


def test_closing_with_grace_lets_running_requests_end(model_path: Path) -> None:
    engine = Engine(model_path, EngineConfig(context_length=512))
    running = engine.stream(FOX, SamplingParams(max_tokens=20, temperature=0, ignore_eos=True))
    next(running)
    engine.close(grace_seconds=60)
    assert sum(len(delta.token_ids) for delta in running) == 19


def test_a_dropped_engine_stops_its_thread(model_path: Path) -> None:
    engine = Engine(model_path, EngineConfig(context_length=512))
    assert engine.generate(FOX, GREEDY).text
    del engine
    _eventually(lambda: not any(t.name == "avllm-engine-2" for t in threading.enumerate()))


_FORKED = """
import os, sys
from avllm import Engine, EngineConfig, SamplingParams
from avllm.errors import EngineStoppedError
engine = Engine(sys.argv[1], EngineConfig(context_length=512))
child = os.fork()
if child == 0:
    try:
        engine.generate("Hi", SamplingParams(max_tokens=1))
    except EngineStoppedError as error:
        assert "fork" in str(error)
        engine.close()
        os._exit(7)
    os._exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
greedy = SamplingParams(max_tokens=4, temperature=0)
print(engine.generate("The quick brown fox jumps", greedy).text)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_gets_a_clear_error_and_the_parent_goes_on(model_path: Path) -> None:
    assert _python(_FORKED, model_path) == " over a lazy dog\n"


_UNCLOSED = """
import sys
from avllm import Engine, EngineConfig, SamplingParams
engine = Engine(sys.argv[1], EngineConfig(context_length=512))
stream = engine.stream("Once upon a time", SamplingParams(max_tokens=400, ignore_eos=True))
print(len(next(stream).token_ids))
"""


def test_the_interpreter_ends_cleanly_with_an_engine_at_work(model_path: Path) -> None:
    assert _python(_UNCLOSED, model_path) == "1\n"


def _python(code: str, model_path: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, str(model_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def _eventually(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)
