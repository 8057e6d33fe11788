"""The engine inside this process: one prompt, several at once, a stream, a chat."""

from __future__ import annotations

from avllm import Engine, SamplingParams

greedy = SamplingParams(temperature=0, max_tokens=8)

with Engine("smollm2") as engine:
    print("The quick brown fox jumps" + engine.generate("The quick brown fox jumps", greedy).text)

    # Prompts of one list share the batch.
    for output in engine.generate(["One, two, three,", "Monday, Tuesday,"], greedy):
        print(repr(output.text), output.finish_reason, output.usage)

    for delta in engine.stream("Once upon a time", SamplingParams(max_tokens=32, seed=7)):
        print(delta.text, end="", flush=True)
    print()

    messages = [{"role": "user", "content": "Write a haiku about the sea."}]
    print(engine.chat(messages, SamplingParams(max_tokens=32, temperature=0)).text)
